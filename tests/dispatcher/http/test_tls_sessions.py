"""Which TLS sessions the transport resumes, as real receivers see it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Failure, FailureKind, Reply, Request, TlsIdentity
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.observation import Limits, certificate_of
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.trust import client_context
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.dispatcher.http.test_transport_connections import UNTRUSTED
from tests.doubles.certificates import Issued, authority, issued, trusting
from tests.doubles.clock import FakeClock
from tests.doubles.egress_proxy import piped
from tests.doubles.receivers import Listener, listening, status
from tests.doubles.replaced import replace

pytestmark = pytest.mark.req("DEL-11", part="tls")

VOUCHING = authority()
CERTIFICATE = issued("localhost", "127.0.0.1", by=VOUCHING)
CLOSING = status(204, headers=b"connection: close\r\n")
DELIVERED = Reply(status=204, snippet="")
HOUR = 3_600
PRE_SHARED_KEY = 41  # RFC 8446, 4.2: the extension in which a client offers a session
COMPRESS_CERTIFICATE = 27  # RFC 8879, 3


@pytest.fixture
def server(tmp_path: Path) -> ssl.SSLContext:
    """Return the context of a receiver that the transports here trust."""
    return CERTIFICATE.server(tmp_path)


def sending(clock: FakeClock | None = None, limits: Limits | None = None) -> HttpTransport:
    """Return a transport that trusts the receivers here."""
    return HttpTransport(AddressRules(LOOPBACK), trust=trusting(VOUCHING), limits=limits, clock=clock)


def to(listener: Listener, tenant: str = "acme") -> Request:
    """Return a request that may begin at any time."""
    return request_to(listener.url, tenant=tenant, start_by=1e9, timeout_seconds=20)


async def resumes(
    transport: HttpTransport, listener: Listener, *, tenant: str = "acme", tls: TlsIdentity | None = None
) -> bool:
    """Send a request on a connection of its own, and return whether that resumed a session."""
    assert DELIVERED == await transport.send(replace(to(listener, tenant), tls=tls))
    return listener.resumed[-1]


async def test_the_next_connection_resumes_the_session(server: ssl.SSLContext) -> None:
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        found = [await resumes(transport, listener) for _ in range(4)]

    assert [False, True, True, True] == found == listener.resumed


@pytest.mark.parametrize(("limits", "resumed"), [(Limits(), 3), (Limits(tls_sessions_at_place=2), 2)])
async def test_a_burst_resumes_the_sessions_of_the_last(limits: Limits, resumed: int, server: ssl.SSLContext) -> None:
    """Connections that are opened together resume a session each, up to the limit for each host and port."""
    all_are_here = asyncio.Barrier(3)

    async def answer_together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await all_are_here.wait()
        await CLOSING(reader, writer)

    async with listening(answer_together, tls=server) as listener, sending(limits=limits) as transport:
        for _ in range(2):
            answers = await asyncio.gather(*[transport.send(to(listener)) for _ in range(3)])
            assert [DELIVERED] * 3 == answers
            assert len(transport._options.tls_sessions) == resumed

    assert [0, resumed] == [sum(listener.resumed[:3]), sum(listener.resumed[3:])]


async def test_a_ticket_is_used_once(server: ssl.SSLContext) -> None:
    """Of two connections that are opened together only one offers the session (RFC 8446, C.4)."""
    both_are_here = asyncio.Barrier(2)

    async def answer_together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(listener.requests) > 1:
            await both_are_here.wait()
        await CLOSING(reader, writer)

    async with listening(answer_together, tls=server) as listener, sending() as transport:
        await resumes(transport, listener)
        answers = await asyncio.gather(*[transport.send(to(listener)) for _ in range(2)])

    assert [DELIVERED] * 2 == answers
    assert [False, False, True] == sorted(listener.resumed)


@pytest.mark.req("SEC-08")
async def test_no_other_tenant_resumes_a_session(server: ssl.SSLContext) -> None:
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        found = [await resumes(transport, listener, tenant=each) for each in ("acme", "globex", "acme", "globex")]

    assert [False, False, True, True] == found


async def test_no_other_place_resumes_a_session(server: ssl.SSLContext) -> None:
    """Another port of the same host, and another name of it, get a full handshake."""
    async with listening(CLOSING, tls=server) as one, listening(CLOSING, tls=server) as other, sending() as transport:
        for url in (one.url, other.url, f"https://127.0.0.1:{one.port}/"):
            assert DELIVERED == await transport.send(replace(to(one), url=url))

    assert ([False, False], [False]) == (one.resumed, other.resumed)


async def test_other_trust_resumes_no_session(server: ssl.SSLContext) -> None:
    """An endpoint with a TLS identity, another identity, and a new context of the same one get a full handshake."""
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        own, other = (TlsIdentity(key=key, context=trusting(VOUCHING)) for key in ("own", "other"))
        changed = TlsIdentity(key="own", context=trusting(VOUCHING))
        found = [await resumes(transport, listener, tls=tls) for tls in (None, own, other, None, own, changed, changed)]

    assert [False, False, False, True, True, False, True] == found


async def test_a_new_client_certificate_is_shown(tmp_path: Path, server: ssl.SSLContext) -> None:
    """After the client certificate was changed, the receiver sees the new one, and never a session of the old one."""
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=VOUCHING.pem)
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        for name in ("before", "after"):
            identity = TlsIdentity(key="own", context=_showing(issued(name, by=VOUCHING), tmp_path))
            for _ in range(2):
                await resumes(transport, listener, tls=identity)

    assert ["before", "before", "after", "after"] == listener.clients
    assert [False, True, False, True] == listener.resumed


def _showing(client: Issued, folder: Path) -> ssl.SSLContext:
    path = folder / f"{client.certificate.serial_number:x}.pem"
    path.write_bytes(client.both)
    context = trusting(VOUCHING)
    context.load_cert_chain(path)
    return context


async def test_sessions_end_with_their_context(server: ssl.SSLContext) -> None:
    """When a context is replaced, every session that was made with it is forgotten, and no other one."""
    async with (
        listening(CLOSING, tls=server) as one,
        listening(CLOSING, tls=server) as other,
        sending() as transport,
    ):
        kept = transport._options.tls_sessions
        for listener in (one, other):
            await resumes(transport, listener, tls=TlsIdentity(key="own", context=trusting(VOUCHING)))
            await resumes(transport, listener)
        await asyncio.gather(*transport._sessions._closing)

        assert 3 == len(kept), "that of the first context is forgotten"
        assert [True, True] == [await resumes(transport, listener) for listener in (one, other)]
    assert 0 == len(kept)


async def test_a_certificate_is_verified_every_hour(server: ssl.SSLContext) -> None:
    """A session is resumed within an hour of the handshake that verified the certificate, however often."""
    clock = FakeClock()
    async with listening(CLOSING, tls=server) as listener, sending(clock) as transport:
        found = []
        for at in (0, 2_000, HOUR - 1, HOUR, 2 * HOUR - 1, 2 * HOUR):
            clock.elapsed = at
            found.append(await resumes(transport, listener))

    assert [False, True, True, False, True, False] == found


async def test_no_session_outlives_the_certificate(server: ssl.SSLContext) -> None:
    clock = FakeClock(CERTIFICATE.certificate.not_valid_after_utc - timedelta(seconds=60))
    async with listening(CLOSING, tls=server) as listener, sending(clock) as transport:
        found = []
        for at in (0, 59, 60):
            clock.elapsed = at
            found.append(await resumes(transport, listener))

    assert [False, True, False] == found


@pytest.mark.parametrize(
    ("fit", "of_tenant", "found"),
    [(2, 2, [True, False]), (3, 1, [False, True]), (3, 2, [True, True])],
    ids=["of all", "of each", "enough"],
)
async def test_the_size_of_all_sessions_is_limited(
    fit: int, of_tenant: int, found: list[bool], server: ssl.SSLContext
) -> None:
    """Above the limit for all, and for one tenant, the oldest one is forgotten."""
    limits = Limits(
        tls_session_bytes=await bytes_of(fit, server), tls_session_bytes_of_tenant=await bytes_of(of_tenant, server)
    )
    async with (
        listening(CLOSING, tls=server) as globex,
        listening(CLOSING, tls=server) as one,
        listening(CLOSING, tls=server) as other,
        sending(limits=limits) as transport,
    ):
        await resumes(transport, globex, tenant="globex")
        await resumes(transport, one)
        await resumes(transport, other)

        kept = len(transport._options.tls_sessions)
        assert found == [await resumes(transport, one), await resumes(transport, globex, tenant="globex")]
        assert kept == len(transport._options.tls_sessions) == found.count(True) + 1


async def test_a_resumed_session_counts_as_before(server: ssl.SSLContext) -> None:
    """It contains the certificates of the session before, though the receiver did not send them again."""
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        sizes = []
        for _ in range(3):
            await resumes(transport, listener)
            sizes += [kept.size for kept in transport._options.tls_sessions._all]

    assert [False, True, True] == listener.resumed
    assert [sizes[0]] * 3 == sizes


async def bytes_of(count: int, server: ssl.SSLContext) -> int:
    """Return a limit that so many sessions with this receiver reach, and no more of them."""
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        await resumes(transport, listener)
        (kept,) = transport._options.tls_sessions._all
    return kept.size * count + kept.size // 2


async def test_a_session_that_is_used_is_kept_longer(server: ssl.SSLContext) -> None:
    async with (
        listening(CLOSING, tls=server) as one,
        listening(CLOSING, tls=server) as other,
        listening(CLOSING, tls=server) as third,
        sending(limits=Limits(tls_session_bytes=await bytes_of(2, server))) as transport,
    ):
        found = [await resumes(transport, each) for each in (one, other, one, third, one, other)]

    assert [False, False, True, False, True, False] == found


async def test_a_refused_ticket_is_a_full_handshake(tmp_path: Path) -> None:
    """A receiver that was restarted does not know its old tickets: the request is delivered all the same."""
    found, port = list[bool](), 0
    async with sending() as transport:
        for _ in range(2):
            async with listening(CLOSING, tls=CERTIFICATE.server(tmp_path), port=port) as listener:
                port = listener.port
                found += [await resumes(transport, listener) for _ in range(2)]
                assert 2 == listener.connections

    assert [False, True, False, True] == found


async def test_a_new_certificate_is_verified_by_a_full_handshake(tmp_path: Path) -> None:
    """If the receiver no longer knows the ticket, it needs a certificate that is trusted: else nothing is sent."""
    async with sending() as transport:
        async with listening(CLOSING, tls=CERTIFICATE.server(tmp_path)) as listener:
            await resumes(transport, listener)
        foreign = issued("localhost", by=authority("foreign")).server(tmp_path)
        async with listening(CLOSING, tls=foreign, port=listener.port) as later:
            answers = [await transport.send(to(later)) for _ in range(2)]

    assert [Failure(kind=FailureKind.TLS, detail=UNTRUSTED)] * 2 == answers
    assert [] == later.requests


def extensions(hello: bytes) -> set[int]:
    """Return the extensions in this record, a ClientHello (RFC 8446, 4.1.2)."""
    at = 5 + 4 + 2 + 32
    for length_bytes in (1, 2, 1):  # session id, cipher suites, compression methods
        at += length_bytes + int.from_bytes(hello[at : at + length_bytes])
    at += 2
    found = set[int]()
    while at < len(hello):
        found.add(int.from_bytes(hello[at : at + 2]))
        at += 4 + int.from_bytes(hello[at + 2 : at + 4])
    return found


class Front:
    """Stands before a receiver. It passes a connection on, unless the client offers a session there."""

    def __init__(self, behind: Listener, refuse: Callable[[asyncio.StreamWriter], None]) -> None:
        self._behind = behind
        self._refuse = refuse
        self.offered: list[bool] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        head = await reader.readexactly(5)
        hello = head + await reader.readexactly(int.from_bytes(head[3:]))
        self.offered.append(PRE_SHARED_KEY in extensions(hello))
        if self.offered[-1]:
            self._refuse(writer)
            with suppress(ConnectionError):
                await reader.read()
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind.port)
        far_writer.write(hello)
        try:
            await asyncio.gather(piped(reader, far_writer), piped(far_reader, writer))
        finally:
            far_writer.transport.abort()
            writer.transport.abort()


@asynccontextmanager
async def before(behind: Listener, refuse: Callable[[asyncio.StreamWriter], None]) -> AsyncIterator[tuple[Front, str]]:
    """Yield a front of this receiver, and its url."""
    front = Front(behind, refuse)
    async with listening(CLOSING) as listener:
        listener.serve = front.serve  # type: ignore[method-assign]
        yield front, f"https://localhost:{listener.port}/"


def alerts(writer: asyncio.StreamWriter) -> None:
    """Answer with the alert `internal_error`."""
    writer.write(b"\x15\x03\x03\x00\x02\x02\x50")
    writer.close()


def resets(writer: asyncio.StreamWriter) -> None:
    """End the connection."""
    writer.transport.abort()


def hangs(writer: asyncio.StreamWriter) -> None:
    """Do nothing."""
    del writer


@pytest.mark.parametrize("refuse", [alerts, resets])
async def test_a_receiver_that_fails_over_a_session_gets_a_full_handshake(
    refuse: Callable[[asyncio.StreamWriter], None], server: ssl.SSLContext
) -> None:
    """In the same attempt the request is delivered without a session, and none is offered for an hour."""
    clock = FakeClock()
    async with (
        listening(CLOSING, tls=server) as listener,
        before(listener, refuse) as (front, url),
        sending(clock) as transport,
    ):
        answers, offered = [], []
        for at in (0, 1, 2, HOUR, HOUR + 1):
            clock.elapsed = at
            answers.append(await transport.send(replace(to(listener), url=url)))
            offered.append(tuple(front.offered))
            front.offered.clear()

    assert [DELIVERED] * 5 == answers
    assert [(False,), (True, False), (False,), (False,), (False,)] == offered


@pytest.mark.parametrize(("limits", "seconds"), [(Limits(handshake_seconds=1), 20), (Limits(), 1)])
async def test_a_receiver_that_hangs_over_a_session_hangs_once(
    limits: Limits, seconds: float, server: ssl.SSLContext
) -> None:
    """Whether the time for the handshake is over or that of the request, the next ones offer no session."""
    async with (
        listening(CLOSING, tls=server) as listener,
        before(listener, hangs) as (front, url),
        sending(limits=limits) as transport,
    ):
        request = replace(to(listener), url=url)
        answers = [await transport.send(replace(request, timeout_seconds=allowed)) for allowed in (20, seconds, 20, 20)]

    late = Failure(kind=FailureKind.TIMEOUT, detail="no TLS handshake within 1 s")
    assert [DELIVERED, late, DELIVERED, DELIVERED] == answers
    assert [False, True, False, False] == front.offered


async def test_a_session_of_tls_1_2_is_not_resumed(server: ssl.SSLContext) -> None:
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        found = [await resumes(transport, listener) for _ in range(2)]

    assert [False, False] == found


@pytest.mark.parametrize("count", [450, 1_000])
async def test_no_large_session_is_kept(count: int, tmp_path: Path) -> None:
    """A receiver with a certificate of 9 or 19 KB is no failure, but its sessions would need too much memory."""
    await keeps_none(with_names(count).server(tmp_path))


def with_names(count: int) -> Issued:
    """Return a certificate of 19 bytes for each of so many names, and some hundred bytes more."""
    return issued("localhost", *(f"{number:05d}.example.com" for number in range(count)), by=VOUCHING)


TOO_LARGE = Failure(
    kind=FailureKind.TLS,
    detail="the receiver sent more than 32,768 bytes in the TLS handshake: its certificates are too large",
)


async def test_certificates_that_are_too_large_get_no_request(tmp_path: Path) -> None:
    async with listening(CLOSING, tls=with_names(1_800).server(tmp_path)) as listener, sending() as transport:
        assert TOO_LARGE == await transport.send(to(listener))

    assert [] == listener.requests


@asynccontextmanager
async def before_it(behind: Listener, *, port: int = 0) -> AsyncIterator[Listener]:
    """Yield a listener that passes connections on to this receiver, and what that sends in pieces of 2,048 bytes."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        front.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", behind.port)
        answering = asyncio.create_task(piped(reader, far_writer))
        try:
            while piece := await far_reader.read(2_048):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)
        finally:
            far_writer.transport.abort()
            writer.transport.abort()
            await asyncio.gather(answering, return_exceptions=True)

    async with listening(CLOSING, port=port) as front:
        front.serve = pass_on  # type: ignore[method-assign]
        yield front


