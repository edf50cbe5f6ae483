"""A clock that tests move."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Shows the same time until a test moves it; `sleep` moves it and returns at once."""

    def __init__(self, start: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._start = start
        self.elapsed = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        """Return the wall time."""
        return self._start + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.slept.append(seconds)
        self.elapsed += seconds


class StallingClock(FakeClock):
    """While `stalls` is set, each query moves it by nine seconds, as if the process had stood still in between."""

    def __init__(self, *, stalls: bool = True) -> None:
        super().__init__()
        self.stalls = stalls

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        now = super().monotonic()
        self.elapsed += 9.0 if self.stalls else 0.0
        return now
