"""A clock that tests move."""

import asyncio
from datetime import UTC, datetime, timedelta

from tests.worker.waiting import eventually


class FakeClock:
    """Shows the same time until a test moves it; `sleep` moves it and returns at once."""

    def __init__(self, start: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._start = start
        self.elapsed = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.elapsed += seconds


class StallingClock(FakeClock):
    """While `stalls` is set, each query moves it by so many seconds, as if the process had stood still in between."""

    def __init__(self, *, stalls: bool = True, seconds: float = 9.0) -> None:
        super().__init__()
        self.stalls = stalls
        self._seconds = seconds

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        now = super().monotonic()
        self.elapsed += self._seconds if self.stalls else 0.0
        return now


class TurningClock(FakeClock):
    """Its sleepers sleep until the test wakes them, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await self._turns.acquire()

    async def asleep(self, times: int) -> None:
        """Return when its sleepers have fallen asleep that many times."""
        await eventually(lambda: len(self.slept) == times)

    async def turn(self) -> None:
        """Wake a sleeper, and return when one has fallen asleep again."""
        slept = len(self.slept)
        self._turns.release()
        await self.asleep(slept + 1)


class EndingClock(FakeClock):
    """Ends its caller, as a cancellation does, in place of its last pause."""

    def __init__(self, pauses: int = 0) -> None:
        super().__init__()
        self.pauses = pauses

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        if len(self.slept) == self.pauses:
            raise asyncio.CancelledError
