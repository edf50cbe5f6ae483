"""The transport, on the loop of a worker: connections, headers, proxies and TLS."""

import asyncio
import gc
import logging
import socket
import ssl
import threading
import traceback
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, NotBegun, Reply, Request, TlsIdentity
from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork
from hookseal.dispatcher.http.egress_guard import LookUps
from hookseal.dispatcher.http.observation import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.trust import client_context
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import Defect, Unavailable
from hookseal.secrets.core.material import SecretMaterial
from tests.cli.listeners import closed_port
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.dispatcher.http.test_transport_receivers import connections_to, wait_until_closed
from tests.doubles.blocking_tls import blocking_tls
from tests.doubles.certificates import Issued, authority, issued, trusting
from tests.doubles.egress_proxy import proxying
from tests.doubles.receivers import (
    Listener,
    Script,
    answers,
    hang,
    listening,
    reset,
    resets_after,
    stalls_after,
    status,
)
from tests.doubles.replaced import replace
from tests.worker.waiting import eventually

OK = b"HTTP/1.1 204 OK\r\n\r\n"
CANARY = "canary-4f1d"
EVERY_CHARACTER = bytes(range(0x21, 0x7F))
OWN = {
    "authorization": f"Bearer {CANARY}".encode(),
    "cookie": b'a=1; b="2, 3"; a=4; not a pair',
    "x-every-character": EVERY_CHARACTER,
    "x-inside": b"a \t b",
    "x-long": b"v" * 4096,
}
GoWrong = Callable[[HttpTransport, Request, asyncio.Event], Awaitable[None]]
QUICK_CONNECT = Limits(connect_seconds=0.3)
VOUCHING = authority()
UNTRUSTED = (
    "the certificate comes from an authority that is not trusted, or the receiver leaves out a link of its chain"
)
SECONDS_TO_LIVE = 0.5
QUICK_HANDSHAKE = Limits(handshake_seconds=0.3)


