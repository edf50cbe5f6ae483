"""The lag of the event loop."""

import asyncio

from hookseal.worker.loop_lag import Pulse
from hookseal.worker.run import cancelled
from tests.doubles.clock import FakeClock


class LateClock(FakeClock):
    """Oversleeps by the given times in turn, and then sleeps for ever."""

    def __init__(self, *late: float) -> None:
        super().__init__()
        self._late = list(late)
        self.overslept = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep too long."""
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
