"""Rows are worked on side by side: none is held up by one that fails, and the first outage ends all."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from hookseal.cli.side_by_side import LANES, Tally, side_by_side
from hookseal.config.load import load
from hookseal.config.settings import Part
from hookseal.ground.errors import Conflict, Defect, InDoubt, Unavailable
from hookseal.operations.operator import Operator
from tests.cli.begun import Begun

pytestmark = pytest.mark.req("SEC-12")


async def numbers(count: int, taken: list[int]) -> AsyncGenerator[int, None]:
    """Yield the numbers from 0 on, and write down how many were asked for."""
    for number in range(count):
        taken.append(number)
        yield number


async def ran(begun: Begun, items: AsyncGenerator[int, None], work: Any) -> None:
    """Do the work for all of them."""
    settings = load(
        {"HOOKSEAL_ENV": "test", "DATABASE_URL": begun.settings["DATABASE_URL"]}, needs=frozenset({Part.DATABASE})
    )
    async with begun.stored.pool.acquire() as connection:
        await side_by_side(settings, begun.stored.operator(connection), items, work)


async def test_each_once_on_connections_of_their_own(begun: Begun) -> None:
    """Every item is worked on once, by as many operators as there are lanes, of which none shares a connection."""
    done: list[int] = []
    sessions: set[int] = set()
    together = asyncio.Barrier(LANES)

    async def work(operator: Operator, number: int) -> None:
        sessions.add(await operator.connection.fetchval("SELECT pg_backend_pid()"))
        done.append(number)
        await together.wait()

    await ran(begun, numbers(LANES * 5, []), work)
    assert sorted(done) == list(range(LANES * 5))
    assert LANES == len(sessions)


async def test_no_more_is_held_than_is_worked_on(begun: Begun) -> None:
    """Of many items only a few are asked for before the first is done."""
    taken: list[int] = []
    begins, goes_on = asyncio.Event(), asyncio.Event()

    async def work(_operator: Operator, _number: int) -> None:
        begins.set()
        await goes_on.wait()

    running = asyncio.create_task(ran(begun, numbers(1_000, taken), work))
    await begins.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(taken) <= 2 * LANES + 1
    goes_on.set()
    await running
    assert 1_000 == len(taken)


async def test_the_first_error_ends_all(begun: Begun) -> None:
    """What is raised is that error by itself, and nothing is asked for any more."""
    taken: list[int] = []

    async def work(_operator: Operator, number: int) -> None:
        if number == 3:
            raise Conflict("three")

    with pytest.raises(Conflict, match="three") as told:
        await ran(begun, numbers(1_000, taken), work)
    assert told.value.__cause__ is None
    assert len(taken) < 100


async def outcome(error: Exception | None = None) -> str:
    """Return that it was done, or raise."""
    if error is not None:
        raise error
    return "done"


async def test_what_counts_as_a_failure(begun: Begun, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is a failure of its row; ten rows in a row that cannot be done now are, and eleven are an outage."""
    tally = Tally("rows", total=99)
    async with begun.stored.pool.acquire() as connection:
        operator = begun.stored.operator(connection)
        assert "done" == await tally.tried(operator, {"line": 1}, outcome())
        for _ in range(2):
            for line in range(10):
                assert await tally.tried(operator, {"line": line}, outcome(Unavailable("busy"))) is None
            assert await tally.tried(operator, {"line": 7}, outcome(Conflict("other", field="url"))) is None
        tally.end()
        for _ in range(10):
            await tally.tried(operator, {"line": 1}, outcome(Unavailable("busy")))
        with pytest.raises(Unavailable):
            await tally.tried(operator, {"line": 1}, outcome(Unavailable("busy")))
    assert ({"done": 1}, 32) == (dict(tally.counts), tally.failures)
    assert {"line": 7, "code": "conflict", "message": "other", "field": "url"} == tally.failed[10]
    assert "hookseal: 23 of 99 rows: 1 done, 22 failed\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [InDoubt("?"), Defect("!"), ValueError("?")])
async def test_what_ends_all(begun: Begun, error: Exception) -> None:
    """What may have been done, what is a fault of ours, and what nobody expected is no failure of a row."""
    tally = Tally("rows")
    async with begun.stored.pool.acquire() as connection:
        with pytest.raises(type(error)):
            await tally.tried(begun.stored.operator(connection), {"line": 1}, outcome(error))
    assert 0 == tally.failures


async def test_a_connection_that_is_gone(begun: Begun) -> None:
    """On a connection that ended, the first row that cannot be done is an outage."""
    tally = Tally("rows")
    connection = await asyncpg.connect(begun.settings["DATABASE_URL"])
    connection.terminate()
    with pytest.raises(Unavailable, match="gone"):
        await tally.tried(begun.stored.operator(connection), {"line": 1}, outcome(Unavailable("gone")))
    assert 0 == tally.failures
