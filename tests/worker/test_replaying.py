"""The leader takes the steps of replay jobs, on a clock that the test moves; a worker does so from start to end."""

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.dispatcher.replay_job import JobState, Selection
from hookseal.ground.ids import TenantId
from hookseal.operations.operator import Operator
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.replaying import LOGGED_SECONDS, Replaying
from tests.doubles.clock import FakeClock
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation, begin
from tests.operations.test_replay_jobs import dead_letters, in_state, started
from tests.worker.figures import figures
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, status

pytestmark = pytest.mark.req("DEL-07", part="jobs")

_WAITED = "UPDATE hookseal.replays SET paid_until = now() - interval '1 s' WHERE state = 'running'"
_FAILED = "UPDATE hookseal.deliveries SET state = 'failed', next_attempt_at = NULL WHERE state = 'pending'"
_NO_LOG = "ALTER TABLE hookseal.audit_log ADD CONSTRAINT no CHECK (tenant_id <> 'globex') NOT VALID"


class Leader:
    """A leading worker that takes steps when the test says so."""

    def __init__(self, stored: Installation) -> None:
        self.clock = FakeClock()
        self.meter = WorkerMeter()
        self.leads = True
        self._stored = stored
        self.replaying = Replaying(
            stored.pool,
            lambda connection: Operator(connection=connection, unlocked=stored.unlocked, who="worker/w-1"),
            lambda: self.leads,
            clock=self.clock,
            meter=self.meter,
            log=structlog.get_logger(),
        )

    async def look(self) -> bool:
        """Look once, a second later."""
        await self._stored.pool.execute(_WAITED)
        self.clock.elapsed += 1
        return await self.replaying.once()


@pytest.fixture
async def stored(begun_pool: "asyncpg.Pool[asyncpg.Record]") -> Installation:
    """Return an installation that has begun."""
    return await begin(begun_pool)


async def test_each_look_replays_what_a_second_allows(stored: Installation) -> None:
    """Each look replays what a second allows; the first, the end, and once a minute its progress is logged, counted."""
    await stored.endpoint()
    await dead_letters(stored, 5)
    leader = Leader(stored)
    await started(stored, rate=2)
    with capture_logs() as logged:
        assert [False] * 3 == [await leader.look() for _ in range(3)]
    assert [("replay.moved", 2, 3), ("replay.ended", 5, None)] == [
        (line["event"], line["replayed"], line.get("remaining")) for line in logged
    ]
    assert 5 == figures(leader.meter)["hookseal_replayed_total", None]
    assert {"worker/w-1"} == {row["who"] for row in await audited(stored.pool) if row["action"] == "replay.ended"}
    assert not await leader.look()


async def test_progress_is_logged_once_a_minute(stored: Installation) -> None:
    """The progress of a long job is logged once a minute."""
    await stored.endpoint()
    await dead_letters(stored, 9)
    leader = Leader(stored)
    await started(stored, rate=1)
    with capture_logs() as logged:
        for seconds in (0.0, 0.0, LOGGED_SECONDS):
            leader.clock.elapsed += seconds
            await leader.look()
    assert [1, 3] == [line["replayed"] for line in logged]


async def test_a_failed_job_delays_no_other(stored: Installation) -> None:
    """A job whose end cannot be audited is logged once and delays no other; it ends when it can."""
    await stored.endpoint()
    await stored.endpoint("globex")
    await dead_letters(stored, 1)
    await stored.deliveries("globex")
    await stored.pool.execute(_FAILED)
    await started(stored, Selection(tenant_id=TenantId("globex")))
    await started(stored)
    await stored.pool.execute(_NO_LOG)
    leader = Leader(stored)
    with capture_logs() as logged:
        for _ in range(3):
            await leader.look()
        await stored.pool.execute("ALTER TABLE hookseal.audit_log DROP CONSTRAINT no")
        await leader.look()
    assert ["replay.defect", "replay.ended", "replay.ended"] == [line["event"] for line in logged]
    assert 2 == len(await in_state(stored, "pending"))


async def test_only_the_leader_takes_steps(stored: Installation) -> None:
    """A worker that stopped leading takes no step."""
    await stored.endpoint()
    await dead_letters(stored, 1)
    leader = Leader(stored)
    await started(stored)
    leader.leads = False
    assert not await leader.look()
    assert 1 == len(await in_state(stored, "dead_letter"))


async def test_a_worker_executes_a_job(world: World, receiver: Receiver) -> None:
    """A worker executes a job that a command started: the receiver gets each dead letter again, counted."""
    receiver.answers["/hook"] = status(204)
    await world.endpoint(f"{receiver.base_url}/hook")
    stored = await begin(world.pool)
    deliveries = await dead_letters(stored, 3)
    job = await started(stored)

    async def is_done() -> bool:
        state = await world.pool.fetchval("SELECT state FROM hookseal.replays WHERE id = $1::text::uuid", job.replay_id)
        return bool(state == JobState.DONE and deliveries == await in_state(stored, "delivered"))

    async with world.worker():
        await eventually(is_done)
    stats = "SELECT attempts, delivered, success_rate FROM hookseal.endpoint_stats WHERE period = 'hour'"
    assert (3, 3, 1.0) == tuple(await world.pool.fetchrow(stats) or ())
