"""The deadlines of requests, which share timers: `asyncio.timeout` would need one timer for each request.

Nearly all requests end long before their deadline. Only a request that still runs when the last 0.1 s begin gets a
timer of its own.
"""

import asyncio
from types import TracebackType
from typing import Final

MOMENT_SECONDS: Final = 0.1


class Deadlines:
    """The deadlines of one event loop. Deadlines in the same 0.1 s share a timer, which is never cancelled."""

    def __init__(self) -> None:
        self._waiting: dict[int, set[Deadline]] = {}

    def at(self, when: float) -> "Deadline":
        """Return a block that is cancelled at this time of the event loop."""
        return Deadline(self, when)

    def add(self, deadline: "Deadline") -> set["Deadline"]:
        """Add a deadline; return the set of its 0.1 s, from which the deadline must be removed when its block ends."""
        moment = int(deadline.when / MOMENT_SECONDS)
        together = self._waiting.get(moment)
        if together is None:
            together = self._waiting[moment] = set()
            asyncio.get_running_loop().call_at(moment * MOMENT_SECONDS, self._begin, moment)
        together.add(deadline)
        return together

    def _begin(self, moment: int) -> None:
        for each in self._waiting.pop(moment):
            each.set_timer()


class Deadline:
    """A block of the current task that raises `TimeoutError` at its time, as `asyncio.timeout_at` does."""

    __slots__ = ("_all", "_cancelling", "_is_over", "_task", "_timer", "_together", "when")

    def __init__(self, deadlines: Deadlines, when: float) -> None:
        self._all = deadlines
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self.when = when

    def set_timer(self) -> None:
        """Set a timer that cancels the task at the deadline."""
        self._timer = asyncio.get_running_loop().call_at(self.when, self._cancel)

    def _cancel(self) -> None:
        self._is_over = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine runs in one
        self._task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._together = self._all.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._together.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        # If the task was also cancelled from elsewhere, that cancellation continues.
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
