"""What a leader maintains: failing endpoints, statistics and history."""

import asyncio

import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.dispatcher.core.endpoint_health import FAILING_SECONDS, AttemptCounts, FailingEndpoints, Key
from hookseal.dispatcher.core.model import Outcome, Target
from hookseal.dispatcher.store.history import BATCH, Place, PostgresHistory, Removed
from hookseal.errors import Unavailable
from hookseal.postgres.pool import Pool
from hookseal.worker.maintenance import (
    EVENTS_SECONDS,
    FOLLOW_SECONDS,
    FORGET_SECONDS,
    LOG_SECONDS,
    RETENTION_SECONDS,
    Disabling,
    HealthReports,
    Retention,
    Statistics,
)
from hookseal.worker.metrics.counters import WorkerMeter
from tests import rows
from tests.dispatcher.test_history import MANY, History
from tests.dispatcher.test_ledger import ARRIVED, made
from tests.doubles.claims import TARGET
from tests.doubles.clock import EndingClock, FakeClock
from tests.doubles.logbook import audited
from tests.doubles.stored import begin
from tests.worker.figures import figures

_DISABLED = "SELECT id FROM hookseal.endpoints WHERE NOT enabled"
_FAILING = "UPDATE hookseal.endpoints SET first_failure_at = now() - interval '2 h', last_failure_at = now()"


@pytest.fixture
async def target(begun_pool: Pool) -> Target:
    """Return an endpoint of acme, as a claim reads it."""
    added = await (await begin(begun_pool)).endpoint()
    return Target(pointer=added.pointer, enabled=True, timeout_ms=5000, retries=TARGET.retries)


def key(target: Target) -> Key:
    return target.pointer.tenant_id, target.pointer.endpoint_id


async def failed_for_a_minute(failing: FailingEndpoints, clock: FakeClock, target: Target) -> None:
    failing.attempted(target, Outcome.TIMEOUT)
    await clock.sleep(FAILING_SECONDS)
    failing.attempted(target, Outcome.TIMEOUT)


@pytest.mark.req("DEL-08", part="health")
async def test_a_failing_endpoint_is_written_and_logged_once(pool: Pool, target: Target) -> None:
    clock = FakeClock()
    failing = FailingEndpoints(clock)
    reports = HealthReports(pool, failing, clock=clock, log=structlog.get_logger())
    with capture_logs() as lines:
        await failed_for_a_minute(failing, clock, target)
        await reports.once()
        await reports.once()
        assert await pool.fetchval("SELECT first_failure_at IS NOT NULL FROM hookseal.endpoints")
        failing.attempted(target, Outcome.DELIVERED)
        await reports.once()
        await reports.once()

    assert await pool.fetchval("SELECT first_failure_at IS NULL FROM hookseal.endpoints")
    named = dict(zip(("tenant_id", "endpoint_id"), key(target), strict=True))
    assert [
        {"event": "endpoint.failing", "log_level": "warning", **named},
        {"event": "endpoint.recovered", "log_level": "info", **named},
    ] == lines


@pytest.mark.req("DEL-08", part="health")
async def test_an_unwritten_state_is_written_later(pool: Pool, target: Target) -> None:
    """A state that could not be written is written at the next look."""
    clock = FakeClock()
    failing = FailingEndpoints(clock)
    reports = HealthReports(pool, failing, clock=clock, log=structlog.get_logger())
    await failed_for_a_minute(failing, clock, target)
    await pool.execute("ALTER TABLE hookseal.endpoints RENAME TO hidden")
    with pytest.raises(Unavailable):
        await reports.once()
    await pool.execute("ALTER TABLE hookseal.hidden RENAME TO endpoints")
    await reports.once()

    assert await pool.fetchval("SELECT first_failure_at IS NOT NULL FROM hookseal.endpoints")


