"""Connections of a pool that are given back at the end of a block."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import ANSWER_SECONDS, FairPool, Pool, connected


@pytest.fixture
async def pool(empty_database_url: str) -> AsyncIterator[Pool]:
    """Yield a pool of one connection."""
    async with connection_pool(empty_database_url, size=1) as made:
        yield made


class LoopClock:
    """Moves the clock of the running event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._passed, real = 0.0, loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self._passed)

    def pass_seconds(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._passed += seconds


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    """Return the clock of the event loop of the test."""
    return LoopClock(monkeypatch)


async def asking(pool: Pool) -> asyncio.Task[int]:
    """Return a caller that has asked for a connection, or waits for it, and then selects 1."""
    asks = asyncio.Event()

    async def call() -> int:
        asks.set()  # what waits for this runs once the caller waits itself
        async with connected(pool) as connection:
            one: int = await connection.fetchval("SELECT 1")
            return one

    caller = asyncio.create_task(call())
    await asks.wait()
    return caller


async def test_the_caller_does_not_wait_for_the_release(pool: Pool) -> None:
    """A block that ended without an error continues before its connection is released; the next block gets it then."""
    turns = list[None]()
    asyncio.get_running_loop().call_soon(turns.append, None)
    async with connected(pool) as first:
        process = first.get_server_pid()
    assert ([], 0) == (turns, pool.get_idle_size())

    async with connected(pool) as second:
        assert process == second.get_server_pid()


async def test_statements_in_turn_use_one_connection(empty_database_url: str) -> None:
    """Blocks that follow each other use one connection, although the pool may open more."""
    async with connection_pool(empty_database_url, size=5) as pool:
        for _ in range(5):
            async with connected(pool) as connection:
                await connection.execute("SELECT")
        assert 1 == pool.get_size()


async def test_callers_have_their_turn(pool: Pool) -> None:
    """Callers that wait for a connection get it before those that ask later, even before the one that had it."""
    served = list[int]()

    async def caller(number: int) -> None:
        for _ in range(3):
            async with connected(pool) as connection:
                await connection.execute("SELECT")
            served.append(number)

    await asyncio.gather(*map(caller, range(4)))
    assert [0, 1, 2, 3] * 3 == served


async def test_a_caller_that_gives_up_costs_no_place(pool: Pool, clock: LoopClock) -> None:
    """A caller whose time is over, a cancelled one, and one that gets no connection leave their place to the next."""
    async with connected(pool):
        late = await asking(pool)
        clock.pass_seconds(ANSWER_SECONDS)
        with pytest.raises(TimeoutError):
            await late
        cancelled, next_one = await asking(pool), await asking(pool)
        cancelled.cancel()
    assert 1 == await next_one
    await pool.close()
    for _ in range(2):  # the pool has one place
        with pytest.raises(asyncpg.InterfaceError, match="closed"):
            await (await asking(pool))


async def test_a_release_goes_on_without_its_caller(pool: Pool) -> None:
    """If a caller is cancelled while its connection is released after an error, the next one gets that connection."""
    over, processes = asyncio.Event(), list[int]()

    async def block() -> None:
        async with connected(pool) as connection:
            processes.append(connection.get_server_pid())
            over.set()
            raise ZeroDivisionError

    ended = asyncio.create_task(block())
    await over.wait()
    assert 0 == pool.get_idle_size()
    ended.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended
    async with connected(pool) as connection:
        assert processes == [connection.get_server_pid()]


async def test_a_wait_leaves_the_time_to_connect(empty_database_url: str, clock: LoopClock) -> None:
    """A caller that has waited for its turn has as long as any other to open a connection."""
    opening, may_open = asyncio.Event(), asyncio.Event()

    async def connect(*given: Any, **options: Any) -> Any:
        opening.set()
        await may_open.wait()
        return await asyncpg.connect(*given, **options)

    async with FairPool(empty_database_url, min_size=0, max_size=1, connect=connect) as pool:
        may_open.set()
        async with connected(pool) as connection:
            waiting = await asking(pool)
            clock.pass_seconds(0.9 * ANSWER_SECONDS)
            opening.clear()
            may_open.clear()
            connection.terminate()
        await opening.wait()
        clock.pass_seconds(0.9 * ANSWER_SECONDS)
        may_open.set()
        assert 1 == await waiting


async def test_an_error_waits_for_the_release(pool: Pool) -> None:
    """When a caller sees the error of a block, its connection is back, and nothing is open on it."""
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with connected(pool) as connection, connection.transaction():
            await connection.execute("SELECT 1 / 0")
    assert 1 == pool.get_idle_size()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_release_keeps_no_connection(pool: Pool, turns: int, *, fails: bool) -> None:
    """A program that cancels all of its tasks as a block ends, or just after, can use its pool again, and close it."""
    over = asyncio.Event()

    async def block() -> None:
        async with connected(pool) as connection:
            try:
                await connection.execute("SELECT 1 / 0" if fails else "SELECT")
            finally:
                over.set()

    ended = asyncio.ensure_future(block())
    await over.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    try:
        async with asyncio.timeout(60):
            async with connected(pool) as connection:
                await connection.execute("SELECT")
            await pool.close()
    finally:
        pool.terminate()  # else the fixture would wait for a connection that was kept
    await asyncio.wait([ended])


async def test_a_lost_connection_is_released_quietly(pool: Pool) -> None:
    """A connection that is lost, or whose pool is gone, causes no message, and the pool opens another one."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    async with connected(pool) as connection:
        process = connection.get_server_pid()
        connection.terminate()
    async with connected(pool) as connection:
        assert process != connection.get_server_pid()
    pool.terminate()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=60)
    gc.collect()

    assert [] == complaints
