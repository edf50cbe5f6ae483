"""How many statements a worker runs on a real PostgreSQL: for each delivery, and with none, on a moved clock."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from hookseal.dispatcher.core.model import Reply, Ring
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.dispatcher.store.lanes import PostgresLanes
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.postgres import connect
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import Pool
from hookseal.worker import ring_handler
from hookseal.worker.background import BackgroundLoops, Loop
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.inflight import InFlight
from hookseal.worker.lane_keeper import LaneKeeper
from hookseal.worker.periodic import Passes
from hookseal.worker.resources import Resources, opened
from hookseal.worker.ring_handler import Movement, RingHandler
from hookseal.worker.run import cancelled
from hookseal.worker.unlocking import AGAIN_SECONDS, FIRST_SECONDS, OF_THE_POOL, WarmUp, warm_up_batching
from tests.doubles.clock import EndingClock
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin
from tests.doubles.transport import ScriptedTransport
from tests.doubles.virtual_clock import VirtualClock
from tests.worker.environment import settings
from tests.worker.waiting import eventually

_WITHOUT_SLEEP = {"stale"}  # it waits until something is stale
_SETTLED_SECONDS = 20.0  # after the first look of each loop

_UNFINISHED = "SELECT EXISTS (SELECT FROM hookseal.deliveries WHERE state <> 'delivered')"


@pytest.fixture(autouse=True)
def no_statement_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no connection plan anew, as it does after a statement that was slow on a busy machine."""
    monkeypatch.setattr(connect, "SLOW_SECONDS", 60.0)


class Delivering:
    """A worker with 100 slots whose receiver answers at once.

    `statements` counts those that it runs, and `batched` those of them that use the pool for batches.
    """

    def __init__(self, resources: Resources) -> None:
        self.statements: Counter[str] = Counter()
        self.batched: Counter[str] = Counter()
        self.in_flight = InFlight(100)
        parts = replace(resources.parts, transport=ScriptedTransport(*[Reply(status=204, snippet="")] * 2_000))
        self.handler = RingHandler(
            parts,
            self.in_flight,
            resources.meter,
            Movement(SystemClock(), sweep_seconds=15),
            lanes=Lanes(32, lambda: resources.heartbeat.fleet),
        )

    async def deliver(self, rings: Iterable[Ring]) -> None:
        for ring in rings:
            await self.handler.handle([ring])
            assert 0 == await self.in_flight.drain(60)


@asynccontextmanager
async def delivering(database_url: str, redis_url: str) -> AsyncIterator[Delivering]:
    """Open a worker whose loops do not run."""
    async with opened(settings(database_url, redis_url), SystemClock(), structlog.get_logger()) as resources:
        worker = Delivering(resources)
        for pool in (resources.pool, resources.batching):
            await _count(pool, worker.statements)
        await _count(resources.batching, worker.batched)
        yield worker


async def queued(stored: Installation, number: int) -> list[Ring]:
    """Return the rings of so many deliveries of one endpoint."""
    await stored.pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1::int)", number
    )
    rows = await stored.pool.fetch("SELECT tenant_id, endpoint_id::text, id::text FROM hookseal.deliveries ORDER BY id")
    return [
        Ring(tenant_id=TenantId(row[0]), endpoint_id=EndpointId(row[1]), delivery_id=DeliveryId(row[2])) for row in rows
    ]


