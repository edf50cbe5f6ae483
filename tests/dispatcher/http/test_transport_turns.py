"""Answers that are costly to parse: how much of them is parsed, and how long others wait meanwhile."""

import asyncio
import gc
import tracemalloc
from collections import Counter

import pytest
from aiohttp.client_proto import ResponseHandler

from hookseal.dispatcher.core.model import Failure, FailureKind, Reply
from hookseal.dispatcher.core.url import AddressRules
from hookseal.dispatcher.http.connection import (
    ANSWER_BYTES,
    CHUNK_BYTES,
    INTERIM_REPLIES,
    SLICE_BYTES,
    TURN_BYTES,
    HttpConnection,
    IdleConnections,
    Turns,
)
from hookseal.dispatcher.http.observation import PROGRESS, Limits, Progress
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.dispatcher.http.test_transport_receivers import wait_until_closed
from tests.doubles.receivers import Script, answers, listening

PATIENCE = 20.0  # the time-out of a request, enough on a busy machine
QUICK = Limits(body_seconds=PATIENCE)
INTERIM = b"HTTP/1.1 102 P\r\n\r\n"
OK = b"HTTP/1.1 204 OK\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = b"1\r\nx\r\n"
MANY = 30
MEMORY_BYTES = 16_777_216  # for 30, including their receivers, each with a buffer of 64 KiB


def endless(head: bytes, part: bytes) -> Script:
    """Return a script that sends the head, and then the part repeatedly, as fast as it is read."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part * (65_536 // len(part)))
            await writer.drain()

    return script


HOSTILE = {"interim replies": endless(b"", INTERIM), "chunks of one byte": endless(CHUNKED, CHUNK)}


class Watch:
    """Counts the parsed bytes in each turn of the loop and for each connection."""

    def __init__(self) -> None:
        self.turn = 0
        self.in_turn: Counter[int] = Counter()
        self.of: Counter[object] = Counter()

    @property
    def most(self) -> int:
        """The largest number of bytes that was parsed in one turn of the loop."""
        return max(self.in_turn.values())

    def count(self) -> None:
        """Count the turns of the loop, from now on."""
        self.turn += 1
        asyncio.get_running_loop().call_soon(self.count)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Count the bytes that reach aiohttp's parser."""
    watch = Watch()
    parse = ResponseHandler.data_received

    def counted(connection: ResponseHandler, data: bytes) -> None:
        watch.in_turn[watch.turn] += len(data)
        watch.of[connection] += len(data)
        parse(connection, data)

    monkeypatch.setattr(ResponseHandler, "data_received", counted)
    return watch


