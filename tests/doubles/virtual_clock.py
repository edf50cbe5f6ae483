"""A clock for several loops at once: when all of them sleep, it moves to the time at which the next one wakes up."""

import asyncio
import heapq
from itertools import count

from tests.doubles.clock import FakeClock


class VirtualClock(FakeClock):
    """`run` moves it. Between two sleeps a loop may wait for real servers: the time stands still meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = count()
        self._changed = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep until the clock has moved so far."""
        sleeper = (self.elapsed + seconds, next(self._order), asyncio.Event())
        heapq.heappush(self._sleepers, sleeper)
        self._changed.set()
        try:
            await sleeper[2].wait()
        finally:
            if sleeper in self._sleepers:  # it was cancelled
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    async def run(self, seconds: float, *, sleepers: int) -> None:
        """Move the clock so far. It moves whenever so many loops sleep."""
        until = self.elapsed + seconds
        while True:
            while len(self._sleepers) < sleepers:
                self._changed.clear()
                await self._changed.wait()
            if self._sleepers[0][0] > until:
                self.elapsed = until
                return
            self.elapsed, _, woken = heapq.heappop(self._sleepers)
            woken.set()