@pytest.mark.req("DEL-08", part="health")
@pytest.mark.parametrize("leads", [True, False])
async def test_only_the_leader_disables(pool: Pool, target: Target, *, leads: bool) -> None:
    """The leader disables endpoints that failed for too long, counts them and logs why; other workers do nothing."""
    clock, meter = FakeClock(), WorkerMeter()
    await pool.execute(_FAILING)
    disabling = await _disabling(pool, clock, meter, leads=leads)
    with capture_logs() as lines:
        await disabling.once()

    assert leads != await pool.fetchval("SELECT enabled FROM hookseal.endpoints")
    assert [("endpoint.disabled", key(target)[1])] * leads == [(line["event"], line["endpoint_id"]) for line in lines]
    assert float(leads) == figures(meter)["hookseal_endpoints_disabled_total", None]


@pytest.mark.req("DEL-08", part="health")
async def test_a_broken_audit_log_delays_no_other_tenant(pool: Pool, target: Target) -> None:
    """An endpoint whose tenant's audit log takes no row stays enabled, logged once; others are disabled and audited."""
    clock, meter = FakeClock(), WorkerMeter()
    other = (await (await begin(pool)).endpoint("globex")).pointer.endpoint_id
    await pool.execute(_FAILING)
    await pool.execute("UPDATE hookseal.audit_heads SET mac = sha256('x') WHERE tenant_id = 'acme'")
    disabling = await _disabling(pool, clock, meter, leads=True)
    with capture_logs() as lines:
        await disabling.once()
        await disabling.once()

    assert [other] == [str(row["id"]) for row in await pool.fetch(_DISABLED)]
    assert [("endpoint.disabling_failed", key(target)[1]), ("endpoint.disabled", other)] == [
        (line["event"], line["endpoint_id"]) for line in lines
    ]
    row = (await audited(pool, "globex"))[-1]
    assert ("endpoint.disabled", f"endpoint:{other}", "worker/w1") == (row["action"], row["subject"], row["who"])


async def _disabling(pool: Pool, clock: FakeClock, meter: WorkerMeter, *, leads: bool) -> Disabling:
    unlocked = (await begin(pool)).unlocked
    return Disabling(
        pool,
        unlocked,
        lambda: leads,
        who="worker/w1",
        after_seconds=3600,
        clock=clock,
        meter=meter,
        log=structlog.get_logger(),
    )


# A worker writes its counts, keeps those that it could not write, and the leader deletes old ones.


ENDPOINT = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
_DELIVERED = "SELECT sum(delivered)::integer FROM hookseal.attempt_counts"
_OLDER = "UPDATE hookseal.attempt_counts SET since = since - interval '26 h'"


@pytest.mark.req("DEL-08")
async def test_counts_survive_a_failed_write(pool: Pool) -> None:
    counts = AttemptCounts()
    statistics = Statistics(pool, counts, lambda: False, clock=FakeClock(), log=structlog.get_logger())
    counts.add(made(ARRIVED, ENDPOINT))
    await pool.execute("ALTER TABLE hookseal.attempt_counts RENAME TO away")
    await statistics.loop.one_pass()
    await pool.execute("ALTER TABLE hookseal.away RENAME TO attempt_counts")
    counts.add(made(ARRIVED, ENDPOINT))
    await statistics.once()
    await statistics.end()
    assert 2 == await pool.fetchval(_DELIVERED)


@pytest.mark.req("DEL-08")
async def test_the_leader_deletes_old_counts(pool: Pool) -> None:
    """The leader deletes old counts every five minutes; another worker does not."""
    counts, clock, standing = AttemptCounts(), FakeClock(), [False]
    statistics = Statistics(pool, counts, lambda: standing[0], clock=clock, log=structlog.get_logger())
    found = []
    for standing[0], later in ((False, 0.0), (True, 0.0), (True, 1.0), (True, FORGET_SECONDS)):
        clock.elapsed += later
        counts.add(made(ARRIVED, ENDPOINT))
        await statistics.end()
        await pool.execute(_OLDER)
        await statistics.once()
        found.append(await pool.fetchval(_DELIVERED))
        await pool.execute("DELETE FROM hookseal.attempt_counts")
    assert [1, None, 1, None] == found


# When the leader removes history, how fast, and what it reports, on a clock that the test moves.


