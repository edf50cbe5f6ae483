"""The loops of a worker: their passes and lag, their outages and pauses, and how a worker ends them."""

import asyncio
import gc
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

from hookseal.errors import Defect, Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.queue.rings import translate_redis_errors
from hookseal.worker.engine import Engine
from hookseal.worker.health import BEAT_SECONDS
from hookseal.worker.periodic import LATE_SECONDS, Outage, Passes, Pulse, at_most, set_within
from hookseal.worker.resources import opened
from hookseal.worker.ring_handler import Movement
from hookseal.worker.run import cancelled, probes_of, run_until
from tests.doubles.clock import FakeClock
from tests.worker.environment import settings
from tests.worker.test_engine import RecordingHandler, all_due
from tests.worker.test_health import get, serving
from tests.worker.waiting import eventually_equals
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
                await eventually_equals((200, {"status": "ok"}), lambda: get(f"{url}/livez"))
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
    await asyncio.wait_for(cancelled([]), 60)


# A loop is checked by the passes that it ended, not by its starts.


@pytest.mark.req("OPS-01")
async def test_a_loop_without_a_pass_fails_the_check() -> None:
    """Until a pass has ended the check fails, however young the worker; one that ended in an outage does not count."""
    passes = Passes("taking", FakeClock())
    for _ in range(2):
        with pytest.raises(Unavailable, match="the loop taking has ended no pass since the start"):
            await passes.check()
        passes.interrupted()
    passes.passed()
    await passes.check()


@pytest.mark.req("OPS-01")
async def test_a_check_waits_for_the_first_pass() -> None:
    """A check that comes before the end of the first pass waits for it, so that a started worker is ready at once."""
    passes = Passes("taking", SystemClock())
    checking = asyncio.create_task(passes.check())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not checking.done()
    passes.passed()
    await checking


@pytest.mark.req("OPS-01")
async def test_a_late_loop_fails_the_check() -> None:
    """The check fails if the last pass that did its work ended 30 s ago; an outage does not renew it."""
    clock = FakeClock()
    passes = Passes("outbox", clock)
    passes.passed()
    clock.elapsed += LATE_SECONDS - 0.1
    passes.interrupted()
    await passes.check()
    clock.elapsed += 0.1
    with pytest.raises(Unavailable, match="the loop outbox has ended no pass for 30 s"):
        await passes.check()
    passes.passed()
    await passes.check()


# The lag of the event loop.


class LateClock(FakeClock):
    """Oversleeps by the given times in turn, and then sleeps for ever."""

    def __init__(self, *late: float) -> None:
        super().__init__()
        self._late = list(late)
        self.overslept = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        if not self._late:
            self.overslept.set()
            await asyncio.Event().wait()
        await super().sleep(seconds + self._late.pop(0))


async def lag(*late: float) -> float:
    """Return the reported lag after these delays."""
    clock = LateClock(*late)
    pulse = Pulse(clock)
    task = asyncio.create_task(pulse.run())
    await asyncio.wait_for(clock.overslept.wait(), 60)
    await cancelled([task])
    return pulse.lag_seconds


async def test_the_longest_delay_of_half_a_minute_is_reported() -> None:
    """The lag is the longest delay of a sleep within the last half minute; waking early is no lag."""
    assert [0.0, 2.0, 2.0, 0.25, 0.0] == [
        await lag(),
        await lag(0.25, 2.0, 0.5),
        await lag(2.0, *[0.25] * 59),
        await lag(2.0, *[0.25] * 60),
        await lag(-0.25),
    ]


# The begin and the end of an outage are logged once each.


def test_an_outage_and_its_end_are_logged_once() -> None:
    """Repeated failures for the same reason are logged once, and so is the end of the outage."""
    with structlog.testing.capture_logs() as logs:
        outage = Outage("loop", structlog.get_logger())
        lasting = []
        for error in (
            None,
            Unavailable("a"),
            Unavailable("a"),
            Unavailable("b"),
            Unavailable("a"),
            KeyError("x"),
            KeyError("y"),
            None,
            None,
        ):
            with outage.survived():
                if error is not None:
                    raise error
            lasting.append(outage.lasts)

    assert ["loop.failed", "loop.failed", "loop.defect", "loop.resumed"] == [line["event"] for line in logs]
    assert ["a", "b"] == [line["reason"] for line in logs if "reason" in line]
    assert [False, True, True, True, True, True, True, False, False] == lasting


@pytest.mark.parametrize("error", [RedisConnectionError("redis://:hunter2@host"), OSError("x"), TimeoutError()])
def test_redis_errors_become_unavailable(error: Exception) -> None:
    """An error of the Redis client becomes `Unavailable` with the class of the error, without its text."""
    with pytest.raises(Unavailable, match=type(error).__name__) as raised, translate_redis_errors():
        raise error
    assert "hunter2" not in str(raised.value)