class Idle:
    """A worker that takes no rings, on a clock that the test moves; `statements` counts those that it runs."""

    def __init__(self, clock: VirtualClock, resources: Resources, loops: BackgroundLoops) -> None:
        self.statements: Counter[str] = Counter()
        self.resources = resources
        self._clock = clock
        self._loops = loops

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, and count the statements in it."""
        self.statements.clear()
        await self._clock.run(seconds, sleepers=len({"lanes", *self._loops.loops} - _WITHOUT_SLEEP))


@asynccontextmanager
async def idle(database_url: str, redis_url: str) -> AsyncIterator[Idle]:
    clock, asked = VirtualClock(), settings(database_url, redis_url, HOOKSEAL_SWEEP_SECONDS="")
    async with opened(asked, clock, structlog.get_logger()) as resources:
        loops = BackgroundLoops(asked, resources, clock, structlog.get_logger(), turns=(turns := BacklogTurns(clock)))
        keeper = LaneKeeper(
            *(PostgresLanes(resources.pool), Lanes(32), InFlight(500), resources.parts),
            meter=resources.meter,
            turns=turns,
        )
        worker = Idle(clock, resources, loops)
        for pool in (resources.pool, resources.batching):
            await _count(pool, worker.statements)
        running: list[Loop] = [*loops.loops.values(), keeper.loop(_any(SimpleNamespace(wake=lambda: None))).run]
        tasks = [asyncio.create_task(loop()) for loop in running]
        try:
            await worker.pass_time(_SETTLED_SECONDS)
            yield worker
        finally:
            await cancelled(tasks)
            await loops.end()


async def _count(pool: Pool, statements: Counter[str]) -> None:
    async with AsyncExitStack() as stack:
        for connection in [await stack.enter_async_context(pool.acquire()) for _ in range(pool.get_max_size())]:
            connection.add_query_logger(lambda done: statements.update([" ".join(done.query.split())[:80]]))


def _any(value: object) -> Any:
    return value


async def test_a_delivery_costs_two_statements(installation: Installation, database_url: str, redis_url: str) -> None:
    """One claims it, and one records it; the first delivery of an endpoint also reads the secret."""
    await installation.endpoint()
    first, *others = await queued(installation, 21)
    async with delivering(database_url, redis_url) as worker:
        await worker.deliver([first])
        worker.statements.clear()
        worker.batched.clear()
        await worker.deliver(others)

        assert 2 * len(others) == worker.statements.total(), worker.statements
        assert worker.batched == worker.statements
    assert not await installation.pool.fetchval(_UNFINISHED)


async def test_many_deliveries_share_statements(
    installation: Installation, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While more wait than the worker has slots, and the receiver answers at once, 20 deliveries share a statement."""
    monkeypatch.setattr(ring_handler, "GATHER_SECONDS", 60.0)  # else a slow machine would end the wait for slots
    await installation.endpoint()
    await installation.pool.execute("UPDATE hookseal.endpoints SET concurrency = 1000")
    rings = await queued(installation, 1_000)
    async with delivering(database_url, redis_url) as worker:
        stop = asyncio.Event()
        running = asyncio.create_task(worker.handler.run(Passes("handling", SystemClock()), stop))
        await worker.deliver(rings[:1])  # so that the settings of the endpoint are known
        worker.statements.clear()
        worker.handler.add(rings[1:])

        async def delivered() -> bool:
            return not await installation.pool.fetchval(_UNFINISHED)

        await eventually(delivered)
        stop.set()
        worker.handler.wake_up()
        worker.in_flight.close()
        await running
        assert worker.statements.total() <= 1_000 / 20, worker.statements


async def test_an_idle_worker_asks_little(pool: Pool, database_url: str, redis_url: str) -> None:
    """The only worker of an installation in which nothing happens runs at most seven statements a second."""
    await begin(pool)
    async with idle(database_url, redis_url) as worker:
        await worker.pass_time(60.0)

        assert worker.statements.total() <= 7 * 60, worker.statements.most_common()


# Which connections are open, and which statements are planned on each, before deliveries need them.


_PLANNED = """
SELECT statement FROM pg_prepared_statements WHERE generic_plans > 0 AND statement ~ '^(WITH|UPDATE|SELECT).*hookseal'
"""
_OF_BATCHES = 3  # claim_one, claim_all, record_all
_OTHERS = 7  # record, release, hold, ring_unrung; park, due, next
_BATCHING = 3  # connections


async def planned(pool: Pool) -> list[int]:
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


@pytest.mark.parametrize("is_closed", [False, True])
async def test_connections_stay_warm(database_url: str, *, is_closed: bool) -> None:
    """It repeats before the pool closes idle connections, also if PostgreSQL did not answer."""
    clock = EndingClock(3)
    async with (
        connection_pool(database_url, size=7, plans_once=True) as pool,
        connection_pool(database_url, size=_BATCHING, plans_once=True) as batching,
    ):
        if is_closed:
            await pool.close()
            await batching.close()
        with pytest.raises(asyncio.CancelledError):
            await WarmUp(pool, batching, clock=clock, log=structlog.get_logger()).loop.run()
        assert is_closed or [_OF_BATCHES] * _BATCHING == await planned(batching)
        assert is_closed or [_OTHERS] * OF_THE_POOL == await planned(pool)

    assert [FIRST_SECONDS, AGAIN_SECONDS, AGAIN_SECONDS] == clock.slept
