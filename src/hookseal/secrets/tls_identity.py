"""The TLS identity of an endpoint as one secret: who we are to its receiver, and who vouches for the receiver."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hookseal.ground.errors import Malformed
from hookseal.secrets import pem
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial

# As files; together they fit into one sealed record whatever the spelling (see `SecretMaterial`).
MAX_CERTIFICATE_BYTES: Final = 16_384
MAX_KEY_BYTES: Final = 8_192
MAX_AUTHORITIES_BYTES: Final = 32_768
MOST_CERTIFICATES: Final = 8
MOST_AUTHORITIES: Final = 16

_CERT_FIELD: Final = "client_cert"
_CA_FIELD: Final = "ca_file"
_SUBJECT_CHARACTERS: Final = 256
_SPOILT: Final = "the sealed TLS identity of the endpoint is not such as may be used: set it anew"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A chain of certificates as DER, that of the key first, and the key as PKCS #8 in DER."""

    chain: tuple[bytes, ...] = field(repr=False)
    key: SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """Either part may be missing. `authorities`, as DER, stand in the place of those that the installation trusts."""

    client: ClientCertificate | None = None
    authorities: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""
        return self.client is None and not self.authorities


def client_certificate(certificates: bytes, key: bytes) -> ClientCertificate:
    """Return what two PEM files hold.

    Raises `Malformed`, never with content, if either is not of its form or the key is not that of the first
    certificate.
    """
    _require_size(certificates, MAX_CERTIFICATE_BYTES, _CERT_FIELD)
    _require_size(key, MAX_KEY_BYTES, "client_key")
    chain = pem.certificates(certificates, most=MOST_CERTIFICATES, field=_CERT_FIELD)
    material = pem.private_key(key, field="client_key")
    _require_pair(chain, material)
    return ClientCertificate(chain=tuple(map(_der, chain)), key=material)


def authorities(raw: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a PEM file that are to vouch for the receiver. Raises `Malformed`."""
    _require_size(raw, MAX_AUTHORITIES_BYTES, _CA_FIELD)
    return tuple(map(_der, pem.certificates(raw, most=MOST_AUTHORITIES, field=_CA_FIELD)))


def require_current(identity: TlsIdentity, now: datetime) -> None:
    """Return only if every certificate is valid then. Raises `Malformed` naming the one that is not."""
    chain = () if identity.client is None else identity.client.chain
    for field_name, certificates in ((_CERT_FIELD, chain), (_CA_FIELD, identity.authorities)):
        for number, certificate in enumerate(map(x509.load_der_x509_certificate, certificates), 1):
            if certificate.not_valid_after_utc <= now:
                at = certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z")
                raise Malformed(f"certificate {number} of the file expired at {at}", field=field_name)
            if certificate.not_valid_before_utc > now:
                at = certificate.not_valid_before_utc.isoformat().replace("+00:00", "Z")
                raise Malformed(f"certificate {number} of the file is valid from {at} on only", field=field_name)


def written(identity: TlsIdentity) -> SecretMaterial:
    """Return the whole identity as one material."""
    client = identity.client
    parts = {
        "authorities": [_text(each) for each in identity.authorities],
        "chain": [] if client is None else [_text(each) for each in client.chain],
        "key": None if client is None else _text(client.key.reveal()),
    }
    return SecretMaterial(json.dumps(parts, separators=(",", ":"), sort_keys=True).encode("ascii"))


def read(material: SecretMaterial) -> TlsIdentity:
    """Return the identity that was written so. Raises `SecretUnusable` if it is not such as may be used."""
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
        raise SecretUnusable(_SPOILT) from None
    if identity.is_empty:
        raise SecretUnusable(_SPOILT)
    return identity


def shown(identity: TlsIdentity) -> dict[str, Any] | None:
    """Return what may be shown of it: of every certificate that matters the subject, fingerprint and end."""
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
    except ValueError:  # a name that is encoded as no text is
        return ""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:_SUBJECT_CHARACTERS]


def _require_pair(chain: Sequence[x509.Certificate], key: SecretMaterial) -> None:
    if not chain:
        raise Malformed("a private key needs its certificate", field=_CERT_FIELD)
    public = pem.key_of(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fitting = [_public(certificate) == public for certificate in chain]
    if not any(fitting):
        raise Malformed("the private key is not that of the certificate", field="client_key")
    if not fitting[0]:
        raise Malformed("the certificate of the key must come first, then those that vouch for it", field=_CERT_FIELD)


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