# Pauses and calls with a time limit.


async def test_an_event_ends_a_pause() -> None:
    """A pause ends at once with its event, or at its time limit, and returns which it was."""
    event = asyncio.Event()
    assert not await set_within(event, 60, FakeClock())
    asyncio.get_running_loop().call_soon(event.set)
    assert await asyncio.wait_for(set_within(event, 3600, SystemClock()), 60)


async def test_a_pause_ends_in_the_first_turn_of_the_loop() -> None:
    """The caller of a pause continues before anything that becomes ready after the event is set."""
    event = asyncio.Event()
    waiting = asyncio.create_task(set_within(event, 3600, SystemClock()))
    await asyncio.sleep(0)
    event.set()
    await asyncio.sleep(0)

    assert waiting.done()
    assert await waiting


async def test_slow_work_is_cancelled() -> None:
    """Work that exceeds its time limit is cancelled, and a later error of it causes no message."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    go_on = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn() -> None:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            await go_on.wait()
            ended.set()
            raise OSError from None

    with pytest.raises(TimeoutError):
        await at_most(0, stubborn())
    go_on.set()
    await asyncio.wait_for(ended.wait(), 60)
    gc.collect()
    assert [] == complaints


async def test_finished_work_raises_its_error() -> None:
    """Work that ends in time has run, and its error is raised."""

    async def fail() -> None:
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        await at_most(5, fail())
    event = asyncio.Event()

    async def act() -> None:
        event.set()

    await at_most(5, act())
    assert event.is_set()


# Signals that come while a worker ends.


# Prints each action that is set for SIGTERM from the first signal on.
_STOPS = """
import os, signal, sys

set_action = signal.signal

def noting(number, action):
    if number == signal.SIGTERM:
        actions.append(action)
    return set_action(number, action)

signal.signal = noting  # before uvloop is loaded, which keeps the function
import asyncio
import uvloop
from hookseal.worker.stopping import ignore_stop, on_stop

async def until_stop():
    stop = asyncio.Event()
    on_stop(stop.set)
    actions.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    ignore_stop()

actions = []
with asyncio.Runner(loop_factory={"asyncio": None, "uvloop": uvloop.new_event_loop}[sys.argv[1]]) as runner:
    runner.run(until_stop())
os.kill(os.getpid(), signal.SIGTERM)
print(actions)
"""


@pytest.mark.req("DUR-05")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_at_no_moment_of_its_end_a_further_signal_kills_a_worker(loop: str) -> None:
    """From the first SIGTERM on the action is never the default one, with which a second one gives an error."""
    run = subprocess.run([sys.executable, "-c", _STOPS, loop], capture_output=True, text=True, check=False)

    assert (0, "[<Handlers.SIG_IGN: 1>]\n", "") == (run.returncode, run.stdout, run.stderr)


# Sends SIGTERM to a thread that is not the main one while the loop waits. This has the same effect as a signal to the
# main thread in the moment before it begins to wait, which no test can hit.
_SLEEPS = """
import asyncio, signal, sys, threading
import uvloop
from hookseal.worker.stopping import on_stop

async def until_stop():
    stop = asyncio.Event()
    on_stop(stop.set)
    other = threading.Thread(target=threading.Event().wait, daemon=True)
    other.start()
    threading.Timer(0.1, signal.pthread_kill, (other.ident, signal.SIGTERM)).start()
    async with asyncio.timeout(30):
        await stop.wait()

with asyncio.Runner(loop_factory={"asyncio": None, "uvloop": uvloop.new_event_loop}[sys.argv[1]]) as runner:
    runner.run(until_stop())
"""


@pytest.mark.req("DUR-05")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_ends_the_wait_of_the_loop(loop: str) -> None:
    """A stop does not wait until something else happens, for up to five seconds in a parent."""
    run = subprocess.run([sys.executable, "-c", _SLEEPS, loop], capture_output=True, text=True, check=False)

    assert (0, "") == (run.returncode, run.stderr)


async def test_a_loop_that_something_else_cancels_is_a_defect() -> None:
    """A loop that ends before the stop is logged with its name, also if it was cancelled: it is no clean end."""

    async def cut_off() -> None:
        raise asyncio.CancelledError

    with structlog.testing.capture_logs() as lines, pytest.raises(Defect, match="the sweep loop ended by itself"):
        await run_until(asyncio.Event(), [asyncio.create_task(cut_off(), name="sweep")], structlog.get_logger())
    assert [("worker.loop_ended", "sweep")] == [(line["event"], line["loop"]) for line in lines]
