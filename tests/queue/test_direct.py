"""Commands over connections of their own, on a real Valkey: each call gets its own answers, and leaves no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as ConnectionEnded
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from hookseal.embedded.server import Server
from hookseal.queue.bell import bell
from hookseal.queue.direct import Direct
from hookseal.queue.rings import pool
from tests.doubles.claims import RING
from tests.worker.waiting import eventually

UNASKED = b"+UNASKED\r\n"


@pytest.fixture
async def observer(own_valkey: Server) -> AsyncIterator[Redis]:
    """Give another client of the same Valkey."""
    async with Redis.from_url(own_valkey.url) as client:
        yield client


@pytest.fixture
async def direct(own_valkey: Server) -> AsyncIterator[Direct]:
    """Give what sends commands."""
    found = Direct(pool(own_valkey.url, None))
    yield found
    await found.close()


async def sent(direct: Direct, *commands: list[Any]) -> list[Any]:
    """Send these; the answer to the last one is no refusal."""
    return await direct.send(*commands, is_answer=lambda answer: not isinstance(answer, Exception))


async def others(observer: Redis, *, only_blocked: bool = False) -> list[int]:
    """Return the ids of the connections that are not the observer's own."""
    own = await observer.client_id()
    clients = [each for each in await observer.client_list() if int(each["id"]) != own]
    return [int(each["id"]) for each in clients if "b" in each["flags"] or not only_blocked]


async def blocked(direct: Direct, observer: Redis) -> "asyncio.Task[list[Any]]":
    """Return a call that waits for its answer."""
    waiting = asyncio.create_task(sent(direct, ["BLPOP", "nothing", 0]))
    await eventually(lambda: others(observer, only_blocked=True))
    return waiting


async def none(observer: Redis) -> bool:
    """Return whether no other connection is open."""
    return not await others(observer)


@pytest.mark.req("DEL-02")
async def test_each_command_has_its_answer(direct: Direct, observer: Redis) -> None:
    """A refusal is an answer, too, and the same connection serves the next call."""
    [first, echoed, refused] = await sent(direct, ["CLIENT", "ID"], ["ECHO", "a b"], ["NONSENSE"])
    [second] = await sent(direct, ["CLIENT", "ID"])

    assert isinstance(refused, ResponseError)
    assert (first, b"a b") == (second, echoed)
    assert [first] == await others(observer)


@pytest.mark.req("DEL-02")
async def test_calls_at_once_get_their_own_answers(direct: Direct) -> None:
    """As many tasks as like may call at once."""
    answers = await asyncio.gather(*(sent(direct, ["ECHO", str(number)]) for number in range(20)))

    assert [[str(number).encode()] for number in range(20)] == answers


@pytest.mark.req("DEL-02")
async def test_a_cancelled_call_leaves_no_answer_behind(direct: Direct, observer: Redis) -> None:
    """Its connection is closed, since its answer may still come: the next call must not take it for its own."""
    waiting = await blocked(direct, observer)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert [b"mine"] == await sent(direct, ["ECHO", "mine"])
    assert 1 == len(await others(observer))


@pytest.mark.req("DEL-02", "DUR-04")
async def test_a_connection_that_redis_ended_is_replaced(direct: Direct, observer: Redis) -> None:
    """A firewall or a restart may end connections between two calls: the next call is sent over a new one."""
    await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(3)))
    ended = await others(observer)
    for each in ended:
        await observer.client_kill_filter(_id=str(each))

    [anew] = await sent(direct, ["CLIENT", "ID"])

    assert anew not in ended
    assert [anew] == await others(observer)


@pytest.mark.req("DEL-02", "DUR-04")
async def test_a_ring_gets_through_although_redis_ended_every_connection(own_valkey: Server, observer: Redis) -> None:
    """That includes one after Redis has lost its scripts."""
    ringing = bell(own_valkey.url)
    await ringing.ring([RING])
    await observer.script_flush()
    await ringing.ring([RING])
    for each in await others(observer):
        await observer.client_kill_filter(_id=str(each))

    assert 1 == await ringing.ring([RING])
    assert 1 == await ringing.depth()
    await ringing.close()