async def all_of(transport: HttpTransport, url: str, count: int) -> list[object]:
    """Send that many requests at the same time and return their answers."""
    requests = [request_to(url, timeout_seconds=PATIENCE) for _ in range(count)]
    return list(await asyncio.gather(*map(transport.send, requests)))


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.parametrize("name", HOSTILE)
async def test_no_turn_parses_more_than_a_slice(name: str, watch: Watch) -> None:
    """However many receivers send costly answers, no turn of the loop parses more than a few KiB.

    Connections have at most two turns between two counts of the loop.
    """
    asyncio.get_running_loop().call_soon(watch.count)
    async with listening(HOSTILE[name]) as listener, HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport:
        found = await all_of(transport, listener.url, MANY)

    assert 2 * TURN_BYTES >= watch.most
    assert MANY == len(found)


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.parametrize(
    ("name", "most"),
    [("interim replies", SLICE_BYTES), ("chunks of one byte", CHUNK_BYTES * len(CHUNK) // 5 + 2 * SLICE_BYTES)],
)
async def test_costly_answers_are_parsed_to_the_limit(name: str, most: int, watch: Watch) -> None:
    """Only a few KiB of each costly answer are parsed before its connection is closed, for a hundred deliveries."""
    script = HOSTILE[name]
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport:
        for _ in range(2):
            await all_of(transport, listener.url, 50)

    assert 100 == len(watch.of)
    assert most >= max(watch.of.values())


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.parametrize("name", HOSTILE)
async def test_costly_answers_use_little_memory(name: str) -> None:
    script = HOSTILE[name]
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport:
        gc.collect()
        tracemalloc.start()
        try:
            await all_of(transport, listener.url, MANY)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert MEMORY_BYTES > peak


@pytest.mark.req("DEL-11", part="bounds")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_healthy_answer_waits_one_slice_of_each(name: str, watch: Watch) -> None:
    parsed_before: list[int] = []

    async def noted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parsed_before.append(sum(watch.of.values()))
        writer.write(OK)

    async with (
        listening(HOSTILE[name]) as hostile,
        listening(noted) as healthy,
        HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport,
    ):
        floods = asyncio.create_task(all_of(transport, hostile.url, MANY))
        while not watch.of:  # noqa: ASYNC110 -- no event, and the next turn matters
            await asyncio.sleep(0)
        answer = await transport.send(request_to(healthy.url, timeout_seconds=PATIENCE))
        waited = sum(watch.of.values()) - parsed_before[0]
        await floods

    assert Reply(status=204, snippet="") == answer
    # Three turns: one before its answer is written, its own, and the one that wakes this task.
    assert MANY * SLICE_BYTES + 3 * TURN_BYTES >= waited


@pytest.mark.req("DEL-11", part="bounds")
async def test_sixteen_interim_replies_are_accepted() -> None:
    for count, expected in (
        (INTERIM_REPLIES, Reply(status=204, snippet="")),
        (
            INTERIM_REPLIES + 1,
            Failure(
                kind=FailureKind.CONNECTION,
                detail="the receiver sent more than 16 interim replies: its connection was closed",
            ),
        ),
    ):
        script = answers(INTERIM * count + OK)
        async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
            answer = await transport.send(request_to(listener.url))
            await wait_until_closed(listener.port, kept=len(transport._options.idle))

        assert expected == answer


@pytest.mark.req("DEL-11", part="bounds")
async def test_too_many_headers_end_the_attempt() -> None:
    """Headers that are each within their limit, but together above that of an answer, end the attempt."""
    header = b"x: " + b"y" * 8_000 + b"\r\n"
    script = answers(b"HTTP/1.1 200 OK\r\n" + header * (ANSWER_BYTES // len(header) + 1) + b"\r\n")
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        answer = await transport.send(request_to(listener.url, timeout_seconds=PATIENCE))

    detail = "the receiver sent more than 131072 bytes: its connection was closed"
    assert Failure(kind=FailureKind.CONNECTION, detail=detail) == answer


@pytest.mark.req("DEL-11", part="bounds")
async def test_an_answer_in_many_chunks_is_read() -> None:
    script = answers(CHUNKED + b"5\r\nhello\r\n" * 1_000 + b"0\r\n\r\n")
    async with listening(script) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        found = [await transport.send(request_to(listener.url, timeout_seconds=PATIENCE)) for _ in range(2)]

    assert [Reply(status=200, snippet=("hello" * 410)[:2_048])] * 2 == found
    assert 1 == listener.connections


@pytest.mark.req("DEL-11", part="reuse")
@pytest.mark.parametrize("more", [OK, OK * 5_000, INTERIM * 40])
async def test_bytes_after_an_answer_close_the_connection(more: bytes, watch: Watch) -> None:
    """If a receiver sends more after its answer, its connection is not used again, so no other request gets it."""
    async with listening(answers(OK + more)) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        found = [await transport.send(request_to(listener.url, timeout_seconds=PATIENCE)) for _ in range(2)]

    assert [Reply(status=204, snippet="")] * 2 == found
    assert 2 == listener.connections
    assert CHUNK_BYTES + 2 * SLICE_BYTES >= max(watch.of.values())


@pytest.mark.parametrize("length", [b"", b"content-length: 60000\r\n"])
async def test_an_answer_before_the_end_is_read_whole(length: bytes, watch: Watch) -> None:
    head = b"HTTP/1.1 500 no\r\nconnection: close\r\n" + length + b"\r\n"

    async def closes(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"x" * 60_000)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with listening(closes) as listener, HttpTransport(AddressRules(LOOPBACK), limits=QUICK) as transport:
        found = await all_of(transport, listener.url, MANY)
        await wait_until_closed(listener.port)

    assert [Reply(status=500, snippet="x" * 2_048)] * MANY == found
    assert {len(head) + 60_000} == set(watch.of.values())


async def test_earlier_bytes_are_parsed_first() -> None:
    """Bytes that arrived before the request are parsed in their order of arrival, however many there are."""
    body = b"x" * 30_000

    loop = asyncio.get_running_loop()
    kept = IdleConnections(most=1, most_each=1, most_bytes=1)
    PROGRESS.set(Progress(tenant=TenantId("acme"), begin_by=0, clock=SystemClock()))
    connection = HttpConnection(loop, ("127.0.0.1", 1), kept, Turns())
    head = b"HTTP/1.1 500 no\r\ncontent-length: %d\r\n\r\n" % len(body)
    connection.data_received(head)
    connection.data_received(body)
    connection.set_response_params(auto_decompress=False)
    message, content = await connection.read()

    while not content.is_eof():  # noqa: ASYNC110 -- no event, and the next turn matters
        await asyncio.sleep(0)

    assert 500 == message.code
    assert body == await content.read()


async def test_a_cancelled_request_drops_its_turn() -> None:
    """If a request is cancelled while its answer waits to be parsed, its connection is closed and its turn dropped."""

    async def half(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n" + b"x" * 59_999)

    async with listening(half) as listener, HttpTransport(AddressRules(LOOPBACK)) as transport:
        tasks = [asyncio.create_task(transport.send(request_to(listener.url))) for _ in range(MANY)]
        turns = transport._options.turns
        while not turns._waiting:  # noqa: ASYNC110 -- no event, and the next turn matters
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await wait_until_closed(listener.port)

        while turns._is_called:  # noqa: ASYNC110 -- no event here either
            await asyncio.sleep(0)
        assert not turns._waiting


async def test_an_error_in_one_connection_stops_no_other() -> None:
    class Bytes:
        def __init__(self, count: int, *, faulty: bool = False) -> None:
            self.count = count
            self.faulty = faulty
            self.taken: list[int] = []

        def take_turn(self, most: int) -> int:
            if self.faulty:
                raise ValueError
            taken = min(most, self.count)
            self.count -= taken
            self.taken.append(taken)
            return taken

        def has_more(self) -> bool:
            return self.count > 0

    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
    turns = Turns()
    good = [Bytes(3 * SLICE_BYTES), Bytes(SLICE_BYTES + 1)]
    for each in (good[0], Bytes(1, faulty=True), good[1]):
        turns.wait(each)
    while turns._is_called:  # noqa: ASYNC110 -- no event, and the next turn matters
        await asyncio.sleep(0)

    assert [[SLICE_BYTES] * 3, [SLICE_BYTES, 1]] == [each.taken for each in good]
    assert [ValueError] == [type(error) for error in seen]
