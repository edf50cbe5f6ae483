"""The requests in flight: tasks of ours, bounded, that no death or time-out of arq touches."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class InFlight:
    """At most `limit` deliveries at once. A slot is taken before a claim, so that a full worker claims nothing."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.is_closed = False
        self._slots = asyncio.Semaphore(limit)
        self._rested = asyncio.Event()
        self._rested.set()
        self._waking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def is_full(self) -> bool:
        """Whether no slot is to be had now."""
        return self.is_resting or self._slots.locked()

    @property
    def is_resting(self) -> bool:
        """Whether nothing begins for a while."""
        return not self._rested.is_set()

    def rest(self, seconds: float) -> None:
        """Have no slot given for so long; what is in flight goes on."""
        if not self.is_closed:
            self._rested.clear()
            self._waking = asyncio.get_running_loop().call_later(seconds, self._rested.set)

    def close(self) -> None:
        """Have nothing started from now on: who waits for a slot is given one, sees `is_closed` and frees it."""
        self.is_closed = True
        self._rested.set()
        if self._waking is not None:
            self._waking.cancel()
        self._slots.release()

    async def slot(self) -> None:
        """Return once a slot is ours; give it to `start` or back with `free`."""
        await self._rested.wait()
        await self._slots.acquire()

    def free(self) -> None:
        """Give a slot back that was not used."""
        self._slots.release()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work in a task that owns the caller's slot and gives it back at its end.

        The work must tell its own errors: nobody awaits it.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def drain(self, seconds: float) -> int:
        """Wait for all that is in flight; after `seconds` cut the rest off and wait for it to tell the ledger.

        Return how many were cut off.
        """
        if not self._tasks:
            return 0
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return len(late)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