@pytest.mark.req("DEL-02")
@pytest.mark.parametrize("unasked", [UNASKED, b"-ERR unasked\r\n", b":7\r\n"])
async def test_an_answer_that_was_not_asked_for_ends_the_connection(own_valkey: Server, unasked: bytes) -> None:
    """Else each later answer would be that of the command before: a worker would lose the rings that it takes."""
    writers: list[asyncio.StreamWriter] = []
    ended: list[asyncio.Event] = []

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        ended.append(asyncio.Event())
        end = ended[-1]
        host, port = own_valkey.url.rpartition("@")[2].partition("/")[0].split(":")
        upstream, down = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pump(reader, down), _pump(upstream, writer), return_exceptions=True)
        end.set()

    async with await asyncio.start_server(between, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        direct = Direct(pool(own_valkey.url.rpartition(":")[0] + f":{port}/0", None))

        async def echo(text: str) -> list[Any]:
            return await direct.send(
                ["ECHO", text], is_answer=lambda answer: isinstance(answer, bytes) and len(answer) == 1
            )

        await echo("a")
        writers[0].write(unasked)
        await writers[0].drain()
        with pytest.raises((InvalidResponse, ResponseError)):
            raise next(each for each in await echo("b") if isinstance(each, Exception))
        assert [b"c"] == await echo("c")
        await direct.close()
        for each in ended:
            await each.wait()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dropped: asyncio.Event | None = None
) -> None:
    try:
        while data := await reader.read(4096):
            if dropped is None or not dropped.is_set():
                writer.write(data)
    finally:
        writer.close()


@pytest.mark.req("DEL-02", "DUR-04")
async def test_after_a_call_without_an_answer_the_next_one_has_a_new_connection(own_valkey: Server) -> None:
    """A firewall may drop all connections without a word: that costs one call, and not one for each connection."""
    host, port = own_valkey.url.rpartition("@")[2].partition("/")[0].split(":")
    dropped: list[asyncio.Event] = []

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        drop = asyncio.Event()
        dropped.append(drop)
        upstream, down = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pump(reader, down, drop), _pump(upstream, writer, drop), return_exceptions=True)

    async with await asyncio.start_server(between, "127.0.0.1", 0) as server:
        port_between = server.sockets[0].getsockname()[1]
        direct = Direct(pool(own_valkey.url.rpartition(":")[0] + f":{port_between}/0", None))
        await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(4)))
        for each in dropped:
            each.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sent(direct, ["PING"])
        async with asyncio.timeout(5):
            assert [b"mine"] == await sent(direct, ["ECHO", "mine"])
        await direct.close()


@pytest.mark.req("DEL-02")
async def test_a_call_after_the_close_connects_no_more(direct: Direct, observer: Redis) -> None:
    """The client would connect a closed connection again."""
    await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(3)))

    await direct.close()

    for _ in range(4):
        with pytest.raises(ConnectionEnded):
            await sent(direct, ["PING"])
    await eventually(lambda: none(observer))


@pytest.mark.req("DEL-02")
async def test_a_close_at_any_moment_of_a_call_is_an_error_of_the_client(own_valkey: Server) -> None:
    """With a time limit the client sends in a task of its own, a turn later, when its connection may be closed."""
    for turns in range(20):
        direct = Direct(pool(own_valkey.url, 5.0))
        await sent(direct, ["PING"])
        sending = asyncio.create_task(sent(direct, ["PING"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        await direct.close()
        with suppress(RedisError):
            assert [b"PONG"] == await sending, turns


@pytest.mark.req("DEL-02")
async def test_close_closes_every_connection(direct: Direct, observer: Redis) -> None:
    """A call that waits for its answer, or comes later, ends with an error of the client."""
    await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(3)))
    waiting = await blocked(direct, observer)

    await direct.close()

    with pytest.raises(ConnectionEnded):
        await waiting
    with pytest.raises(ConnectionEnded):
        await sent(direct, ["PING"])
    await eventually(lambda: none(observer))


@pytest.mark.req("DEL-02")
async def test_a_call_that_connects_while_all_is_closed_leaves_no_connection(direct: Direct, observer: Redis) -> None:
    """Its connection is closed once it has its answer."""
    connecting = asyncio.create_task(sent(direct, ["PING"]))
    await asyncio.sleep(0)
    await direct.close()

    assert [b"PONG"] == await connecting
    await eventually(lambda: none(observer))
