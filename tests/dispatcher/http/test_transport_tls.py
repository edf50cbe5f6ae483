"""TLS on real sockets: which certificates are trusted, and how a failed handshake is reported. Nothing is sent then."""

import asyncio
import gc
import ssl
import warnings
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, Reply, TlsIdentity
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.request_progress import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.trust import client_context
from hookseal.errors import Unavailable
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.blocking_tls import blocking_tls
from tests.doubles.certificates import Issued, authority, issued, trusting
from tests.doubles.receivers import Listener, answers, hang, listening, reset, status
from tests.doubles.replaced import replace
from tests.worker.waiting import eventually

VOUCHING = authority()
UNTRUSTED = (
    "the certificate comes from an authority that is not trusted, or the receiver leaves out a link of its chain"
)
SECONDS_TO_LIVE = 0.5
QUICK = Limits(handshake_seconds=0.3)


def certificate_for(*names: str, days: tuple[int, int] = (-1, 1), by: Issued | None = VOUCHING) -> Issued:
    """Return a certificate, by default from the authority that is trusted here."""
    return issued(*names, by=by, days=days)


async def send_request(server: ssl.SSLContext, *, trust: ssl.SSLContext | None = None) -> tuple[Answer, Listener]:
    """Send one request to a receiver with this context."""
    async with (
        listening(status(204), tls=server) as listener,
        HttpTransport(AddressRules(LOOPBACK), trust=trust or trusting(VOUCHING)) as transport,
    ):
        return await transport.send(request_to(listener.url)), listener


@pytest.mark.req("DEL-11", part="tls")
@pytest.mark.parametrize(
    ("certificate", "detail"),
    [
        (certificate_for("localhost", days=(-9, -2)), "the certificate has expired"),
        (certificate_for("localhost", days=(2, 9)), "the certificate is not valid yet"),
        (certificate_for("other.example", "127.0.0.1"), "the certificate is for another name"),
        (certificate_for("localhost", by=None), "the certificate is self-signed"),
        (
            certificate_for("localhost", by=authority("untrusted")),
            UNTRUSTED,
        ),
    ],
    ids=["expired", "not yet valid", "another name", "self-signed", "untrusted"],
)
async def test_a_bad_certificate_gets_no_request(certificate: Issued, detail: str, tmp_path: Path) -> None:
    """If the certificate is expired, for another name or not trusted, the failure says which, and nothing is sent."""
    answer, listener = await send_request(certificate.server(tmp_path))

    assert Failure(kind=FailureKind.TLS, detail=detail) == answer
    assert [] == listener.requests


async def test_a_certificate_must_be_for_the_address(tmp_path: Path) -> None:
    """A receiver that is addressed by an IP address must have a certificate for that address."""
    found = []
    for certificate in (certificate_for("localhost"), certificate_for("127.0.0.1")):
        async with (
            listening(status(204), tls=certificate.server(tmp_path)) as listener,
            HttpTransport(AddressRules(LOOPBACK), trust=trusting(VOUCHING)) as transport,
        ):
            found.append(await transport.send(request_to(f"https://127.0.0.1:{listener.port}/")))

    wrong = Failure(kind=FailureKind.TLS, detail="the certificate is for another address")
    assert [wrong, Reply(status=204, snippet="")] == found


@pytest.mark.req("DEL-11", part="tls")
async def test_the_systems_authorities_are_the_default(tmp_path: Path) -> None:
    """By default only the system's authorities are trusted; the operator can add others, or trust only the others."""
    server = certificate_for("localhost").server(tmp_path)
    unknown, _ = await send_request(server, trust=client_context())
    known, _ = await send_request(server, trust=client_context(extra=VOUCHING.pem))

    assert isinstance(unknown, Failure)
    assert FailureKind.TLS is unknown.kind
    assert Reply(status=204, snippet="") == known
    system = len(client_context().get_ca_certs())
    assert [system + 1, 1] == [
        len(client_context(extra=VOUCHING.pem, only=only).get_ca_certs()) for only in (False, True)
    ]


