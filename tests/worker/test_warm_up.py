"""Which connections are open, and which statements are planned on each, before deliveries need them."""

import asyncio

import asyncpg
import pytest
import structlog

from hookseal.postgres.connect import connection_pool
from hookseal.worker.warm_up import AGAIN_SECONDS, FIRST_SECONDS, OF_THE_POOL, WarmUp, warm_up_batching
from tests.doubles.clock import FakeClock

_PLANNED = """
SELECT statement FROM pg_prepared_statements WHERE generic_plans > 0 AND statement ~ '^(WITH|UPDATE|SELECT).*hookseal'
"""
_OF_BATCHES = 3  # claim_one, claim_all, record_all
_OTHERS = 7  # record, release, hold, ring_unrung; park, due, next
_BATCHING = 3  # connections


async def planned(pool: "asyncpg.Pool[asyncpg.Record]") -> list[int]:
    """Return how many statements are planned on each open connection."""
    opened = [await pool.acquire() for _ in range(pool.get_size())]
    numbers = [len(await each.fetch(_PLANNED)) for each in opened]
    for each in opened:
        await pool.release(each)
    return numbers


async def test_the_connections_of_batches_are_warm_before_the_first_delivery(database_url: str) -> None:
    """At the start all of them are open, and have planned the statements that claim and record."""
    async with connection_pool(database_url, size=_BATCHING, plans_once=True) as batching:
        await warm_up_batching(batching)
        assert [_OF_BATCHES] * _BATCHING == await planned(batching)


class _Ending(FakeClock):
    """Ends its caller at the third sleep."""

    async def sleep(self, seconds: float) -> None:
        """Move the clock, or raise `CancelledError`."""
        await super().sleep(seconds)
        if len(self.slept) == 3:
            raise asyncio.CancelledError


@pytest.mark.parametrize("is_closed", [False, True])
async def test_connections_stay_warm(database_url: str, *, is_closed: bool) -> None:
    """It repeats before the pool closes idle connections, also if PostgreSQL did not answer."""
    clock = _Ending()
    async with (
        connection_pool(database_url, size=7, plans_once=True) as pool,
        connection_pool(database_url, size=_BATCHING, plans_once=True) as batching,
    ):
        if is_closed:
            await pool.close()
            await batching.close()
        with pytest.raises(asyncio.CancelledError):
            await WarmUp(pool, batching, clock=clock, log=structlog.get_logger()).run()
        assert is_closed or [_OF_BATCHES] * _BATCHING == await planned(batching)
        assert is_closed or [_OTHERS] * OF_THE_POOL == await planned(pool)

    assert [FIRST_SECONDS, AGAIN_SECONDS, AGAIN_SECONDS] == clock.slept
