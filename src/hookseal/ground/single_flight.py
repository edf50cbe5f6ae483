"""Single-flight: concurrent requests for the same thing share one request and its outcome."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Answer = TypeVar("_Answer")


class SingleFlight(Generic[_Key, _Answer]):
    """The requests under way. Each is a task of its own: a caller that waits for it may leave without ending it."""

    def __init__(self) -> None:
        self._joinable: dict[_Key, asyncio.Task[_Answer]] = {}
        self._running: set[asyncio.Task[_Answer]] = set()  # the loop itself holds tasks weakly

    def join(self, key: _Key, begin: Callable[[], Coroutine[Any, Any, _Answer]]) -> tuple[asyncio.Task[_Answer], bool]:
        """Return the request for this key that is under way, or a new one, and whether it is new.

        Wait for it with `asyncio.wait`, which does not pass a cancellation on.
        """
        flight = self._joinable.get(key)
        if flight is not None:
            return flight, False
        flight = asyncio.create_task(begin())
        self._joinable[key] = flight
        self._running.add(flight)
        flight.add_done_callback(partial(self._ended, key))
        return flight, True

    def has(self, key: _Key) -> bool:
        """Return whether a request for this key is under way that may be joined."""
        return key in self._joinable

    @property
    def under_way(self) -> int:
        """How many have been begun and have not ended, those that were forgotten too."""
        return len(self._running)

    def forget(self) -> None:
        """Let no later caller join a running request: the next caller begins a new one."""
        self._joinable.clear()

    def _ended(self, key: _Key, flight: asyncio.Task[_Answer]) -> None:
        self._running.discard(flight)
        if self._joinable.get(key) is flight:
            del self._joinable[key]
        if not flight.cancelled():
            flight.exception()  # seen, even if everybody who waited has left