def old(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Limit a server to this TLS version or older."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    return context


@pytest.mark.req("DEL-11", part="tls")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_tls_gets_no_request(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """A receiver with TLS 1.1 or older gets no request, and the failure says why."""
    with blocking_tls(old(certificate_for("localhost").server(tmp_path), version)) as receiver:
        async with HttpTransport(AddressRules(LOOPBACK), trust=trusting(VOUCHING)) as transport:
            answer = await transport.send(request_to(receiver.url))

    assert Failure(kind=FailureKind.TLS, detail="the receiver speaks no TLS of version 1.2 or newer") == answer
    assert [] == receiver.requests


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_new_tls_is_supported(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """TLS 1.2 and 1.3 are supported."""
    server = certificate_for("localhost").server(tmp_path)
    server.minimum_version = server.maximum_version = version
    answer, _ = await send_request(server)

    assert Reply(status=204, snippet="") == answer


@asynccontextmanager
async def raw(kind: str) -> AsyncIterator[Listener]:
    """Yield a receiver that does not support TLS."""
    script = {"plain": status(204), "closing": reset, "silent": hang, "mail": answers(b"220 ready\r\n")}[kind]

    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                await script(reader, writer)
                await reader.read()
        finally:
            writer.transport.abort()

    async with listening(status(204)) as listener:
        listener.serve = at_once  # type: ignore[method-assign]
        yield listener


@pytest.mark.req("DEL-11", part="tls")
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("plain", Failure(kind=FailureKind.TLS, detail="the receiver does not speak TLS")),
        ("mail", Failure(kind=FailureKind.TLS, detail="the receiver does not speak TLS")),
        (
            "closing",
            Failure(kind=FailureKind.TLS, detail="the receiver closed the connection during the TLS handshake"),
        ),
        ("silent", Failure(kind=FailureKind.TIMEOUT, detail="no TLS handshake within 0.3 s")),
    ],
)
async def test_a_receiver_without_tls_gets_no_plaintext(kind: str, expected: Failure) -> None:
    """A receiver without TLS never gets a request in plaintext; the handshake has a time limit of its own."""
    limits = QUICK if kind == "silent" else Limits()  # on a busy machine an answer needs time
    async with raw(kind) as listener, HttpTransport(AddressRules(LOOPBACK), limits=limits) as transport:
        answer = await transport.send(request_to(f"https://127.0.0.1:{listener.port}/"))

    assert expected == answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate_is_a_tls_failure(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """If the receiver requires a client certificate and the endpoint has none, the attempt is a TLS failure.

    In TLS 1.3 the receiver refuses after our side of the handshake, so the failure can say what is missing.
    """
    server = certificate_for("localhost").server(tmp_path)
    server.minimum_version = server.maximum_version = version
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=VOUCHING.pem)
    with blocking_tls(server) as receiver:
        async with HttpTransport(AddressRules(LOOPBACK), trust=trusting(VOUCHING)) as transport:
            answer = await transport.send(request_to(receiver.url))

    details = {
        ssl.TLSVersion.TLSv1_2: "the receiver refused the TLS handshake",
        ssl.TLSVersion.TLSv1_3: "the receiver wants a client certificate that it trusts",
    }
    assert Failure(kind=FailureKind.TLS, detail=details[version]) == answer
    assert [] == receiver.requests


@pytest.mark.req("DEL-11", part="tls")
async def test_an_identity_shares_no_connection(tmp_path: Path) -> None:
    """The authorities of one endpoint are trusted for its requests only, and no other request uses its connections."""
    private = authority("private")
    server = issued("localhost", by=private).server(tmp_path)
    own = TlsIdentity(key="acme's own", context=client_context(extra=private.pem, only=True))
    async with (
        listening(status(204), tls=server) as listener,
        HttpTransport(AddressRules(LOOPBACK), trust=trusting(VOUCHING)) as transport,
    ):
        request = request_to(listener.url)
        found = [await transport.send(replace(request, tls=tls)) for tls in (own, None, own)]

    known, unknown, again = found
    assert Reply(status=204, snippet="") == known == again
    assert isinstance(unknown, Failure)
    assert (1, 2) == (listener.connections, len(listener.requests))


@pytest.mark.req("DEL-11", part="tls")
async def test_a_new_context_makes_new_connections(tmp_path: Path) -> None:
    """Once an identity has a new context, no request uses a connection that was made with the old one."""
    server = certificate_for("localhost").server(tmp_path)
    async with (
        listening(status(204), tls=server) as listener,
        HttpTransport(AddressRules(LOOPBACK)) as transport,
    ):
        request = request_to(listener.url)
        for _ in range(2):
            own = TlsIdentity(key="k", context=trusting(VOUCHING))
            for _ in range(2):
                assert Reply(status=204, snippet="") == await transport.send(replace(request, tls=own))

    assert (2, 4) == (listener.connections, len(listener.requests))


@pytest.mark.req("DEL-11", part="tls")
async def test_an_expired_context_is_released(tmp_path: Path) -> None:
    """After an identity has expired, the transport and its kept connections no longer refer to its context."""
    server = certificate_for("localhost").server(tmp_path)
    async with (
        listening(status(204), tls=server) as listener,
        HttpTransport(AddressRules(LOOPBACK)) as transport,
    ):
        own = TlsIdentity(
            key="k", context=trusting(VOUCHING), expires_at=asyncio.get_running_loop().time() + SECONDS_TO_LIVE
        )
        held = weakref.ref(own.context)
        assert Reply(status=204, snippet="") == await transport.send(replace(request_to(listener.url), tls=own))
        del own

        async def is_released() -> bool:
            gc.collect()
            return held() is None

        await eventually(is_released)


@pytest.mark.parametrize(("content", "is_read"), [(b"no certificate", False), (b"", True)])
def test_unreadable_system_authorities_are_an_error(
    content: bytes, is_read: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If OpenSSL cannot read the authorities of the system, which it does not report, no context is made.

    An empty file is accepted: nothing is trusted then.
    """
    (tmp_path / "certs.pem").write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certs.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))

    with nullcontext() if is_read else pytest.raises(Unavailable, match="no certificate was read from"):
        assert [] == client_context().get_ca_certs()
