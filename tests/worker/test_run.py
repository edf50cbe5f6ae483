"""How a worker reports that it lives, and how it ends its loops."""

import asyncio
from contextlib import suppress

import pytest
import structlog

from hookseal.ground.clock import SystemClock
from hookseal.worker.engine import Engine
from hookseal.worker.health import BEAT_SECONDS
from hookseal.worker.movement import Movement
from hookseal.worker.resources import opened
from hookseal.worker.run import cancelled, probes_of
from tests.doubles.clock import FakeClock
from tests.worker.environment import settings
from tests.worker.test_engine import RecordingHandler, all_due
from tests.worker.test_health import get, serving
from tests.worker.waiting import eventually
from tests.worker.world import World


@pytest.mark.req("OPS-01")
async def test_a_stuck_loop_does_not_live(world: World) -> None:
    """A worker whose loop has taken no rings for 30 s does not live, and lives when the loop moves again."""
    clock, log = FakeClock(), structlog.get_logger()
    async with opened(settings(world.database_url, world.redis_url), SystemClock(), log) as resources:
        movement = Movement(clock, sweep_seconds=15)
        engine = Engine(resources.bell, RecordingHandler(), due=all_due, clock=clock, log=log)
        async with serving(probes_of(resources, engine, movement)) as url:
            clock.elapsed += BEAT_SECONDS - 1
            assert (200, {"status": "ok"}) == await get(f"{url}/livez")
            clock.elapsed += 1
            assert (503, {"status": "stuck", "loops": ["taking", "handling"]}) == await get(f"{url}/livez")

            running = asyncio.create_task(engine.run())
            try:

                async def lives() -> bool:
                    return (200, {"status": "ok"}) == await get(f"{url}/livez")

                await eventually(lives)
            finally:
                await engine.stop()
                await running


async def test_a_lost_cancellation_is_repeated() -> None:
    """A loop that loses cancellations, as Python 3.11 may during a write to Redis, is cancelled until it ends."""
    lost = 0

    async def loop() -> None:
        nonlocal lost
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            lost += 1
        await asyncio.Event().wait()

    async def fail() -> None:
        raise OSError

    tasks = [asyncio.create_task(loop()), asyncio.create_task(fail())]
    await asyncio.wait(tasks, timeout=0)
    await asyncio.wait_for(cancelled(tasks), 60)

    assert 2 == lost
    assert [True, False] == [task.cancelled() for task in tasks]
    assert isinstance(tasks[1].exception(), OSError)


async def test_a_run_without_loops_returns() -> None:
    """Without loops it returns at once."""
    await asyncio.wait_for(cancelled([]), 60)
