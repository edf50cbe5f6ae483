"""When the leader removes history, how fast, and what it reports, on a clock that the test moves."""

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.store.history import BATCH, Place, PostgresHistory, Removed
from hookseal.worker.maintenance import EVENTS_SECONDS, FOLLOW_SECONDS, LOG_SECONDS, RETENTION_SECONDS, Retention
from hookseal.worker.metrics.counters import WorkerMeter
from tests.dispatcher.test_history import MANY, History
from tests.doubles.clock import FakeClock
from tests.worker.figures import figures

Pool = asyncpg.Pool
_OLD_EVENT = """
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
VALUES ('acme', 'old', 'invoice.paid', now() - interval '31 days', '', '')
"""


class _Ended(Exception):
    """Raised by the clock in place of the last pause."""


class Clock(FakeClock):
    """Ends the loop at its last pause."""

    pauses = 0

    async def sleep(self, seconds: float) -> None:
        """Move the clock, and end the loop after the last pause."""
        await super().sleep(seconds)
        if len(self.slept) == self.pauses:
            raise _Ended


class SlowHistory(PostgresHistory):
    """Its batches of deliveries take `seconds` by the clock of the test."""

    def __init__(self, pool: "Pool[asyncpg.Record]", clock: FakeClock) -> None:
        super().__init__(pool)
        self.clock = clock
        self.seconds = 0.25

    async def remove_deliveries(self, place: Place, *, days: int) -> tuple[Removed, Place | None]:
        """Remove a batch."""
        self.clock.elapsed += self.seconds
        return await super().remove_deliveries(place, days=days)


class Site:
    """A worker, and what it reports."""

    def __init__(self, pool: "Pool[asyncpg.Record]") -> None:
        self.pool = pool
        self.clock = Clock()
        self.history = SlowHistory(pool, self.clock)
        self.meter = WorkerMeter()
        self.leads = True
        self.retention = Retention(
            self.history, lambda: self.leads, days=30, clock=self.clock, meter=self.meter, log=structlog.get_logger()
        )

    async def run(self, pauses: int) -> list[float]:
        """Run the loop for that many pauses, and return their lengths."""
        self.clock.pauses = len(self.clock.slept) + pauses
        with pytest.raises(_Ended):
            await self.retention.run()
        return self.clock.slept[-pauses:]

    async def left(self) -> tuple[int, int]:
        """Return how many deliveries and events are left."""
        deliveries, _, events = await History(self.pool).left()
        return deliveries, events


@pytest.fixture
def site(pool: "Pool[asyncpg.Record]") -> Site:
    """Return a worker with an empty history."""
    return Site(pool)


@pytest.mark.req("DEL-16")
async def test_a_backlog_is_removed_without_haste(site: Site) -> None:
    """Batch follows batch until nothing is left, and each is followed by a pause as long as itself."""
    await site.pool.execute(MANY, 2 * BATCH + 1)
    with structlog.testing.capture_logs() as logs:
        assert [0.25, 0.25, RETENTION_SECONDS] == await site.run(3)

    assert (0, 0) == await site.left()
    reported = [line for line in logs if line["event"] == "retention.removed"]
    assert {30} == {line["days"] for line in reported}
    counted = figures(site.meter)
    for table in ("deliveries", "events"):
        assert 2 * BATCH + 1 == sum(line[table] for line in reported) == counted["hookseal_removed_total", table]
    assert 0.0 == counted["hookseal_removed_total", "attempts"]


@pytest.mark.req("DEL-16")
async def test_a_long_removal_is_logged_once_a_minute(site: Site) -> None:
    """Of a removal that lasts, a line a minute is logged, and each row is in one line."""
    await site.pool.execute(MANY, 3 * BATCH)
    site.history.seconds = LOG_SECONDS / 2
    with structlog.testing.capture_logs() as logs:
        await site.run(4)

    assert [BATCH, BATCH, BATCH] == [line["deliveries"] for line in logs]


@pytest.mark.req("DEL-16")
async def test_only_the_leader_removes(site: Site) -> None:
    """A worker that does not lead removes nothing, and begins soon after it leads."""
    await site.pool.execute(MANY, 1)
    site.leads = False
    assert [FOLLOW_SECONDS] == await site.run(1)
    assert (1, 1) == await site.left()

    site.leads = True
    await site.run(1)
    assert (0, 0) == await site.left()


@pytest.mark.req("DEL-16")
async def test_events_are_searched_once_an_hour(site: Site) -> None:
    """An event that may leave after the walk has passed it leaves with the next walk, an hour later."""
    await site.run(1)
    await site.pool.execute(_OLD_EVENT)
    await site.run(int(EVENTS_SECONDS / RETENTION_SECONDS) - 2)
    assert (0, 1) == await site.left()

    await site.run(2)
    assert (0, 0) == await site.left()


@pytest.mark.req("DEL-16")
async def test_a_removal_that_fails_is_logged_once(site: Site) -> None:
    """While the removal fails it is tried again every minute and logged once; then everything is removed."""
    await site.pool.execute(MANY, 1)
    await site.pool.execute("ALTER FUNCTION hookseal.remove_deliveries RENAME TO other")
    with structlog.testing.capture_logs() as logs:
        assert [RETENTION_SECONDS] * 3 == await site.run(3)
        assert ["retention.defect"] == [line["event"] for line in logs]
        await site.pool.execute("ALTER FUNCTION hookseal.other RENAME TO remove_deliveries")
        await site.run(1)

    assert ["retention.removed", "retention.resumed"] == [line["event"] for line in logs][1:]
    assert (0, 0) == await site.left()