_OLD_EVENT = """
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
VALUES ('acme', 'old', 'invoice.paid', now() - interval '31 days', '', '')
"""


class SlowHistory(PostgresHistory):
    """Its batches of deliveries take `seconds` by the clock of the test."""

    def __init__(self, pool: Pool, clock: FakeClock) -> None:
        super().__init__(pool)
        self.clock = clock
        self.seconds = 0.25

    async def remove_deliveries(self, place: Place, *, days: int) -> tuple[Removed, Place | None]:
        self.clock.elapsed += self.seconds
        return await super().remove_deliveries(place, days=days)


class Site:
    """A worker, and what it reports."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.clock = EndingClock()
        self.history = SlowHistory(pool, self.clock)
        self.meter = WorkerMeter()
        self.leads = True
        self.retention = Retention(
            self.history, lambda: self.leads, days=30, clock=self.clock, meter=self.meter, log=structlog.get_logger()
        )

    async def run(self, pauses: int) -> list[float]:
        """Run the loop for that many pauses, and return their lengths."""
        self.clock.pauses = len(self.clock.slept) + pauses
        with pytest.raises(asyncio.CancelledError):
            await self.retention.loop.run()
        return self.clock.slept[-pauses:]

    async def left(self) -> tuple[int, int]:
        """Return how many deliveries and events are left."""
        deliveries, _, events = await History(self.pool).left()
        return deliveries, events


@pytest.fixture
def site(pool: Pool) -> Site:
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


async def test_attempts_of_before_the_upgrade_get_their_endpoint_without_haste(site: Site) -> None:
    """The leader does so batch after batch, with the same pauses."""
    await site.pool.execute(MANY, 1)
    await site.pool.execute(
        "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
        " SELECT tenant_id, id, n, now(), 'timeout', '{}', 'w' FROM hookseal.deliveries, generate_series(1, $1) AS n",
        2 * BATCH + 1,
    )
    await rows.change(site.pool, "deliveries", state="pending", next_attempt_at=rows.NOW)  # they stay
    left = "SELECT count(*) FROM hookseal.attempts WHERE endpoint_id IS NULL"
    for expected in (BATCH + 1, 1):
        assert [0.25] == await site.run(1)
        assert expected == await site.pool.fetchval(left)
    assert [RETENTION_SECONDS] == await site.run(1)
    assert 0 == await site.pool.fetchval(left)


async def test_old_keys_of_requests_are_removed_without_haste(site: Site) -> None:
    """After 12 hours, and not before; batch after batch, with the same pauses."""
    await site.pool.execute(
        "INSERT INTO hookseal.idempotency_keys (tenant_id, actor, key_digest, call, fingerprint, created_at)"
        " SELECT 'acme', 'jane', sha256(n::text::bytea), 'endpoint.create', sha256(''),"
        "  now() - CASE WHEN n = 0 THEN interval '11 hours 59 minutes' ELSE interval '12 hours 1 minute' END"
        " FROM generate_series(0, $1) AS n",
        BATCH + 1,
    )
    left = "SELECT count(*) FROM hookseal.idempotency_keys"
    assert [0.25] == await site.run(1)
    assert 2 == await site.pool.fetchval(left)
    assert [RETENTION_SECONDS] == await site.run(1)
    assert 1 == await site.pool.fetchval(left)


async def test_tokens_that_ended_leave_without_haste(site: Site) -> None:
    """The leader removes them batch after batch, with the same pauses."""
    await site.pool.execute(
        "INSERT INTO hookseal.api_tokens (tenant_id, id, name, digest, scopes, revoked_at, generation,"
        " signature, signature_key_id)"
        " SELECT 'acme', hookseal.uuid7(), 't' || n, sha256(n::text::bytea), '{read}', now() - interval '31 days',"
        " 1, decode(repeat('00', 64), 'hex'), '1'"
        " FROM generate_series(1, $1) AS n",
        BATCH + 1,
    )
    assert [0.25, RETENTION_SECONDS] == await site.run(2)
    assert 0 == await site.pool.fetchval("SELECT count(*) FROM hookseal.api_tokens")


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