class Blocking:
    """A receiver in a thread, which works while the event loop of the sender is blocked."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.close_now = threading.Event()
        self.closed = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for _ in range(2):
            connection, _ = self._listening.accept()
            with connection:
                self.requests.append(connection.recv(65_536))
                connection.sendall(OK)
                self.close_now.wait()
            self.closed.set()

    def end(self) -> None:
        """End the thread, whatever it waits for."""
        self.close_now.set()
        self._listening.close()


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    """Yield a receiver, and end it afterwards."""
    receiver = Blocking()
    yield receiver
    receiver.end()


@pytest.mark.req("DEL-11", part="reuse")
async def test_a_closed_connection_is_not_used(blocking: Blocking) -> None:
    url = f"http://127.0.0.1:{blocking.port}/"
    async with HttpTransport(AddressRules(LOOPBACK)) as transport:
        first = await transport.send(request_to(url))
        blocking.close_now.set()
        blocking.closed.wait()  # blocks the event loop
        second = await transport.send(request_to(url))

    assert [Reply(status=204, snippet="")] * 2 == [first, second]
    assert 2 == len(blocking.requests)


@pytest.mark.req("DEL-11", part="reuse")
@pytest.mark.parametrize("header", [b"", b"upgrade: x\r\n"])
async def test_a_connection_that_switched_protocols_is_not_used_again(header: bytes) -> None:
    """After 101 the connection is closed: what comes then would count as the answer to the next request."""
    count = 0

    async def switch_then_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count > 1:
            writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 101 Switching\r\n%b\r\n" % header)
        if await reader.read(1):  # a second request on this connection
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with listening(switch_then_answer) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answers = [await transport.send(request_to(listener.url)) for _ in range(2)]

    assert [Reply(status=101, snippet=""), Reply(status=500, snippet="")] == answers


@pytest.mark.req("DEL-11", part="reuse")
@pytest.mark.parametrize("cut", [resets_after(b""), resets_after(b"HTTP/1.1 2")])
async def test_a_written_request_is_not_sent_again(cut: Script) -> None:
    """A request whose kept connection broke after the write is not sent again: the receiver may have it."""
    count = 0

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await (status(204) if count == 1 else cut)(reader, writer)

    async with listening(answer_once) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        first = await transport.send(request_to(listener.url))
        second = await transport.send(request_to(listener.url))

    assert Reply(status=204, snippet="") == first
    assert isinstance(second, Failure)
    assert FailureKind.CONNECTION is second.kind
    assert (1, 2) == (listener.connections, len(listener.requests))


@pytest.mark.req("DEL-11", part="reuse")
async def test_unrequested_bytes_are_no_answer() -> None:
    """Bytes that arrive on a kept connection before a request are not taken as its answer: the connection is closed."""
    first_is_answered = asyncio.Event()
    count = 0

    async def answer_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await (status(204) if count == 1 else status(503))(reader, writer)
        if count == 1:
            await first_is_answered.wait()
            await status(204)(reader, writer)

    async with listening(answer_twice) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        first = await transport.send(request_to(listener.url))
        first_is_answered.set()
        await wait_until_closed(listener.port)
        second = await transport.send(request_to(listener.url))

    assert [Reply(status=204, snippet=""), Reply(status=503, snippet="")] == [first, second]
    assert (2, 2) == (listener.connections, len(listener.requests))


@pytest.mark.req("DEL-11", part="reuse")
async def test_a_kept_connection_may_be_taken_at_once() -> None:
    """A request can take a kept connection before the previous request's task has seen the end of its answer."""
    go_on = asyncio.Event()

    async def in_two_parts(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await go_on.wait()
        writer.write(b"k")

    async with listening(in_two_parts) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        first = asyncio.create_task(transport.send(request_to(listener.url)))

        async def arrived() -> bool:
            return len(listener.requests) == 1

        await eventually(arrived)
        [shared] = transport._sessions._open.values()
        go_on.set()
        while not getattr(shared.connector, "_conns"):  # noqa: ASYNC110, B009 -- no event, and the next turn matters
            await asyncio.sleep(0)
        second = await transport.send(request_to(listener.url))

    assert [Reply(status=200, snippet="ok")] * 2 == [await first, second]
    assert (1, 2) == (listener.connections, len(listener.requests))


async def test_a_closing_receiver_gets_new_connections() -> None:
    script = status(204, headers=b"connection: close\r\n")
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answers = [await transport.send(request_to(listener.url)) for _ in range(3)]

        assert [Reply(status=204, snippet="")] * 3 == answers
        assert (3, 3) == (listener.connections, len(listener.requests))
        await wait_until_closed(listener.port)


@pytest.mark.req("DEL-11", part="reuse")
@pytest.mark.parametrize(("limits", "kept"), [(Limits(idle_each=3), 3), (Limits(idle=2), 2), (Limits(), 6)])
async def test_the_number_of_kept_connections_is_limited(limits: Limits, kept: int) -> None:
    """After concurrent requests, no more connections are kept than the limits per receiver and in all allow."""
    arrived = 0
    all_are_here = asyncio.Event()

    async def answer_all(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 6:
            all_are_here.set()
        await all_are_here.wait()
        writer.write(OK)

    async with listening(answer_all) as listener, HttpTransport(AddressRules(LOOPBACK), limits=limits) as transport:
        answers = await asyncio.gather(*[transport.send(request_to(listener.url)) for _ in range(6)])
        assert [Reply(status=204, snippet="")] * 6 == answers
        await wait_until_closed(listener.port, kept=kept)
        again = await transport.send(request_to(listener.url))

        assert Reply(status=204, snippet="") == again
        assert kept == len(transport._options.idle)
        assert 6 == listener.connections


async def test_the_longest_unused_goes_first() -> None:
    """Above the limit, the kept connection that was unused for longest is closed."""
    async with (
        listening(status(204)) as one,
        listening(status(204)) as other,
        HttpTransport(AddressRules(LOOPBACK), limits=Limits(idle=1)) as transport,
    ):
        for url in (one.url, other.url):
            await transport.send(request_to(url))
        await wait_until_closed(one.port)

        assert 1 == connections_to(other.port)


async def test_a_place_with_several_connections_gives_one_up_first() -> None:
    """Above the limit, the only kept connection to a receiver stays, though another receiver's were used later."""
    both_are_here = asyncio.Barrier(2)

    async def answer_together(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await both_are_here.wait()
        writer.write(OK)

    async with (
        listening(status(204)) as one,
        listening(answer_together) as busy,
        listening(status(204)) as third,
        HttpTransport(AddressRules(LOOPBACK), limits=Limits(idle=3)) as transport,
    ):
        await transport.send(request_to(one.url))
        await asyncio.gather(*[transport.send(request_to(busy.url)) for _ in range(2)])
        await transport.send(request_to(third.url))
        await wait_until_closed(busy.port, kept=1)

        assert [1, 1] == [connections_to(each.port) for each in (one, third)]


async def test_an_unused_connection_is_closed() -> None:
    """A kept connection that is not used again is closed after `idle_seconds`."""
    async with (
        listening(status(204)) as listener,
        HttpTransport(AddressRules(LOOPBACK), limits=Limits(idle_seconds=0.05)) as transport,
    ):
        await transport.send(request_to(listener.url))
        await wait_until_closed(listener.port)

        async def all_are_closed() -> bool:
            return len(transport._options.idle) == 0

        await eventually(all_are_closed)


@pytest.mark.req("DEL-11", part="bounds")
async def test_connecting_has_a_time_out() -> None:
    """A receiver whose system accepts no more connections is a time-out after `connect_seconds`."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        async with HttpTransport(AddressRules(LOOPBACK), limits=Limits(connect_seconds=0.2)) as transport:
            answer = await transport.send(request_to(f"http://127.0.0.1:{port}/"))
        for each in waiting:
            each.close()

    assert Failure(kind=FailureKind.TIMEOUT, detail="no connection within 0.2 s") == answer


def with_own(url: str, own: Mapping[str, bytes] = OWN, *, timeout_seconds: float = 5) -> Request:
    """Return a request to this URL with these headers of the endpoint's own."""
    request = request_to(url, timeout_seconds=timeout_seconds)
    return replace(request, sealed_headers={name: SecretMaterial(value) for name, value in own.items()})


def lines(raw: bytes) -> list[bytes]:
    """Return the header lines of a request as they arrived."""
    return raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_own_headers_arrive_byte_for_byte() -> None:
    """Each value arrives once and unchanged, on a new and on a kept connection; our headers do not change."""
    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for request in (request_to(listener.url), with_own(listener.url), with_own(listener.url)):
            await transport.send(request)

    without, *carrying = [lines(raw) for raw in listener.requests]
    assert 1 == listener.connections
    for found in carrying:
        assert sorted(found) == sorted([*without, *(name.encode() + b": " + OWN[name] for name in OWN)])


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_own_headers_belong_to_one_request() -> None:
    """The next request on the same connection contains none of the previous request's own headers."""
    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        await transport.send(with_own(listener.url))
        await transport.send(request_to(listener.url))

    assert (1, 2) == (listener.connections, len(listener.requests))
    assert CANARY.encode() in listener.requests[0]
    assert not any(name.encode() in listener.requests[1].lower() for name in OWN)


@pytest.mark.req("DEL-13", part="rules")
async def test_hookseals_headers_take_precedence() -> None:
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        request = with_own(listener.url, {"x-both": b"theirs"})
        await transport.send(replace(request, headers={**request.headers, "x-both": "ours"}))

    assert [b"x-both: ours"] == [line for line in lines(listener.requests[0]) if line.startswith(b"x-both")]


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, CANARY.encode()) for name in ("webhook-id", "x-webhook-event", "x-hookseal-attempt", "x-tenant-id")),
        *((name, CANARY.encode()) for name in ("x-correlation-id", "traceparent", "host", "content-length")),
        *((name, CANARY.encode()) for name in ("content-type", "user-agent", "accept-encoding", "connection")),
        *((name, CANARY.encode()) for name in ("transfer-encoding", "te", "upgrade", "expect", "proxy-authorization")),
        *((name, CANARY.encode()) for name in ("X-Api-Key", "x api", "x:api", "", "x\r\ny", "x\x00", "\xfc", "x" * 65)),
        *(("x-api-key", CANARY.encode() + tail) for tail in (b"\r\nx-admin: 1", b"\n", b"\r", b"\x00", b" ", b"\xfc")),
        ("x-api-key", b""),
        ("x-api-key", CANARY.encode() + b"v" * 4096),
    ],
)
async def test_a_forbidden_header_is_a_defect_before_dialling(name: str, value: bytes) -> None:
    """A reserved or malformed name, or a value that could end its line, is a `Defect` before anything is dialled."""
    async with listening(status(204)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        with pytest.raises(Defect) as caught:
            await transport.send(with_own(listener.url, {"x-good": CANARY.encode(), name: value}))

    assert 0 == listener.connections
    assert CANARY not in shown_by(caught.value)


def shown_by(error: BaseException) -> str:
    """Return all that a traceback could show of an error and its causes: texts, frames and their local variables.

    Frames of this file are left out.
    """
    shown = [repr(error)]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename != __file__:
            shown.append(f"{frame.f_code.co_filename}: {frame.f_locals!r}")
    return "\n".join(
        [*shown, *(shown_by(cause) for cause in (error.__cause__, error.__context__) if cause is not None)]
    )


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    "script",
    [
        status(500, b"no"),
        reset,
        hang,
        answers(b"nonsense\r\n\r\n"),
        answers(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
        stalls_after(b"HTTP/1.1 200 OK\r\nx: "),
    ],
)
async def test_no_answer_or_log_has_a_value(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the receiver does, neither the answer nor the log of any library contains a header value."""
    caplog.set_level(logging.DEBUG)
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answer = await transport.send(with_own(listener.url, timeout_seconds=0.3))
        while not listener.requests:  # on a busy machine the time-out may pass before the request has come
            answer = await transport.send(with_own(listener.url, timeout_seconds=0.3))

    assert CANARY.encode() in listener.requests[0]
    assert isinstance(answer, Reply | Failure)
    assert CANARY not in f"{answer!r} {caplog.text}"


async def send_wrong_body(transport: HttpTransport, request: Request, _arrived: asyncio.Event) -> None:
    """Send a request whose body is not bytes."""
    await transport.send(replace(request, body="x"))


async def cancel_request(transport: HttpTransport, request: Request, arrived: asyncio.Event) -> None:
    sending = asyncio.create_task(transport.send(request))
    await asyncio.wait_for(arrived.wait(), 60)
    sending.cancel()
    await sending


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(("go_wrong", "within"), [(send_wrong_body, "transport.py"), (cancel_request, "streams.py")])
async def test_no_traceback_has_a_value(go_wrong: GoWrong, within: str) -> None:
    """An error that passes through the transport leaves no header value in the frames of its traceback."""
    arrived = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with listening(silent) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        with pytest.raises((Exception, asyncio.CancelledError)) as caught:
            await go_wrong(transport, with_own(listener.url), arrived)

    assert within in shown_by(caught.value), "the error did not pass through the expected frames"
    assert CANARY not in shown_by(caught.value)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_no_object_keeps_a_value() -> None:
    """After a request, sent or not, no object of the process refers to a header value, on a kept connection either."""

    def made() -> str:
        return bytes.fromhex("6b6570742d63616e617279").decode()

    async with listening(status(200, b"ok")) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        for script_url in (listener.url, listener.url, f"{listener.url}#late"):
            late = script_url.endswith("late")
            request = with_own(script_url.removesuffix("#late"), {"x-api-key": made().encode()})
            answer = await transport.send(replace(request, start_by=0) if late else request)
            assert isinstance(answer, NotBegun if late else Reply)
            del request
        assert 2 == sum(made().encode() in raw for raw in listener.requests)
        listener.requests.clear()
        gc.collect()

        needle = made()
        kept = [held for held in _held() if held is not needle and needle in _text(held)]

    assert [] == kept


def _held() -> Iterator[object]:
    """Yield every object that a container of this process refers to, also through containers that gc does not track."""
    for container in gc.get_objects():
        for held in gc.get_referents(container):
            yield held
            if not gc.is_tracked(held):
                yield from gc.get_referents(held)


def _text(held: object) -> str:
    match held:
        case str():
            return held
        case bytes() | bytearray():
            return held.decode("latin-1")
        case _:
            return ""


@pytest.mark.req("DEL-11", part="proxy")
async def test_a_request_goes_through_a_tunnel() -> None:
    """The tunnel leads to the checked address and is used again; the receiver gets the request as without a proxy."""
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings()) as transport,
    ):
        answers = [
            await transport.send(request_to(f"http://localhost:{listener.port}/a?b=c", body=b"{}")) for _ in range(2)
        ]

    assert [Reply(status=204, snippet="")] * 2 == answers
    assert [f"127.0.0.1:{listener.port}"] == proxy.targets
    for raw in listener.requests:
        assert raw.startswith(b"POST /a?b=c HTTP/1.1\r\nHost: localhost:")
        assert b"proxy" not in raw.lower()


@pytest.mark.req("DEL-11", part="proxy")
@pytest.mark.parametrize("names", [("localhost",), ("other.example", "127.0.0.1")])
async def test_tls_in_the_tunnel_checks_the_host_name(names: tuple[str, ...], tmp_path: Path) -> None:
    """In the tunnel, the certificate must be for the host name of the URL: one for the tunnel's address is refused."""
    vouching = authority()
    server = issued(*names, by=vouching).server(tmp_path)
    shown: list[str | None] = []
    server.sni_callback = lambda _object, name, _context: shown.append(name)
    async with (
        listening(status(204), tls=server) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), trust=trusting(vouching), proxy=proxy.settings()) as transport,
    ):
        answer = await transport.send(request_to(listener.url))

    wrong = Failure(kind=FailureKind.TLS, detail="the certificate is for another name")
    assert (Reply(status=204, snippet="") if "localhost" in names else wrong) == answer
    assert ["localhost"] == shown
    assert [f"127.0.0.1:{listener.port}"] == proxy.targets


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]"])
async def test_a_forbidden_address_is_not_requested_from_the_proxy(host: str) -> None:
    async with proxying() as proxy, HttpTransport(AddressRules(), proxy=proxy.settings()) as transport:
        answer = await transport.send(request_to(f"http://{host}:{proxy.port}/"))

    assert isinstance(answer, Failure)
    assert FailureKind.FORBIDDEN_ADDRESS is answer.kind
    assert [] == proxy.heads


