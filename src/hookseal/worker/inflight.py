"""The requests in flight: tasks of ours, bounded in number and in bytes, that nothing of arq touches."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hookseal.ground.wire import MAX_BODY_BYTES

MOST_BYTES = 33_554_432  # of bodies


class InFlight:
    """At most `limit` deliveries, and `most_bytes` of their bodies, at once.

    Slots are taken before a claim, so that a worker claims only what can start at once.
    """

    def __init__(self, limit: int, *, most_bytes: int = MOST_BYTES) -> None:
        self.limit = limit
        self.is_closed = False
        self._taken = 0
        self._bytes_room = most_bytes
        self._room = asyncio.Event()
        self._room.set()
        self._waking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def room(self) -> int:
        """How many slots are to be had now; none while no body of the largest size would fit, and in a rest."""
        return 0 if self.is_resting or self._bytes_room < MAX_BODY_BYTES else self.limit - self._taken

    @property
    def is_resting(self) -> bool:
        """Whether nothing begins for a while."""
        return self._waking is not None

    def rest(self, seconds: float) -> None:
        """Give no slot for so long; what is in flight goes on."""
        if not self.is_closed and self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._waking = None
        self._room.set()

    @property
    def bytes_room(self) -> int:
        """How many bytes of bodies still fit."""
        return self._bytes_room

    def close(self) -> None:
        """Begin nothing from now on; what waits for room goes on and sees `is_closed`."""
        self.is_closed = True
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        self._room.set()

    async def wait_for_room(self, seconds: float) -> None:
        """Return once there is room, `close` was called, or the time is over."""
        if self.room or self.is_closed:
            return
        self._room.clear()
        await asyncio.wait({task := asyncio.ensure_future(self._room.wait())}, timeout=seconds)
        task.cancel()

    def take(self, slots: int) -> None:
        """Take slots, which must be free, for what is claimed next."""
        self._taken += slots

    def hold(self, size: int) -> None:
        """Count the bytes of a body that was claimed."""
        self._bytes_room -= size

    def free(self, slots: int, size: int = 0) -> None:
        """Give slots, and the bytes of their bodies, back."""
        self._taken -= slots
        self._bytes_room += size
        self._room.set()

    def start(self, work: Coroutine[Any, Any, None], size: int = 0) -> None:
        """Run the work in a task that owns one taken slot and so many held bytes, and gives them back at its end.

        The work must report its own errors: nothing awaits it.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, size))

    async def drain(self, seconds: float) -> int:
        """Wait for all that is in flight; after `seconds` cut the rest off and wait for it to write its outcome.

        Return how many were cut off.
        """
        late = await self._wait(seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return len(late)

    async def _wait(self, seconds: float) -> set[asyncio.Task[None]]:
        """Return what has not ended in time; what starts meanwhile counts too."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._tasks and loop.time() < until:
            await asyncio.wait(self._tasks, timeout=until - loop.time())
        return set(self._tasks)

    def _ended(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.discard(task)
        self.free(1, size)
