"""Commands over connections of their own, on a real Valkey: each call gets its own answers, and leaves no other."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as ConnectionEnded
from redis.exceptions import ResponseError

from hookseal.queue.bell import bell
from hookseal.queue.direct import Direct
from hookseal.queue.rings import pool
from tests.doubles.claims import RING
from tests.worker.waiting import eventually


@pytest.fixture
async def observer(redis_url: str) -> AsyncIterator[Redis]:
    """Give another client of the same Valkey."""
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def direct(redis_url: str) -> AsyncIterator[Direct]:
    """Give what sends commands."""
    found = Direct(pool(redis_url, None))
    yield found
    await found.close()


async def others(observer: Redis) -> list[str]:
    """Return the ids of the connections that are not the observer's own."""
    own = await observer.client_id()
    return [each["id"] for each in await observer.client_list() if int(each["id"]) != own]


@pytest.mark.req("DEL-02")
async def test_each_command_has_its_answer(direct: Direct, observer: Redis) -> None:
    """The same connection serves the next call."""
    [first, echoed] = await direct.send(["CLIENT", "ID"], ["ECHO", "a b"])
    [second] = await direct.send(["CLIENT", "ID"])

    assert (first, b"a b") == (second, echoed)
    assert [str(first)] == await others(observer)


@pytest.mark.req("DEL-02")
async def test_a_refusal_is_an_answer_and_ends_the_connection(direct: Direct) -> None:
    """What Redis refused may not have been the command: later answers would then be those of earlier commands."""
    [first, refused, echoed] = await direct.send(["CLIENT", "ID"], ["NONSENSE"], ["ECHO", "a b"])
    [second] = await direct.send(["CLIENT", "ID"])

    assert isinstance(refused, ResponseError)
    assert b"a b" == echoed
    assert first != second


@pytest.mark.req("DEL-02")
async def test_calls_at_once_get_their_own_answers(direct: Direct) -> None:
    """As many tasks as like may call at once."""
    answers = await asyncio.gather(*(direct.send(["ECHO", str(number)]) for number in range(20)))

    assert [[str(number).encode()] for number in range(20)] == answers


@pytest.mark.req("DEL-02")
async def test_a_cancelled_call_leaves_no_answer_behind(direct: Direct, observer: Redis) -> None:
    """Its connection is closed, since its answer may still come: the next call must not take it for its own."""
    waiting = asyncio.ensure_future(direct.send(["BLPOP", "nothing", 0]))
    await eventually(lambda: others(observer))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert [b"mine"] == await direct.send(["ECHO", "mine"])


@pytest.mark.req("DEL-02")
async def test_a_connection_that_redis_ended_is_replaced(direct: Direct, observer: Redis) -> None:
    """The call that finds it ended raises an error of the client; the next one connects anew."""
    [ended] = await direct.send(["CLIENT", "ID"])
    await observer.client_kill_filter(_id=ended)

    with pytest.raises(ConnectionEnded):
        await direct.send(["PING"])
    [anew] = await direct.send(["CLIENT", "ID"])

    assert anew != ended


@pytest.mark.req("DEL-02")
async def test_close_closes_every_connection(direct: Direct, observer: Redis) -> None:
    """That includes one that waits for an answer: its call ends with an error of the client."""
    await asyncio.gather(*(direct.send(["PING"]) for _ in range(3)))
    waiting = asyncio.ensure_future(direct.send(["BLPOP", "nothing", 0]))
    await asyncio.sleep(0)
    assert await others(observer)

    await direct.close()

    with pytest.raises(ConnectionEnded):
        await waiting
    await eventually(lambda: _none(observer))


async def _none(observer: Redis) -> bool:
    return not await others(observer)


@pytest.mark.req("DEL-02", "DUR-04")
async def test_a_ring_gets_through_although_redis_ended_its_connection(redis_url: str, observer: Redis) -> None:
    """A firewall or a restart may end connections between two rings. The ring is then sent over a new one."""
    ringing = bell(redis_url)
    await ringing.ring([RING])
    for each in await others(observer):
        await observer.client_kill_filter(_id=each)

    assert 1 == await ringing.ring([RING])
    assert 1 == await ringing.depth()
    await ringing.close()
