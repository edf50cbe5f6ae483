"""A worker writes its counts, keeps those that it could not write, and the leader deletes old ones."""

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.endpoint_health import AttemptCounts
from hookseal.worker.maintenance import FORGET_SECONDS, Statistics
from tests.dispatcher.test_attempt_counts import DELIVERED, made
from tests.doubles.clock import FakeClock

Pool = asyncpg.Pool
pytestmark = pytest.mark.req("DEL-08")

ENDPOINT = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
_DELIVERED = "SELECT sum(delivered)::integer FROM hookseal.attempt_counts"
_OLDER = "UPDATE hookseal.attempt_counts SET since = since - interval '26 h'"


async def test_counts_survive_a_failed_write(pool: "Pool[asyncpg.Record]") -> None:
    """Counts survive a failed write, and are written once."""
    counts = AttemptCounts()
    statistics = Statistics(pool, counts, lambda: False, clock=FakeClock(), log=structlog.get_logger())
    counts.add(made(DELIVERED, ENDPOINT))
    await pool.execute("ALTER TABLE hookseal.attempt_counts RENAME TO away")
    await statistics.once()
    await pool.execute("ALTER TABLE hookseal.away RENAME TO attempt_counts")
    counts.add(made(DELIVERED, ENDPOINT))
    await statistics.once()
    await statistics.end()
    assert 2 == await pool.fetchval(_DELIVERED)


async def test_the_leader_deletes_old_counts(pool: "Pool[asyncpg.Record]") -> None:
    """The leader deletes old counts every five minutes; another worker does not."""
    counts, clock, standing = AttemptCounts(), FakeClock(), [False]
    statistics = Statistics(pool, counts, lambda: standing[0], clock=clock, log=structlog.get_logger())
    found = []
    for standing[0], later in ((False, 0.0), (True, 0.0), (True, 1.0), (True, FORGET_SECONDS)):
        clock.elapsed += later
        counts.add(made(DELIVERED, ENDPOINT))
        await statistics.end()
        await pool.execute(_OLDER)
        await statistics.once()
        found.append(await pool.fetchval(_DELIVERED))
        await pool.execute("DELETE FROM hookseal.attempt_counts")
    assert [1, None, 1, None] == found
