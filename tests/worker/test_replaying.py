"""The leader takes the steps of replay jobs, on a clock that the test moves; a worker does so from start to end."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
import structlog
from structlog.testing import capture_logs

from hookseal.dispatcher.core.replay_job import JobState, Selection
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import Chore
from hookseal.dispatcher.store.publish import NewEvent, publish_json
from hookseal.dispatcher.store.replays import LOCK_WAIT
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.ids import TenantId
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.replaying import (
    LOGGED_SECONDS,
    LOOK_SECONDS,
    MOST_JOBS,
    Replaying,
)
from hookseal.worker.run import cancelled
from tests.doubles.clock import FakeClock
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation, begin
from tests.operations.test_replay_jobs import dead_letters, in_state, started
from tests.worker.figures import figures
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, status

ACME = TenantId("acme")

pytestmark = pytest.mark.req("DEL-07", part="jobs")

_WAITED = "UPDATE hookseal.replays SET paid_until = now() - interval '1 s' WHERE state = 'running'"
_FAILED = "UPDATE hookseal.deliveries SET state = 'failed', next_attempt_at = NULL WHERE state = 'pending'"
_NO_LOG = "ALTER TABLE hookseal.audit_log ADD CONSTRAINT no CHECK (tenant_id <> 'globex') NOT VALID"


class Leader:
    """A leading worker that takes steps when the test says so."""

    def __init__(self, installation: Installation, clock: Clock | None = None) -> None:
        self.clock = FakeClock()
        self.meter = WorkerMeter()
        self.leads = True
        self.steps = 0
        self._stored = installation
        self.replaying = Replaying(
            installation.pool,
            self._as_operator,
            self,
            clock=clock or self.clock,
            meter=self.meter,
            log=structlog.get_logger(),
        )

    def may_have(self, _chore: Chore) -> bool:
        return True

    def _as_operator(self, connection: Connection) -> Operator:
        self.steps += 1
        return Operator(connection=connection, unlocked=self._stored.unlocked, who="worker/w-1")

    async def look(self) -> bool:
        await self._stored.pool.execute(_WAITED)
        self.clock.elapsed += 1
        return await self.replaying.once()


async def test_each_look_replays_what_a_second_allows(installation: Installation) -> None:
    """Each look replays what a second allows; the first, the end, and once a minute its progress is logged, counted."""
    await installation.endpoint()
    await dead_letters(installation, 5)
    leader = Leader(installation)
    await started(installation, rate=2)
    with capture_logs() as logged:
        assert [False] * 3 == [await leader.look() for _ in range(3)]
    assert [("replay.moved", 2, 3), ("replay.ended", 5, None)] == [
        (line["event"], line["replayed"], line.get("remaining")) for line in logged
    ]
    assert 5 == figures(leader.meter)["hookseal_replayed_total", None]
    assert {"worker/w-1"} == {row["who"] for row in await audited(installation.pool) if row["action"] == "replay.ended"}
    assert not await leader.look()


async def test_progress_is_logged_once_a_minute(installation: Installation) -> None:
    await installation.endpoint()
    await dead_letters(installation, 9)
    leader = Leader(installation)
    await started(installation, rate=1)
    with capture_logs() as logged:
        for seconds in (0.0, 0.0, LOGGED_SECONDS):
            leader.clock.elapsed += seconds
            await leader.look()
    assert [1, 3] == [line["replayed"] for line in logged]


async def test_a_failed_job_delays_no_other(installation: Installation) -> None:
    """A job whose end cannot be audited is logged once and delays no other; it ends when it can."""
    await installation.endpoint()
    await installation.endpoint("globex")
    await dead_letters(installation, 1)
    await installation.deliveries("globex")
    await installation.pool.execute(_FAILED)
    await started(installation, Selection(tenant_id=TenantId("globex")))
    await started(installation)
    await installation.pool.execute(_NO_LOG)
    leader = Leader(installation)
    with capture_logs() as logged:
        for _ in range(3):
            await leader.look()
        await installation.pool.execute("ALTER TABLE hookseal.audit_log DROP CONSTRAINT no")
        await leader.look()
    assert ["replay.defect", "replay.ended", "replay.ended"] == [line["event"] for line in logged]
    assert 2 == len(await in_state(installation, "pending"))


async def test_an_open_publisher_delays_no_other_tenant(installation: Installation) -> None:
    """Jobs that wait for the line of an open publisher soon give up their step; those of others take theirs."""
    await installation.add(
        NewEndpoint(tenant_id=ACME, url="https://a.example/", event_types=("*",), settings={"ordered": True})
    )
    await installation.endpoint("globex")
    for tenant in ("acme", "globex"):
        await installation.deliveries(tenant)
    await installation.pool.execute(_FAILED)
    await installation.pool.execute("UPDATE hookseal.deliveries SET position = NULL")
    jobs = [await started(installation, Selection(tenant_id=ACME)) for _ in range(3)]
    await started(installation, Selection(tenant_id=TenantId("globex")))
    leader = Leader(installation)
    async with installation.pool.acquire() as publisher, publisher.transaction():
        await publish_json(publisher, NewEvent(tenant_id=ACME, event_type="a.b"), "{}")
        with capture_logs() as logged:
            async with asyncio.timeout(3):
                await leader.look()
    assert [*[("replay.failed", "acme")] * 3, ("replay.ended", "globex")] == [
        (line["event"], line["tenant_id"]) for line in logged
    ]
    with capture_logs() as logged:
        await leader.look()
    assert {job.replay_id for job in jobs} == {line["replay_id"] for line in logged if line["event"] == "replay.ended"}


@asynccontextmanager
async def blocked(installation: Installation, tenants: Sequence[str]) -> AsyncIterator[list[str]]:
    """Start five jobs of each of these tenants, whose lines an open publisher has locked, and then one of globex.

    Yields the ids of the blocked jobs. Each job would replay one delivery.
    """
    for tenant in tenants:
        endpoint = NewEndpoint(
            tenant_id=TenantId(tenant), url="https://a.example/", event_types=("*",), settings={"ordered": True}
        )
        await installation.add(endpoint)
        await installation.deliveries(tenant)
    await installation.endpoint("globex")
    await installation.deliveries("globex")
    await installation.pool.execute(_FAILED)
    await installation.pool.execute("UPDATE hookseal.deliveries SET position = NULL")
    async with installation.pool.acquire() as publisher, publisher.transaction():
        for tenant in tenants:
            await publish_json(publisher, NewEvent(tenant_id=TenantId(tenant), event_type="a.b"), "{}")
        selected = [Selection(tenant_id=TenantId(tenant)) for tenant in tenants for _ in range(5)]
        jobs = [(await started(installation, selection)).replay_id for selection in selected]
        await started(installation, Selection(tenant_id=TenantId("globex")))
        yield [str(job) for job in jobs]


async def running(installation: Installation) -> dict[str, datetime]:
    """Return the running jobs, each with the time of its last step."""
    rows = await installation.pool.fetch("SELECT id::text, moved_at FROM hookseal.replays WHERE state = 'running'")
    return {row[0]: row[1] for row in rows}


async def test_a_hundred_blocked_jobs_delay_no_other_tenant(installation: Installation) -> None:
    """Producers block a hundred jobs: one of another tenant has its step in the second look, which comes soon."""
    leader = Leader(installation, SystemClock())
    async with blocked(installation, [f"t{number}" for number in range(20)]) as jobs:
        moved = await running(installation)
        began = time.monotonic()
        await leader.look()
        await leader.look()
        assert time.monotonic() - began < LOCK_WAIT + MOST_JOBS * 0.1  # one look alone took 30 s
        assert {job: moved[job] for job in jobs} == await running(installation)  # the alert sees that they stand still
    leader = Leader(installation)
    await leader.look()
    assert not await running(installation)


async def test_blocked_jobs_take_little_of_a_look(installation: Installation) -> None:
    """Five blocked jobs take turns: a look tries one, and then they pause as long; they go on when the lock is free."""

    class Stopping(SystemClock):
        """While it stands still, no delay of this machine ends a pause."""

        ahead = 0.0
        stands_at: float | None = None

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead if self.stands_at is None else self.stands_at

    clock = Stopping()
    leader = Leader(installation, clock)
    async with blocked(installation, ["acme"]) as jobs:
        await leader.look()
        assert len(jobs) + 1 == leader.steps
        for number in range(len(jobs)):
            began = clock.monotonic()
            await leader.look()
            clock.stands_at = began
            await leader.look()
            assert len(jobs) + 1 + number + 1 == leader.steps
            clock.stands_at = None
            clock.ahead += clock.monotonic() - began
        assert set(jobs) == set(await running(installation))
    await leader.look()
    assert not await running(installation)


async def test_blocked_jobs_take_their_time_from_the_pause(installation: Installation) -> None:
    """The other jobs have their steps once a second, as without the jobs that fail."""

    class Recording(SystemClock):
        slept = asyncio.Queue[float]()

        async def sleep(self, seconds: float) -> None:
            self.slept.put_nowait(seconds)
            await super().sleep(seconds)

    clock = Recording()
    async with blocked(installation, ["acme"]):
        looking = asyncio.create_task(Leader(installation, clock).replaying.loop.run())
        pauses = [await clock.slept.get() for _ in range(2)]  # on a busy machine the third look may try none of them
        await cancelled([looking])
    assert all(pause <= LOOK_SECONDS - LOCK_WAIT for pause in pauses), pauses


async def test_only_the_leader_takes_steps(installation: Installation) -> None:
    await installation.endpoint()
    await dead_letters(installation, 1)
    leader = Leader(installation)
    await started(installation)
    leader.leads = False
    assert not await leader.look()
    assert 1 == len(await in_state(installation, "dead_letter"))


async def test_a_worker_executes_a_job(world: World, receiver: Receiver) -> None:
    """A worker executes a job that a command started: the receiver gets each dead letter again, counted."""
    receiver.answers["/hook"] = status(204)
    await world.endpoint(f"{receiver.base_url}/hook")
    installation = await begin(world.pool)
    deliveries = await dead_letters(installation, 3)
    job = await started(installation)

    async def is_done() -> bool:
        state = await world.pool.fetchval("SELECT state FROM hookseal.replays WHERE id = $1::text::uuid", job.replay_id)
        return bool(state == JobState.DONE and deliveries == await in_state(installation, "delivered"))

    async with world.worker():
        await eventually(is_done)
    stats = "SELECT attempts, delivered, success_rate FROM hookseal.endpoint_stats WHERE period = 'hour'"
    assert (3, 3, 1.0) == tuple(await world.pool.fetchrow(stats) or ())