@pytest.mark.req("DEL-12")
async def test_only_the_proxys_address_is_exempt() -> None:
    """The proxy is dialled although loopback is not allowed; public addresses are requested from it."""
    async with proxying() as proxy, HttpTransport(AddressRules(), proxy=proxy.settings()) as transport:
        proxy.answer = b"HTTP/1.1 403 no\r\n\r\n"
        for url in ("http://1.1.1.1/", "https://[2606:4700::1111]:8443/"):
            await transport.send(request_to(url))

    assert ["1.1.1.1:80", "[2606:4700::1111]:8443"] == proxy.targets


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (b"HTTP/1.1 403 canary\r\n\r\n", FailureKind.PROXY, "the egress proxy refused the connection (403)"),
        (
            b"HTTP/1.1 407 canary\r\nx: y\r\n\r\n",
            FailureKind.PROXY,
            "the egress proxy refused the credentials of HOOKSEAL_EGRESS_PROXY",
        ),
        (b"HTTP/1.0 500 canary\r\n\r\n", FailureKind.PROXY, "the egress proxy refused the connection (500)"),
        (b"HTTP/1.1 302 canary\r\nlocation: http://127.0.0.1/\r\n\r\n", FailureKind.PROXY, "the egress proxy refused "),
        (
            b"HTTP/1.1 502 canary\r\n\r\n",
            FailureKind.CONNECTION,
            "the egress proxy could not connect to the receiver (502)",
        ),
        (b"HTTP/1.1 503\r\n\r\n", FailureKind.CONNECTION, "the egress proxy could not connect to the receiver (503)"),
        (b"HTTP/1.1 504 canary\r\n\r\n", FailureKind.CONNECTION, "the egress proxy could not connect to the receiver "),
        (b"HTTP/1.1 200 OK\r\n\r\ncanary", FailureKind.PROXY, "the egress proxy sent more than the head of its answer"),
        (b"canary\r\n\r\n", FailureKind.PROXY, "the egress proxy did not answer in valid HTTP"),
        (b"HTTP/1.1 2000 canary\r\n\r\n", FailureKind.PROXY, "the egress proxy did not answer in valid HTTP"),
        (b"HTTP/1.1 200 canary", FailureKind.PROXY, "the egress proxy closed the connection"),
        (b"", FailureKind.PROXY, "the egress proxy closed the connection"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, FailureKind.PROXY, "the egress proxy answered with too much"),
    ],
)
async def test_a_refused_tunnel_blames_proxy_or_receiver(answer: bytes, kind: FailureKind, detail: str) -> None:
    """Without a tunnel, the proxy or the receiver is blamed, by status; the text of the answer is not repeated."""
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings(b"user:canary")) as transport,
    ):
        proxy.answer = answer
        found = await transport.send(request_to(listener.url))

    assert isinstance(found, Failure)
    assert kind is found.kind
    assert found.detail.startswith(detail)
    assert "canary" not in repr(found)
    assert 0 == listener.connections


