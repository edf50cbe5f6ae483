"""The TLS identity of an endpoint, which is one secret: its client certificate, and the authorities that it trusts."""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from hookseal.errors import Malformed, NotFound, SecretUnusable
from hookseal.secrets.core.material import SecretMaterial

LEAST_RSA_BITS: Final = 2_048
MOST_RSA_BITS: Final = 8_192

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----((?:(?!-----).)*)-----END \1-----", re.DOTALL)
_CERTIFICATE: Final = b"CERTIFICATE"
_KEYS: Final = frozenset({b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"})
_ENCRYPTED: Final = b"ENCRYPTED PRIVATE KEY"
_PARAMETERS: Final = b"EC PARAMETERS"  # `openssl ecparam -genkey` writes them before the key
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def read_certificates(raw: bytes, *, most: int, field: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a PEM file, in its order; text outside of them is a comment.

    Raises `Malformed` unless the file has 1 to `most` complete certificates and no other PEM block.
    """
    certificates = []
    for number, (label, _, inner) in enumerate(_blocks(raw, field), 1):
        if label in _KEYS or label == _ENCRYPTED:
            raise Malformed(
                "the file holds a private key beside certificates: a key has a private file of its own (--client-key)",
                field=field,
            )
        if label != _CERTIFICATE:
            raise Malformed(f"part {number} of the file is not a certificate", field=field)
        certificates.append(_certificate(inner, number, field))
    if len(certificates) > most:
        raise Malformed(f"the file may hold at most {most} certificates", field=field)
    return tuple(certificates)


def read_private_key(raw: bytes, *, field: str) -> SecretMaterial:
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
    blocks, end = [], 0
    for match in _BLOCK.finditer(raw):
        _require_comment(raw[end : match.start()], field)
        blocks.append((match[1], match[0], match[2]))
        end = match.end()
    _require_comment(raw[end:], field)
    if not blocks:
        raise Malformed("the file holds no PEM: -----BEGIN ...-----", field=field)
    return blocks


def _require_comment(outside: bytes, field: str) -> None:
    if b"-----" in outside:
        raise Malformed("the PEM of the file is incomplete: a block lacks its beginning or its end", field=field)


def _certificate(inner: bytes, number: int, field: str) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(b"".join(inner.split()), validate=True))
        certificate.public_key()
    except (binascii.Error, *_UNREADABLE):
        raise Malformed(f"certificate {number} of the file cannot be read", field=field) from None
    return certificate


# Limits of the files. Together they always fit into one sealed record (see `SecretMaterial`).
MAX_CERTIFICATE_BYTES: Final = 16_384
MAX_KEY_BYTES: Final = 8_192
MAX_AUTHORITIES_BYTES: Final = 32_768
MOST_CERTIFICATES: Final = 8
MOST_AUTHORITIES: Final = 16

_CERT_FIELD: Final = "client_cert"
_CA_FIELD: Final = "ca"
_SUBJECT_CHARACTERS: Final = 256
_UNUSABLE: Final = "the sealed TLS identity of the endpoint cannot be used: set it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A chain of DER certificates, which begins with that of the key, and the key as PKCS #8 in DER."""

    chain: tuple[bytes, ...] = field(repr=False)
    key: SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """Either part may be missing. `authorities`, as DER, replace those that the installation trusts."""

    client: ClientCertificate | None = None
    authorities: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether both parts are missing."""
        return self.client is None and not self.authorities


NONE: Final = TlsIdentity()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsChange:
    """A change of either part: a part that is given replaces the old one; `without_...` removes a part."""

    client: ClientCertificate | None = None
    authorities: tuple[bytes, ...] = ()
    without_client: bool = False
    without_authorities: bool = False

    @property
    def given(self) -> TlsIdentity:
        """The parts that are given."""
        return TlsIdentity(client=self.client, authorities=self.authorities)

    @property
    def replaces_all(self) -> bool:
        """Whether the result does not depend on the identity before, so that it need not be opened."""
        decides_client = self.client is not None or self.without_client
        return decides_client and (bool(self.authorities) or self.without_authorities)

    def applied(self, before: TlsIdentity) -> TlsIdentity:
        """Return the identity after the change. Raises `NotFound` if a part to remove is not there."""
        if self.without_client and before.client is None:
            raise NotFound("the endpoint has no client certificate", field="client_cert")
        if self.without_authorities and not before.authorities:
            raise NotFound("the endpoint has no authorities of its own", field="ca")
        return self._result(before)

    def initial(self) -> TlsIdentity:
        """Return the result for an endpoint without an identity."""
        return self._result(NONE)

    def _result(self, before: TlsIdentity) -> TlsIdentity:
        return TlsIdentity(
            client=self.client or (None if self.without_client else before.client),
            authorities=self.authorities or (() if self.without_authorities else before.authorities),
        )


def client_certificate(certificates: bytes, key: bytes) -> ClientCertificate:
    """Return the client certificate of two PEM files.

    Raises `Malformed`, without content of the files, if either is malformed or the key does not belong to the first
    certificate.
    """
    _require_size(certificates, MAX_CERTIFICATE_BYTES, _CERT_FIELD)
    _require_size(key, MAX_KEY_BYTES, "client_key")
    chain = read_certificates(certificates, most=MOST_CERTIFICATES, field=_CERT_FIELD)
    material = read_private_key(key, field="client_key")
    _require_pair(chain, material)
    return ClientCertificate(chain=tuple(map(_der, chain)), key=material)


def authorities(raw: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a PEM file, as DER. They are authorities to trust. Raises `Malformed`."""
    _require_size(raw, MAX_AUTHORITIES_BYTES, _CA_FIELD)
    return tuple(map(_der, read_certificates(raw, most=MOST_AUTHORITIES, field=_CA_FIELD)))


def require_current(identity: TlsIdentity, now: datetime) -> None:
    """Raise `Malformed`, which names the certificate, unless every certificate is valid at `now`."""
    chain = () if identity.client is None else identity.client.chain
    for field_name, certificates in ((_CERT_FIELD, chain), (_CA_FIELD, identity.authorities)):
        for number, certificate in enumerate(map(x509.load_der_x509_certificate, certificates), 1):
            if certificate.not_valid_after_utc <= now:
                at = certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z")
                raise Malformed(f"certificate {number} of the file expired at {at}", field=field_name)
            if certificate.not_valid_before_utc > now:
                at = certificate.not_valid_before_utc.isoformat().replace("+00:00", "Z")
                raise Malformed(f"certificate {number} of the file is valid from {at} on only", field=field_name)


def to_material(identity: TlsIdentity) -> SecretMaterial:
    """Return the whole identity as one material, which `read` reads."""
    client = identity.client
    parts = {
        "authorities": [_text(each) for each in identity.authorities],
        "chain": [] if client is None else [_text(each) for each in client.chain],
        "key": None if client is None else _text(client.key.reveal()),
    }
    return SecretMaterial(json.dumps(parts, separators=(",", ":"), sort_keys=True).encode("ascii"))


def read(material: SecretMaterial) -> TlsIdentity:
    """Return the identity of a material. Raises `SecretUnusable` if it cannot be used."""
    try:
        parts = json.loads(material.reveal())
        chain, key = tuple(map(_bytes, parts["chain"])), parts["key"]
        trusted = tuple(map(_bytes, parts["authorities"]))
        for certificate in (*chain, *trusted):
            x509.load_der_x509_certificate(certificate)
        client = None if key is None else ClientCertificate(chain=chain, key=SecretMaterial(_bytes(key)))
        if client is not None:
            _require_pair(tuple(map(x509.load_der_x509_certificate, chain)), client.key)
        identity = TlsIdentity(client=client, authorities=trusted)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, Malformed):
        raise SecretUnusable(_UNUSABLE) from None
    if identity.is_empty:
        raise SecretUnusable(_UNUSABLE)
    return identity


def shown(identity: TlsIdentity) -> dict[str, Any] | None:
    """Return what may be shown: subject, fingerprint and expiry of the client certificate and of each authority."""
    if identity.is_empty:
        return None
    client = identity.client
    return {
        "client_certificate": None if client is None else _facts(client.chain[0]),
        "authorities": [_facts(each) for each in identity.authorities],
    }


def _facts(der: bytes) -> Mapping[str, str]:
    certificate = x509.load_der_x509_certificate(der)
    return {
        "subject": _subject(certificate),
        "sha256": certificate.fingerprint(SHA256()).hex(),
        "expires_at": certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z"),
    }


def _subject(certificate: x509.Certificate) -> str:
    try:
        text = certificate.subject.rfc4514_string()
    except ValueError:  # a name with an invalid encoding
        return ""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:_SUBJECT_CHARACTERS]


def _require_pair(chain: Sequence[x509.Certificate], key: SecretMaterial) -> None:
    if not chain:
        raise Malformed("a private key needs its certificate", field=_CERT_FIELD)
    public = key_of(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    matches = [_public(certificate) == public for certificate in chain]
    if not any(matches):
        raise Malformed("the private key does not belong to the certificate", field="client_key")
    if not matches[0]:
        raise Malformed("the certificate of the key must come first, then those that certify it", field=_CERT_FIELD)


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _require_size(raw: bytes, most: int, field_name: str) -> None:
    if len(raw) > most:
        raise Malformed(f"the file may hold at most {most} bytes", field=field_name)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
