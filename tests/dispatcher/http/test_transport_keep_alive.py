"""Kept connections: how many, for how long, and that no request is sent twice when one ends."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from hookseal.dispatcher.core.model import Failure, FailureKind, Reply
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.request_progress import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.dispatcher.http.test_transport_receivers import connections_to, wait_until_closed
from tests.doubles.receivers import Script, listening, resets_after, status
from tests.worker.waiting import eventually

OK = b"HTTP/1.1 204 OK\r\n\r\n"


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
    """A connection that the receiver has closed is not used, even before the event loop has noticed."""
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
    """If a receiver closes each connection after its answer, each request gets a new connection."""
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

    async with (
        listening(answer_all) as listener,
        HttpTransport(AddressRules(LOOPBACK), limits=limits) as transport,
    ):
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