async def test_an_unreachable_proxy_is_a_proxy_failure() -> None:
    """A proxy that is down, hangs or has no address is a proxy failure, within the time for connecting."""

    def look_up(host: str) -> tuple[str, ...]:
        if host == "proxy.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "no")
        return (host,)

    found = []
    async with proxying() as silent:
        silent.silent = True
        for settings, limits in (
            (EgressProxy(host="127.0.0.1", port=closed_port()), Limits()),
            (EgressProxy(host="proxy.invalid", port=1), Limits()),
            (silent.settings(), QUICK_CONNECT),
        ):
            look_ups = LookUps(limits, look_up)
            async with HttpTransport(
                AddressRules(LOOPBACK), proxy=settings, limits=limits, look_ups=look_ups
            ) as transport:
                found.append(await transport.send(request_to("http://1.1.1.1/")))

    assert [
        Failure(kind=FailureKind.PROXY, detail=f"the {detail}")
        for detail in (
            "connection to the egress proxy failed (ConnectionRefusedError)",
            "connection to the egress proxy failed (gaierror)",
            "egress proxy gave no connection within 0.3 s",
        )
    ] == found


async def test_only_the_proxy_gets_credentials() -> None:
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(AddressRules(LOOPBACK), proxy=proxy.settings(b"user:p\xc3\xab:x")) as transport,
    ):
        await transport.send(request_to(listener.url))

    assert b"\r\nProxy-Authorization: Basic dXNlcjpww6s6eA==\r\n" in proxy.heads[0]
    assert b"dXNlcjpww6s6eA==" not in listener.requests[0]
    assert b"webhook-id" not in proxy.heads[0].lower()


