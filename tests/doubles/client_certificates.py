"""An authority of the tests, certificates that it issues, and servers that require a client certificate."""

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hookseal.secrets.extras.tls_identity import TlsIdentity, authorities, client_certificate

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
DAY = timedelta(days=1)


def pem_of(key: Key, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    def file(self, folder: Path, name: str) -> Path:
        path = folder / name
        path.write_bytes(self.certificate + self.key)
        return path


class Authority:
    """Issues certificates. Like many that people make themselves, its own has no key usage (RFC 5280, 4.2.1.3)."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        unsigned = self._begun(self._name, self._key, -DAY, 30 * DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self._certificate = unsigned.sign(self._key, hashes.SHA256())
        self.pem = self._certificate.public_bytes(Encoding.PEM)

    def server(self) -> Pair:
        """Return a server certificate for localhost and 127.0.0.1."""
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return self._pair("localhost", ec.generate_private_key(ec.SECP256R1()), names=names)

    def client(self, name: str = "hookseal", key: Key | None = None, *, days: tuple[int, int] = (-1, 9)) -> Pair:
        """Return a client certificate that is valid between these days, counted from now."""
        return self._pair(name, key or ec.generate_private_key(ec.SECP256R1()), days=days)

    def _pair(self, name: str, key: Key, *, names: list[Any] | None = None, days: tuple[int, int] = (-1, 9)) -> Pair:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        use = ExtendedKeyUsageOID.CLIENT_AUTH if names is None else ExtendedKeyUsageOID.SERVER_AUTH
        made = self._begun(subject, key, days[0] * DAY, days[1] * DAY)
        made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if names is not None:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        return Pair(certificate=certificate, key=pem_of(key))

    def _begun(self, subject: x509.Name, key: Key, since: timedelta, until: timedelta) -> x509.CertificateBuilder:
        now, own = datetime.now(UTC), self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since)
            .not_valid_after(now + until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
        )


def identity(client: Pair | None, trusted: Authority | None) -> TlsIdentity:
    return TlsIdentity(
        client=None if client is None else client_certificate(client.certificate, client.key),
        authorities=() if trusted is None else authorities(trusted.pem),
    )


def serving(pair: Pair, folder: Path, *, asks: Authority | None = None) -> ssl.SSLContext:
    """Return a server context with this certificate; it requires a client certificate of `asks`, if given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.file(folder, f"server-{len(list(folder.iterdir()))}.pem"))
    if asks is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=asks.pem.decode())
    return context


class AlertingTlsServer:
    """A TLS server that sends the reason when a handshake fails, as real servers do and asyncio does not.

    It answers 204. `shown` has the name in the client certificate of each connection, `refused` counts failures.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.shown: list[str | None] = []
        self.requests: list[bytes] = []
        self.refused = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        return f"https://localhost:{self._socket.getsockname()[1]}/hook"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(accepted,), daemon=True))
            self._threads[-1].start()

    def _serve(self, accepted: socket.socket) -> None:
        accepted.settimeout(5)
        with accepted.dup() as below:  # wrapping detaches the socket
            try:
                with self._context.wrap_socket(accepted, server_side=True) as secured:
                    self._answer(secured)
            except ssl.SSLError:
                self.refused += 1
                _read_to_the_end(below)  # unread data at the close would reset the connection and discard the alert
            except OSError:
                return

    def _answer(self, secured: ssl.SSLSocket) -> None:
        names: Any = (secured.getpeercert() or {}).get("subject", ())
        self.shown.append(dict(part[0] for part in names).get("commonName"))
        raw = b""
        while not raw.endswith(b"}"):
            part = secured.recv(65_536)
            if not part:
                return
            raw += part
        self.requests.append(raw)
        secured.sendall(b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n")


def _read_to_the_end(accepted: socket.socket) -> None:
    with suppress(OSError):
        accepted.shutdown(socket.SHUT_WR)
        while accepted.recv(65_536):
            pass
