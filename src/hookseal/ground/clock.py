"""Time as a parameter: code that needs the time takes a `Clock`, so that tests can move it and never sleep."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What code may need of time."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC. For timestamps only, never for durations."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never step back. For durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once that many seconds have passed."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never step back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return once that many seconds have passed."""
        await asyncio.sleep(seconds)
