"""Time as a parameter: code that needs the time takes a `Clock`, so that tests can move it and never sleep."""

import asyncio
import time
from collections.abc import Awaitable, Callable
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
