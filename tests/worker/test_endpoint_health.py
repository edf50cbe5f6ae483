"""What a worker writes and logs about failing endpoints."""

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.dispatcher.core.endpoint_health import FAILING_SECONDS, FailingEndpoints, Key
from hookseal.dispatcher.core.model import Outcome, Target
from hookseal.errors import Unavailable
from hookseal.worker.maintenance import Disabling, HealthReports
from hookseal.worker.metrics.counters import WorkerMeter
from tests.doubles.claims import TARGET
from tests.doubles.clock import FakeClock
from tests.doubles.logbook import audited
from tests.doubles.stored import begin
from tests.worker.figures import figures

Pool = asyncpg.Pool
pytestmark = pytest.mark.req("DEL-08", part="health")
_DISABLED = "SELECT id FROM hookseal.endpoints WHERE NOT enabled"
_FAILING = "UPDATE hookseal.endpoints SET first_failure_at = now() - interval '2 h', last_failure_at = now()"


@pytest.fixture
async def target(begun_pool: "Pool[asyncpg.Record]") -> Target:
    """Return an endpoint of acme, as a claim reads it."""
    added = await (await begin(begun_pool)).endpoint()
    return Target(pointer=added.pointer, enabled=True, timeout_ms=5000, retries=TARGET.retries)


def key(target: Target) -> Key:
    """Return its key."""
    return target.pointer.tenant_id, target.pointer.endpoint_id


async def failed_for_a_minute(failing: FailingEndpoints, clock: FakeClock, target: Target) -> None:
    """Let every attempt of a minute fail."""
    failing.attempted(target, Outcome.TIMEOUT)
    await clock.sleep(FAILING_SECONDS)
    failing.attempted(target, Outcome.TIMEOUT)


async def test_a_failing_endpoint_is_written_and_logged_once(pool: "Pool[asyncpg.Record]", target: Target) -> None:
    """A failing endpoint and its recovery are each written and logged once."""
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


async def test_an_unwritten_state_is_written_later(pool: "Pool[asyncpg.Record]", target: Target) -> None:
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


@pytest.mark.parametrize("leads", [True, False])
async def test_only_the_leader_disables(pool: "Pool[asyncpg.Record]", target: Target, *, leads: bool) -> None:
    """The leader disables endpoints that failed for too long, counts them and logs why; other workers do nothing."""
    clock, meter = FakeClock(), WorkerMeter()
    await pool.execute(_FAILING)
    disabling = await _disabling(pool, clock, meter, leads=leads)
    with capture_logs() as lines:
        await disabling.once()

    assert leads != await pool.fetchval("SELECT enabled FROM hookseal.endpoints")
    assert [("endpoint.disabled", key(target)[1])] * leads == [(line["event"], line["endpoint_id"]) for line in lines]
    assert float(leads) == figures(meter)["hookseal_endpoints_disabled_total", None]


async def test_a_broken_audit_log_delays_no_other_tenant(pool: "Pool[asyncpg.Record]", target: Target) -> None:
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


async def _disabling(pool: "Pool[asyncpg.Record]", clock: FakeClock, meter: WorkerMeter, *, leads: bool) -> Disabling:
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
