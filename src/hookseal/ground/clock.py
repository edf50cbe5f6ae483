"""Time as a parameter: code that needs the time takes a `Clock`, so that tests can move it and never sleep."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol, TypeAlias, TypeVar


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


class Stopwatch:
    """Adds up how long something took, what runs now included; what runs at the same time counts once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended = 0.0
        self._running = 0
        self._since = 0.0

    @property
    def seconds(self) -> float:
        """The seconds until now in which at least one ran."""
        return self._ended + (self._clock.monotonic() - self._since if self._running else 0.0)

    @contextmanager
    def timed(self, ended: Callable[[float], object] = lambda _seconds: None) -> Iterator[None]:
        """Count the time of the block, and pass its seconds to `ended`, also if it raises."""
        began_at = self._clock.monotonic()
        if not self._running:
            self._since = began_at
        self._running += 1
        try:
            yield
        finally:
            now = self._clock.monotonic()
            self._running -= 1
            if not self._running:
                self._ended += now - self._since
            ended(now - began_at)


_Answer = TypeVar("_Answer")
Retrying: TypeAlias = Callable[[Callable[[], Awaitable[_Answer]]], Awaitable[_Answer]]


async def retried(
    call: Callable[[], Awaitable[_Answer]], *, on: type[Exception], retrying: Callable[[], Retrying[_Answer]]
) -> _Answer:
    """Return the result of `call`; if it raises `on`, repeat it by `retrying()`, for which this is the first try.

    `retrying` returns an `AsyncRetrying` of tenacity. It must retry `on`, and have a deadline of its own, because the
    clock of tenacity begins after the first try. Each of them leaves 26 objects in reference cycles, which only the
    garbage collector frees. Nearly every call succeeds at once, and then needs none of them.
    """
    try:
        return await call()
    except on as error:
        failed = [error]

    async def again() -> _Answer:  # tenacity awaits only functions that are declared async
        if failed:
            raise failed.pop()
        return await call()

    return await retrying()(again)
