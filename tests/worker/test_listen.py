"""The listener: a publish notifies the outbox, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.clock import SystemClock
from hookseal.queue.bell import bell
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outbox import NOTICE_SECONDS, Lease, Listening, Outbox
from hookseal.worker.run import cancelled
from hookseal.worker.unrung import UnrungRings
from tests.doubles.clock import FakeClock
from tests.worker.environment import settings
from tests.worker.producer import publish, subscribe
from tests.worker.waiting import eventually

Pool = asyncpg.Pool
END_THE_LISTENER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'listener'
"""


class Woken:
    """Counts its wake-ups."""

    def __init__(self) -> None:
        self.count = 0

    def wake(self) -> None:
        """Count."""
        self.count += 1

    async def wait_for_more_than(self, count: int) -> None:
        """Return when it was woken more often than that."""

        async def look() -> bool:
            return self.count > count

        await eventually(look)


@asynccontextmanager
async def listening(url: str, woken: Woken) -> AsyncIterator[None]:
    """Listen during the block."""

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(url, timeout=5, server_settings={"application_name": "listener"})

    made = Listening(connect, woken.wake, clock=SystemClock(), log=structlog.get_logger())
    task = asyncio.create_task(made.run())
    try:
        yield
        assert not task.done()
    finally:
        await cancelled([task])


async def notified(pool: "Pool[asyncpg.Record]") -> None:
    """Return when publishing sends notifications."""

    async def look() -> bool:
        return bool(await pool.fetchval("SELECT until > now() FROM hookseal.control WHERE name = 'notify'"))

    await eventually(look)


@pytest.mark.req("DEL-01")
async def test_a_published_event_is_rung_at_once(
    pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str
) -> None:
    """With a listener, an event published by SQL is rung at once, long before the next look of the outbox."""
    await subscribe(pool)
    ringing = bell(redis_url)
    log = structlog.get_logger()
    ledger, clock = PostgresLedger(pool, worker="w1", lease_seconds=45), SystemClock()
    unrung = UnrungRings(ledger, ringing, clock=clock, turns=BacklogTurns(clock))
    outbox = Outbox(Lease(pool, holder="w1"), unrung, ringing, clock=clock, meter=WorkerMeter(), log=log)
    running = asyncio.create_task(outbox.run(poll_seconds=3_600))
    woken = Woken()

    def both() -> None:
        outbox.wake()
        woken.count += 1

    woken.wake = both  # type: ignore[method-assign]
    async with listening(database_url, woken):
        await notified(pool)

        async def leads() -> bool:
            return outbox.leads

        await eventually(leads)
        for _ in range(2):
            ids = await publish(pool)

            async def rung(wanted: frozenset[str] = frozenset(ids)) -> bool:
                members = await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)
                return wanted <= {member.decode() for member in members}

            await eventually(rung)
    await cancelled([running])
    await ringing.close()


async def test_notifications_are_requested_for_ten_seconds(pool: "Pool[asyncpg.Record]", database_url: str) -> None:
    """The listener requests notifications for ten seconds at a time, so that they end soon after the listener."""
    async with listening(database_url, Woken()):
        await notified(pool)
        left = await pool.fetchval("SELECT until - now() FROM hookseal.control WHERE name = 'notify'")

    assert timedelta(seconds=NOTICE_SECONDS - 5) < left <= timedelta(seconds=NOTICE_SECONDS)


async def test_a_lost_connection_is_replaced(pool: "Pool[asyncpg.Record]", database_url: str) -> None:
    """If PostgreSQL ends the connection, a new one listens soon, and the outbox is woken for missed notifications."""
    await subscribe(pool)
    woken = Woken()
    async with listening(database_url, woken):
        for _ in range(2):
            await notified(pool)
            before = woken.count
            await pool.execute(END_THE_LISTENER)
            await woken.wait_for_more_than(before)
            before = woken.count
            await publish(pool)
            await woken.wait_for_more_than(before)


async def test_an_outage_is_logged_once(pool: "Pool[asyncpg.Record]", database_url: str) -> None:
    """While the listener cannot connect it tries again and logs the outage once; then it logs that it listens again."""
    clock = FakeClock()

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        if len(clock.slept) < 5:
            raise ConnectionRefusedError("postgresql://user:hunter2@host/db")
        return await asyncpg.connect(database_url, timeout=5)

    woken = Woken()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(Listening(connect, woken.wake, clock=clock, log=structlog.get_logger()).run())
        await notified(pool)
        await cancelled([task])

    assert ["listen.failed", "listen.resumed"] == [line["event"] for line in logs]
    assert "hunter2" not in repr(logs)
    assert 1 == woken.count


def test_listening_is_off_by_default(database_url: str, redis_url: str) -> None:
    """Listening is off unless HOOKSEAL_LISTEN enables it."""
    assert [False, False, True] == [
        settings(database_url, redis_url, **changes).worker.listen
        for changes in ({}, {"HOOKSEAL_LISTEN": "false"}, {"HOOKSEAL_LISTEN": "true"})
    ]
