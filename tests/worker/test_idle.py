"""How many statements a worker without anything to deliver runs, counted on a real PostgreSQL and a moved clock."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import asyncpg
import structlog

from hookseal.dispatcher.lane_store import PostgresLanes
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.worker.background import BackgroundLoops, Loop
from hookseal.worker.inflight import InFlight
from hookseal.worker.lane_keeper import LaneKeeper
from hookseal.worker.resources import Resources, opened
from hookseal.worker.run import cancelled
from tests.doubles.stored import begin
from tests.doubles.virtual_clock import VirtualClock
from tests.worker.environment import settings

Pool = asyncpg.Pool
_CONNECTIONS = 10  # of the pool of a worker
_WITHOUT_SLEEP = {"stale"}  # it waits until something is stale
_SETTLED_SECONDS = 20.0  # after the first look of each loop


class Idle:
    """A worker that takes no rings, on a clock that the test moves; `statements` counts those of its pool."""

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
    """Run the loops of a worker."""
    clock, asked = VirtualClock(), settings(database_url, redis_url, HOOKSEAL_SWEEP_SECONDS="")
    async with opened(asked, clock, structlog.get_logger()) as resources:
        loops = BackgroundLoops(asked, resources, clock, structlog.get_logger())
        keeper = LaneKeeper(
            PostgresLanes(resources.pool), Lanes(32), InFlight(500), resources.parts, meter=resources.meter
        )
        worker = Idle(clock, resources, loops)
        await _count(resources.pool, worker.statements)
        running: list[Loop] = [*loops.loops.values(), partial(keeper.run, _any(SimpleNamespace(wake=lambda: None)))]
        tasks = [asyncio.create_task(loop()) for loop in running]
        try:
            await worker.pass_time(_SETTLED_SECONDS)
            yield worker
        finally:
            await cancelled(tasks)
            await loops.end()


async def _count(pool: "Pool[asyncpg.Record]", statements: Counter[str]) -> None:
    """Count every statement of this pool."""
    async with AsyncExitStack() as stack:
        for connection in [await stack.enter_async_context(pool.acquire()) for _ in range(_CONNECTIONS)]:
            connection.add_query_logger(lambda done: statements.update([" ".join(done.query.split())[:80]]))


def _any(value: object) -> Any:
    return value


async def test_an_idle_worker_asks_little(pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str) -> None:
    """The only worker of an installation in which nothing happens runs at most seven statements a second."""
    await begin(pool)
    async with idle(database_url, redis_url) as worker:
        await worker.pass_time(60.0)

        assert worker.statements.total() <= 7 * 60, worker.statements.most_common()
