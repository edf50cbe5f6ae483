"""Rows are processed in parallel: a failing row delays no other, and the first outage ends all of them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from hookseal.errors import Conflict, Defect, InDoubt, Unavailable
from hookseal.operations.bulk import LANES, Tally, side_by_side
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import Unlocked
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("SEC-12")


async def numbers(count: int, taken: list[int]) -> AsyncGenerator[int, None]:
    """Yield the numbers from 0 on, and append each requested one to `taken`."""
    for number in range(count):
        taken.append(number)
        yield number


async def ran(installation: Installation, items: AsyncGenerator[int, None], work: Any) -> None:
    """Process all of them."""
    pool = installation.pool
    async with pool.acquire() as connection:
        await side_by_side(installation.operator(connection), pool.acquire, items, work)


async def test_each_item_is_processed_once(installation: Installation) -> None:
    """Every item is processed once, by as many operators as lanes, each on its own connection."""
    done: list[int] = []
    sessions: set[int] = set()
    together = asyncio.Barrier(LANES)

    async def work(operator: Operator, number: int) -> None:
        sessions.add(await operator.connection.fetchval("SELECT pg_backend_pid()"))
        done.append(number)
        await together.wait()

    await ran(installation, numbers(LANES * 5, []), work)
    assert sorted(done) == list(range(LANES * 5))
    assert LANES == len(sessions)


async def test_items_are_requested_as_needed(installation: Installation) -> None:
    """Only a few items are requested before the first one is finished."""
    taken: list[int] = []
    begins, goes_on = asyncio.Event(), asyncio.Event()

    async def work(_operator: Operator, _number: int) -> None:
        begins.set()
        await goes_on.wait()

    running = asyncio.create_task(ran(installation, numbers(1_000, taken), work))
    await begins.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(taken) <= 2 * LANES + 1
    goes_on.set()
    await running
    assert 1_000 == len(taken)


async def test_the_first_error_ends_the_run(installation: Installation) -> None:
    """The error itself is raised, and no further item is requested."""
    taken: list[int] = []

    async def work(_operator: Operator, number: int) -> None:
        if number == 3:
            raise Conflict("three")

    with pytest.raises(Conflict, match="three") as caught:
        await ran(installation, numbers(1_000, taken), work)
    assert caught.value.__cause__ is None
    assert len(taken) < 100


async def test_an_operator_that_follows_compares_its_secrets_for_each_item(installation: Installation) -> None:
    """So a long run follows changes of keys, as changes that are made one by one do."""
    pool = installation.pool
    compared: list[str] = []

    async def follow(basis: str) -> Unlocked:
        compared.append(basis)
        return installation.unlocked

    async def work(operator: Operator, _number: int) -> None:
        async with operator.changing():
            assert installation.unlocked is operator.unlocked

    async with pool.acquire() as connection:
        operator = Operator(connection=connection, who="jane", follow=follow)
        await operator.compare()
        await side_by_side(operator, pool.acquire, numbers(7, []), work)
    assert 1 + 7 == len(compared)


async def outcome(error: Exception | None = None) -> str:
    """Return "done", or raise the error."""
    if error is not None:
        raise error
    return "done"


async def test_a_refusal_fails_its_row(installation: Installation) -> None:
    """A refusal fails its row; up to ten unavailable rows in succession fail, the eleventh is an outage."""
    lines: list[str] = []
    tally = Tally("row", lines.append, total=99)
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
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
    assert "line 7: other" == lines[10]
    assert "23 of 99 rows: 1 done, 22 failed" in lines


@pytest.mark.parametrize(
    ("total", "reported"), [(None, "1 row: 1 done"), (1, "1 of 1 row: 1 done"), (2, "1 of 2 rows: 1 done")]
)
async def test_one_row_is_counted_as_one(installation: Installation, total: int | None, reported: str) -> None:
    lines: list[str] = []
    tally = Tally("row", lines.append, total=total)
    async with installation.pool.acquire() as connection:
        await tally.attempt(installation.operator(connection), {"line": 1}, outcome())
    tally.end()
    assert [reported] == lines


@pytest.mark.parametrize("error", [InDoubt("?"), Defect("!"), ValueError("?")])
async def test_an_unexpected_error_ends_the_run(installation: Installation, error: Exception) -> None:
    """A commit in doubt, an internal error and an unexpected error end the run and are no failed row."""
    tally = Tally("row", print)
    async with installation.pool.acquire() as connection:
        with pytest.raises(type(error)):
            await tally.attempt(installation.operator(connection), {"line": 1}, outcome(error))
    assert 0 == tally.failures


async def test_a_closed_connection_is_an_outage(installation: Installation, database_url: str) -> None:
    """On a closed connection the first unavailable row is an outage."""
    tally = Tally("row", print)
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    with pytest.raises(Unavailable, match="gone"):
        await tally.attempt(installation.operator(connection), {"line": 1}, outcome(Unavailable("gone")))
    assert 0 == tally.failures