async def test_large_certificates_in_pieces_get_no_request(tmp_path: Path) -> None:
    """What counts is all that the receiver sends in the handshake."""
    async with (
        listening(CLOSING, tls=with_names(4_000).server(tmp_path)) as behind,
        before_it(behind) as front,
        sending() as transport,
    ):
        assert TOO_LARGE == await transport.send(replace(to(front), url=f"https://localhost:{front.port}/"))

    assert [] == behind.requests


async def test_large_certificates_for_a_session_are_refused_once(tmp_path: Path) -> None:
    """If a receiver answers the offer of a session with such certificates, that was a full handshake: none follows."""
    async with sending() as transport:
        async with listening(CLOSING, tls=CERTIFICATE.server(tmp_path)) as listener:
            await resumes(transport, listener)
        large = with_names(1_800).server(tmp_path)
        async with listening(CLOSING, tls=large) as behind, before_it(behind, port=listener.port) as front:
            assert TOO_LARGE == await transport.send(to(listener))

    assert 1 == front.connections


@pytest.mark.parametrize("is_resumed", [False, True])
async def test_the_bytes_of_kept_connections_are_limited(is_resumed: bool, server: ssl.SSLContext) -> None:
    """A connection that resumes a session has its certificates, so it counts as the one that received them."""
    all_are_here = asyncio.Barrier(3)
    answers = iter([CLOSING] * 3 * is_resumed + [status(204)] * 3)

    async def answer_together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await all_are_here.wait()
        await next(answers)(reader, writer)

    limits = Limits(idle_bytes=await bytes_of(2, server) * 9 // 10)
    async with listening(answer_together, tls=server) as listener, sending(limits=limits) as transport:
        for _ in range(1 + is_resumed):
            assert [DELIVERED] * 3 == await asyncio.gather(*[transport.send(to(listener)) for _ in range(3)])

        assert [is_resumed] * 3 == listener.resumed[-3:]
        assert 2 == len(transport._options.idle)


async def test_the_event_loop_keeps_no_certificate(server: ssl.SSLContext) -> None:
    """In a dict it would need more memory than in OpenSSL, for as long as the connection is open."""
    async with listening(status(204), tls=server) as listener, sending() as transport:
        assert DELIVERED == await transport.send(to(listener))
        (kept,) = transport._options.idle._all

        assert kept.transport is not None
        assert None is kept.transport.get_extra_info("peercert")
        assert certificate_of(kept.transport.get_extra_info("ssl_object"))["subject"]


async def test_no_session_with_a_large_ticket_is_kept(tmp_path: Path, server: ssl.SSLContext) -> None:
    """A receiver chooses what its tickets contain: here the client certificate, which has 5 KB."""
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=VOUCHING.pem)
    client = issued(*(f"{number:05d}.example.com" for number in range(250)), by=VOUCHING)
    await keeps_none(server, tls=TlsIdentity(key="own", context=_showing(client, tmp_path)))


async def keeps_none(server: ssl.SSLContext, tls: TlsIdentity | None = None) -> None:
    """Deliver twice to this receiver, and require that no session is kept."""
    async with listening(CLOSING, tls=server) as listener, sending() as transport:
        assert [False, False] == [await resumes(transport, listener, tls=tls) for _ in range(2)]
        assert 0 == len(transport._options.tls_sessions)


@pytest.mark.parametrize("only", [False, True])
def test_no_handshake_is_repeated(only: bool) -> None:
    """In TLS 1.2 a receiver could send certificates of any size later."""
    assert client_context(extra=VOUCHING.pem, only=only).options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("extra", [None, VOUCHING.pem])
@pytest.mark.parametrize("only", [False, True])
def test_no_compressed_certificate_is_accepted(extra: str | None, only: bool) -> None:
    """Compressed to 2 KB, a certificate of 75 KB would be below the limit. OpenSSL decompresses them from 3.2 on."""
    sent = ssl.MemoryBIO()
    tls = client_context(extra=extra, only=only).wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()

    assert COMPRESS_CERTIFICATE not in extensions(sent.read())
