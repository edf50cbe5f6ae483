"""Rows are processed in parallel: a failing row delays no other, and the first outage ends all of them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from hookseal.cli.shared.parallel import LANES, Tally, side_by_side
from hookseal.config.load import load
from hookseal.config.settings import Part
from hookseal.errors import Conflict, Defect, InDoubt, Unavailable
from hookseal.operations.operator import Operator
from tests.cli.installation import Begun

pytestmark = pytest.mark.req("SEC-12")


async def numbers(count: int, taken: list[int]) -> AsyncGenerator[int, None]:
    """Yield the numbers from 0 on, and append each requested one to `taken`."""
    for number in range(count):
        taken.append(number)
        yield number


async def ran(begun: Begun, items: AsyncGenerator[int, None], work: Any) -> None:
    """Process all of them."""
    settings = load(
        {"HOOKSEAL_ENV": "test", "DATABASE_URL": begun.settings["DATABASE_URL"]}, needs=frozenset({Part.DATABASE})
    )
    async with begun.stored.pool.acquire() as connection:
        await side_by_side(settings, begun.stored.operator(connection), items, work)


async def test_each_item_is_processed_once(begun: Begun) -> None:
    """Every item is processed once, by as many operators as lanes, each on its own connection."""
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


async def test_items_are_requested_as_needed(begun: Begun) -> None:
    """Only a few items are requested before the first one is finished."""
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


async def test_the_first_error_ends_the_run(begun: Begun) -> None:
    """The error itself is raised, and no further item is requested."""
    taken: list[int] = []

    async def work(_operator: Operator, number: int) -> None:
        if number == 3:
            raise Conflict("three")

    with pytest.raises(Conflict, match="three") as caught:
        await ran(begun, numbers(1_000, taken), work)
    assert caught.value.__cause__ is None
    assert len(taken) < 100


async def outcome(error: Exception | None = None) -> str:
    """Return "done", or raise the error."""
    if error is not None:
        raise error
    return "done"


async def test_a_refusal_fails_its_row(begun: Begun, capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal fails its row; up to ten unavailable rows in succession fail, the eleventh is an outage."""
    tally = Tally("rows", total=99)
    async with begun.stored.pool.acquire() as connection:
        operator = begun.stored.operator(connection)
        assert "done" == await tally.attempt(operator, {"line": 1}, outcome())
        for _ in range(2):
            for line in range(10):
                assert await tally.attempt(operator, {"line": line}, outcome(Unavailable("busy"))) is None
            assert await tally.attempt(operator, {"line": 7}, outcome(Conflict("other", field="url"))) is None
        tally.end()
        for _ in range(10):
            await tally.attempt(operator, {"line": 1}, outcome(Unavailable("busy")))
        with pytest.raises(Unavailable):
            await tally.attempt(operator, {"line": 1}, outcome(Unavailable("busy")))
    assert ({"done": 1}, 32) == (dict(tally.counts), tally.failures)
    assert {"line": 7, "code": "conflict", "message": "other", "field": "url"} == tally.failed[10]
    assert "hookseal: 23 of 99 rows: 1 done, 22 failed\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [InDoubt("?"), Defect("!"), ValueError("?")])
async def test_an_unexpected_error_ends_the_run(begun: Begun, error: Exception) -> None:
    """A commit in doubt, an internal error and an unexpected error end the run and are no failed row."""
    tally = Tally("rows")
    async with begun.stored.pool.acquire() as connection:
        with pytest.raises(type(error)):
            await tally.attempt(begun.stored.operator(connection), {"line": 1}, outcome(error))
    assert 0 == tally.failures


async def test_a_closed_connection_is_an_outage(begun: Begun) -> None:
    """On a closed connection the first unavailable row is an outage."""
    tally = Tally("rows")
    connection = await asyncpg.connect(begun.settings["DATABASE_URL"])
    connection.terminate()
    with pytest.raises(Unavailable, match="gone"):
        await tally.attempt(begun.stored.operator(connection), {"line": 1}, outcome(Unavailable("gone")))
    assert 0 == tally.failures
