"""The row by which other processes know that a worker lives, in a real PostgreSQL."""

import asyncio

import asyncpg
import pytest
import structlog

from hookseal.ground.errors import Unavailable
from hookseal.worker.heartbeat import BEAT_SECONDS, Heartbeat, Presence
from hookseal.worker.run import cancelled
from tests.doubles.clock import FakeClock
from tests.worker.waiting import eventually

Pool = asyncpg.Pool
PRESENCE = Presence(worker_id="w1", version="0.1.0", drain_seconds=25, lease_seconds=45, key_ids=("00112233aabbccdd",))


class YieldingClock(FakeClock):
    """Sleeps no time, but yields to other tasks."""

    async def sleep(self, seconds: float) -> None:
        """Yield to other tasks."""
        await super().sleep(seconds)
        await asyncio.sleep(0)


def heartbeat(pool: "Pool[asyncpg.Record]", clock: FakeClock | None = None) -> Heartbeat:
    """Return the heartbeat of a worker."""
    return Heartbeat(pool, PRESENCE, clock=clock or FakeClock(), log=structlog.get_logger())


async def ids(pool: "Pool[asyncpg.Record]") -> list[str]:
    """Return the ids of the workers that have a row."""
    return [row["id"] for row in await pool.fetch("SELECT id FROM hookseal.workers ORDER BY id")]


async def test_the_row_exists_during_the_block(pool: "Pool[asyncpg.Record]") -> None:
    """During the block the row has version, times and keys of the worker; afterwards it is deleted."""
    async with heartbeat(pool).present():
        row = await pool.fetchrow("SELECT * FROM hookseal.workers")
        assert row is not None
        assert ("w1", "0.1.0", 25, 45, ["00112233aabbccdd"]) == tuple(row)[:5]
        assert row["started_at"] == row["beaten_at"]
    assert [] == await ids(pool)


async def test_the_row_is_updated_every_five_seconds(pool: "Pool[asyncpg.Record]") -> None:
    """Every five seconds the row is updated, or inserted again if missing; rows older than an hour are deleted."""
    clock = YieldingClock()
    beating = heartbeat(pool, clock)
    async with beating.present():
        await pool.execute("UPDATE hookseal.workers SET id = 'dead', beaten_at = now() - interval '61 minutes'")
        await pool.execute(
            "INSERT INTO hookseal.workers"
            " SELECT 'silent', version, 1, 2, '{}', '{}', now(), now() - interval '59 minutes'"
            " FROM hookseal.workers"
        )
        task = asyncio.create_task(beating.run())

        async def beaten() -> bool:
            return ["silent", "w1"] == await ids(pool)

        await eventually(beaten)
        first = await pool.fetchval("SELECT beaten_at FROM hookseal.workers WHERE id = 'w1'")

        async def moved() -> bool:
            return bool(await pool.fetchval("SELECT beaten_at > $1 FROM hookseal.workers WHERE id = 'w1'", first))

        await eventually(moved)
        await cancelled([task])
    assert {BEAT_SECONDS} == set(clock.slept)


async def test_without_postgresql_it_does_not_start(database_url: str) -> None:
    """A worker that cannot write its row does not start; a later outage is logged once and does not delay the stop."""
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
    clock = YieldingClock()
    beating = heartbeat(pool, clock)
    with structlog.testing.capture_logs() as logs:
        async with beating.present():
            await pool.close()
            task = asyncio.create_task(beating.run())

            async def tried_often() -> bool:
                return len(clock.slept) > 10

            await eventually(tried_often)
            await cancelled([task])
    assert ["heartbeat.failed"] == [line["event"] for line in logs]
    with pytest.raises(Unavailable):
        async with beating.present():
            pass
