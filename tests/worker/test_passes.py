"""A loop is checked by the passes that it ended, not by its starts."""

import asyncio

import pytest

from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.worker.passes import LATE_SECONDS, Passes
from tests.doubles.clock import FakeClock

pytestmark = pytest.mark.req("OPS-01")


async def test_a_loop_without_a_pass_fails_the_check() -> None:
    """Until a pass has ended the check fails, however young the worker; one that ended in an outage does not count."""
    passes = Passes("taking", FakeClock())
    for _ in range(2):
        with pytest.raises(Unavailable, match="the loop taking has ended no pass since the start"):
            await passes.check()
        passes.interrupted()
    passes.passed()
    await passes.check()


async def test_a_check_waits_for_the_first_pass() -> None:
    """A check that comes before the end of the first pass waits for it, so that a started worker is ready at once."""
    passes = Passes("taking", SystemClock())
    checking = asyncio.create_task(passes.check())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not checking.done()
    passes.passed()
    await checking


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