async def test_the_next_address_is_tried() -> None:
    """If the proxy cannot reach one address of a name, the next address is requested."""
    limits = Limits()
    both = AddressRules((AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=None),))
    look_ups = LookUps(limits, lambda host: ("127.0.0.2", "127.0.0.1") if host == "two.example" else ("127.0.0.1",))
    async with (
        listening(status(204)) as listener,
        proxying() as proxy,
        HttpTransport(both, proxy=proxy.settings(), look_ups=look_ups) as transport,
    ):
        answer = await transport.send(request_to(f"http://two.example:{listener.port}/"))

    assert Reply(status=204, snippet="") == answer
    assert [f"127.0.0.2:{listener.port}", f"127.0.0.1:{listener.port}"] == proxy.targets


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
        (certificate_for("localhost", by=authority("untrusted")), UNTRUSTED),
    ],
    ids=["expired", "not yet valid", "another name", "self-signed", "untrusted"],
)
async def test_a_bad_certificate_gets_no_request(certificate: Issued, detail: str, tmp_path: Path) -> None:
    """If the certificate is expired, for another name or not trusted, the failure says which, and nothing is sent."""
    answer, listener = await send_request(certificate.server(tmp_path))

    assert Failure(kind=FailureKind.TLS, detail=detail) == answer
    assert [] == listener.requests


async def test_a_certificate_must_be_for_the_address(tmp_path: Path) -> None:
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
    limits = QUICK_HANDSHAKE if kind == "silent" else Limits()  # on a busy machine an answer needs time
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
    async with listening(status(204), tls=server) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
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
    async with listening(status(204), tls=server) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
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
