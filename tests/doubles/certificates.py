"""Certificates that tests create: an authority, and certificates that it issues."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hookseal.dispatcher.http.trust import client_context

_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(_PEM).decode("ascii")

    @property
    def both(self) -> bytes:
        """The certificate and its key as PEM."""
        key = self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self.certificate.public_bytes(_PEM) + key

    def server(self, folder: Path) -> ssl.SSLContext:
        """Return a server context with this certificate, which is loaded from a file in the folder."""
        path = folder / f"{self.certificate.serial_number:x}.pem"
        path.write_bytes(self.both)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def issued(*names: str, by: Issued | None = None, days: tuple[int, int] = (-1, 1), authority: bool = False) -> Issued:
    """Return a certificate for these names and addresses, issued by that authority or self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .sign(key if by is None else by.key, hashes.SHA256())
    )
    return Issued(certificate, key)


def authority(name: str = "an authority of the tests") -> Issued:
    """Return an authority that no context trusts yet."""
    return issued(name, authority=True)


def trusting(*authorities: Issued) -> ssl.SSLContext:
    """Return a context that trusts these authorities and no others."""
    return client_context(extra="".join(each.pem for each in authorities), only=True)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text.replace(" ", "-"))
