"""The check of the queue fails only if a delivery is due, was rung, and nothing but the queue delays it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import Ring
from hookseal.embedded.server import Server
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.worker.checks import _moves, ready_checks
from hookseal.worker.engine import Engine
from hookseal.worker.health import Check
from hookseal.worker.inflight import InFlight
from hookseal.worker.movement import Movement
from hookseal.worker.resources import opened
from tests.doubles.clock import FakeClock
from tests.worker.environment import settings
from tests.worker.test_engine import RecordingHandler, all_due, beat
from tests.worker.waiting import eventually
from tests.worker.world import World

pytestmark = pytest.mark.req("OPS-01")
SWEEP_SECONDS, STILL_SECONDS = 15, 90.0
# The delivery came due that many seconds ago and was rung after that.
RUNG = "UPDATE hookseal.deliveries SET next_attempt_at = now() - $1 * interval '1 second', rung_at = now()"


@asynccontextmanager
async def asking(world: World, movement: Movement) -> AsyncIterator[Check]:
    """Yield the queue check of a starting worker."""
    async with opened(
        settings(world.database_url, world.redis_url), SystemClock(), structlog.get_logger()
    ) as resources:
        yield ready_checks(resources, movement)["queue"]


async def one_delivery(world: World) -> Ring:
    """Publish an event for one endpoint."""
    await world.endpoint("https://receiver.example/hook")
    [ring] = await world.publish(rung=False)
    return ring


async def test_a_stuck_queue_fails_the_check(world: World) -> None:
    """The check fails if a delivery has been rung and due for 90 s and this worker has claimed none for as long."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    async with asking(world, movement) as check:
        clock.elapsed += STILL_SECONDS - 0.1
        await check()
        clock.elapsed += 0.1
        with pytest.raises(Unavailable, match="none comes through the queue"):
            await check()
        movement.moved()
        await check()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("state = 'delivered', next_attempt_at = NULL", id="over"),
        pytest.param("next_attempt_at = now() - interval '80 seconds'", id="due-for-less"),
        pytest.param("rung_at = NULL", id="never-rung"),
        pytest.param("rung_at = next_attempt_at - interval '1 second'", id="rung-for-an-earlier-time"),
        pytest.param("waiting_for = 'secret'", id="held-back"),
    ],
)
async def test_other_delays_do_not_fail_the_check(change: str, world: World) -> None:
    """A delivery that is finished, due for less time, held or unrung does not make the check fail."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    await world.pool.execute(f"UPDATE hookseal.deliveries SET {change}")  # noqa: S608 -- changes of this file
    async with asking(world, movement) as check:
        clock.elapsed += STILL_SECONDS
        await check()


@pytest.mark.parametrize("table", ["deliveries", "endpoints"])
async def test_a_locked_delivery_does_not_fail_the_check(table: str, world: World) -> None:
    """A delivery that cannot be claimed because it or its endpoint is locked does not make the check fail."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    async with asking(world, movement) as check:
        clock.elapsed += STILL_SECONDS
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SELECT FROM hookseal.{table} FOR UPDATE")
            await check()
        with pytest.raises(Unavailable):
            await check()


async def test_a_full_worker_passes_the_check(world: World) -> None:
    """While slow receivers fill every slot the check passes, however long; then the time starts again."""
    clock, in_flight = FakeClock(), InFlight(1)
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    in_flight.take(1)
    async with opened(
        settings(world.database_url, world.redis_url), SystemClock(), structlog.get_logger()
    ) as resources:
        check = ready_checks(resources, movement)["queue"]
        engine = Engine(
            resources.bell,
            RecordingHandler(movement=movement, in_flight=in_flight),
            due=all_due,
            clock=clock,
            log=structlog.get_logger(),
        )
        running = asyncio.create_task(engine.run())
        try:
            clock.elapsed += 10 * STILL_SECONDS

            async def beaten() -> bool:
                return beat(engine) == clock.elapsed and not movement.is_still

            await eventually(beaten)
            await check()
            in_flight.free(1)
            clock.elapsed += STILL_SECONDS
            with pytest.raises(Unavailable):
                await check()
        finally:
            await engine.stop()
            await asyncio.wait_for(running, 10)


async def test_a_frozen_database_fails_its_own_check_only(own_postgres: Server) -> None:
    """While PostgreSQL does not answer, only its own check fails, not that of the queue."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    clock.elapsed += STILL_SECONDS
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=1) as pool:
        own_postgres.freeze()
        try:
            await _moves(pool, movement)
        finally:
            own_postgres.thaw()
