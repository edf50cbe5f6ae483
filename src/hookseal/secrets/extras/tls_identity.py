"""The TLS identity of an endpoint, which is one secret: its client certificate, and the authorities that it trusts."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hookseal.ground.errors import Malformed, NotFound
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.extras import pem
from hookseal.secrets.material import SecretMaterial

# Limits of the files. Together they always fit into one sealed record (see `SecretMaterial`).
MAX_CERTIFICATE_BYTES: Final = 16_384
MAX_KEY_BYTES: Final = 8_192
MAX_AUTHORITIES_BYTES: Final = 32_768
MOST_CERTIFICATES: Final = 8
MOST_AUTHORITIES: Final = 16

_CERT_FIELD: Final = "client_cert"
_CA_FIELD: Final = "ca_file"
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
            raise NotFound("the endpoint has no client certificate", field="remove_client_cert")
        if self.without_authorities and not before.authorities:
            raise NotFound("the endpoint has no authorities of its own", field="remove_ca")
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
    chain = pem.certificates(certificates, most=MOST_CERTIFICATES, field=_CERT_FIELD)
    material = pem.private_key(key, field="client_key")
    _require_pair(chain, material)
    return ClientCertificate(chain=tuple(map(_der, chain)), key=material)


def authorities(raw: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a PEM file, as DER. They are authorities to trust. Raises `Malformed`."""
    _require_size(raw, MAX_AUTHORITIES_BYTES, _CA_FIELD)
    return tuple(map(_der, pem.certificates(raw, most=MOST_AUTHORITIES, field=_CA_FIELD)))


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


def written(identity: TlsIdentity) -> SecretMaterial:
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
    public = pem.key_of(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
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
