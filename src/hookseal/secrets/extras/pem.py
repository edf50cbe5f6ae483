"""Reads certificates and a private key from PEM files, strictly. No error repeats the content of a file."""

import base64
import binascii
import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from hookseal.ground.errors import Malformed
from hookseal.secrets.material import SecretMaterial

LEAST_RSA_BITS: Final = 2_048
MOST_RSA_BITS: Final = 8_192

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----((?:(?!-----).)*)-----END \1-----", re.DOTALL)
_CERTIFICATE: Final = b"CERTIFICATE"
_KEYS: Final = frozenset({b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"})
_ENCRYPTED: Final = b"ENCRYPTED PRIVATE KEY"
_PARAMETERS: Final = b"EC PARAMETERS"  # `openssl ecparam -genkey` writes them before the key
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def certificates(raw: bytes, *, most: int, field: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a PEM file, in its order; text outside of them is a comment.

    Raises `Malformed` unless the file has 1 to `most` complete certificates and no other PEM block.
    """
    found = []
    for number, (label, _, inner) in enumerate(_blocks(raw, field), 1):
        if label in _KEYS or label == _ENCRYPTED:
            raise Malformed(
                "the file holds a private key beside certificates: a key has a private file of its own (--client-key)",
                field=field,
            )
        if label != _CERTIFICATE:
            raise Malformed(f"part {number} of the file is not a certificate", field=field)
        found.append(_certificate(inner, number, field))
    if len(found) > most:
        raise Malformed(f"the file may hold at most {most} certificates", field=field)
    return tuple(found)


def private_key(raw: bytes, *, field: str) -> SecretMaterial:
    """Return the one private key of a PEM file, as PKCS #8 in DER.

    Raises `Malformed` if the key is encrypted, if TLS clients cannot use its kind (they can use RSA of 2048 to 8192
    bits, EC on P-256, P-384 or P-521, Ed25519 and Ed448), or if the file has another block.
    """
    blocks = [part for part in _blocks(raw, field) if part[0] != _PARAMETERS]
    if len(blocks) != 1 or (blocks[0][0] not in _KEYS and blocks[0][0] != _ENCRYPTED):
        raise Malformed("the file must hold one private key, and nothing else", field=field)
    label, block, _ = blocks[0]
    if label == _ENCRYPTED or b"ENCRYPTED" in block:
        raise Malformed(
            "the private key is encrypted: decrypt it into another private file first (openssl pkey -in F -out G)",
            field=field,
        )
    try:
        key = _usable(load_pem_private_key(block, password=None), field)
    except _UNREADABLE:
        raise Malformed("the private key cannot be read", field=field) from None
    return SecretMaterial(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def key_of(material: SecretMaterial) -> Key:
    """Return the key of a material that `private_key` returned. Raises `Malformed`."""
    try:
        # `private_key` checked the numbers of the key before it was sealed. For RSA the check takes 50 ms.
        loaded = load_der_private_key(material.reveal(), password=None, unsafe_skip_rsa_key_validation=True)
        return _usable(loaded, "client_key")
    except _UNREADABLE:
        raise Malformed("the private key cannot be read", field="client_key") from None


def _usable(key: object, field: str) -> Key:
    if isinstance(key, rsa.RSAPrivateKey):
        if LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
            return key
        raise Malformed(f"an RSA key must have {LEAST_RSA_BITS} to {MOST_RSA_BITS} bits", field=field)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
            return key
        raise Malformed("an EC key must be on the curve P-256, P-384 or P-521", field=field)
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key
    raise Malformed("TLS clients cannot use this kind of private key: give RSA, EC, Ed25519 or Ed448", field=field)


def _blocks(raw: bytes, field: str) -> list[tuple[bytes, bytes, bytes]]:
    """Return label, whole text and inner text of every block. Raises `Malformed` if a block is incomplete."""
    found, end = [], 0
    for match in _BLOCK.finditer(raw):
        _require_comment(raw[end : match.start()], field)
        found.append((match[1], match[0], match[2]))
        end = match.end()
    _require_comment(raw[end:], field)
    if not found:
        raise Malformed("the file holds no PEM: -----BEGIN ...-----", field=field)
    return found


def _require_comment(outside: bytes, field: str) -> None:
    if b"-----" in outside:
        raise Malformed("the PEM of the file is incomplete: a block lacks its beginning or its end", field=field)


def _certificate(inner: bytes, number: int, field: str) -> x509.Certificate:
    try:
        found = x509.load_der_x509_certificate(base64.b64decode(b"".join(inner.split()), validate=True))
        found.public_key()
    except (binascii.Error, *_UNREADABLE):
        raise Malformed(f"certificate {number} of the file cannot be read", field=field) from None
    return found
