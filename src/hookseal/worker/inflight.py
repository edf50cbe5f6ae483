"""The requests in flight and the outcomes to record: tasks bounded in number and in bytes, and independent of arq."""

import asyncio
import heapq
from collections.abc import Coroutine, Iterable
from itertools import count
from typing import Any, cast

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.wire import MAX_BODY_BYTES

MOST_BYTES = 33_554_432  # of bodies


class InFlight:
    """At most `limit` requests; with the outcomes to record, at most twice `limit`, and `most_bytes` of their bodies.

    Slots are taken before a claim, so that a worker claims only deliveries that can start immediately. A request gives
    its slot back when it is answered, unless `limit` outcomes are being recorded: PostgreSQL and the receivers work at
    the same time, and a slow PostgreSQL stops the worker.
    """

    def __init__(self, limit: int, *, most_bytes: int = MOST_BYTES) -> None:
        self.limit = limit
        self.is_closed = False
        self.most_bytes = most_bytes
        self._taken = 0
        self._bytes_room = most_bytes
        self._awaited_slots = 1
        self._room = asyncio.Event()
        self._room.set()
        self._waking: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._begun: set[asyncio.Task[Any]] = set()
        self._answered: set[asyncio.Task[Any]] = set()
        self._cut_off: int | None = None  # how many tasks `drain` has cancelled; None before that

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def room(self) -> int:
        """How many deliveries may be claimed now: each has a slot, and fits even with a body of the largest size.

        It is 0 after `close`.
        """
        return 0 if self.is_closed else min(self.slots, self._bytes_room // MAX_BODY_BYTES)

    @property
    def slots(self) -> int:
        """How many slots are free. It is 0 if a body of the largest size would not fit, and during a rest."""
        if self.is_resting or not self.has_bytes:
            return 0
        return self.limit - self.used_slots

    @property
    def used_slots(self) -> int:
        """How many slots are taken: by claims, requests, and outcomes of which `limit` others are being recorded."""
        return self._taken - min(len(self._answered), self.limit)

    @property
    def records_late(self) -> bool:
        """Whether so many outcomes are being recorded that an answered request keeps its slot."""
        return len(self._answered) >= self.limit

    @property
    def is_resting(self) -> bool:
        """Whether nothing begins for a while."""
        return self._waking is not None

    def rest(self, seconds: float) -> None:
        """Give no slots for `seconds`. Requests in flight continue."""
        if not self.is_closed and self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._waking = None
        self._room.set()

    @property
    def bytes_room(self) -> int:
        """How many bytes of bodies still fit."""
        return self._bytes_room

    @property
    def has_bytes(self) -> bool:
        """Whether a body of the largest size still fits."""
        return self._bytes_room >= MAX_BODY_BYTES

    def close(self) -> None:
        """Begin nothing from now on. Callers of `wait_for_room` return and see `is_closed`."""
        self.is_closed = True
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        self._room.set()

    async def wait_for_room(self, seconds: float, slots: int = 1) -> None:
        """Return once `slots` are free, `close` or `end_wait` was called, or `seconds` have passed."""
        if self.slots >= slots or self.is_closed:
            return
        self._awaited_slots = slots
        self._room.clear()
        await asyncio.wait({task := asyncio.ensure_future(self._room.wait())}, timeout=seconds)
        task.cancel()

    async def gather(self, seconds: float, slots: int) -> None:
        """Wait as `wait_for_room` does, then until all requests that are answered now have given their slots back."""
        await self.wait_for_room(seconds, slots)
        before = -1
        while before < self.slots < slots:
            before = self.slots
            await asyncio.sleep(0)  # noqa: TID251 -- a turn of the event loop, in which no time passes

    def end_wait(self) -> None:
        """Let a caller of `wait_for_room` or `gather` return now."""
        self._room.set()

    def take(self, slots: int) -> None:
        """Take slots, which must be free, for the next claim."""
        self._taken += slots

    def hold(self, size: int) -> None:
        """Count the bytes of a body that was claimed."""
        self._bytes_room -= size

    def free(self, slots: int, size: int = 0) -> None:
        """Give slots and the bytes of their bodies back."""
        self._taken -= slots
        self._bytes_room += size
        self._look_for_room()

    def answered(self) -> None:
        """Give the slot of the current task back: its request was answered, and its outcome is being recorded."""
        if (task := asyncio.current_task()) in self._tasks:
            self._answered.add(task)
            self._look_for_room()

    def start(self, work: Coroutine[Any, Any, None], size: int = 0) -> None:
        """Run the work in a task that owns one slot and `size` bytes, and gives them back when it ends.

        The work must report its own errors, because nothing awaits it.
        """
        self._tasks.add(asyncio.create_task(self._run(work, size)))

    async def drain(self, seconds: float) -> int:
        """Wait for all requests in flight; after `seconds` cancel the rest and wait until their outcomes are recorded.

        Return how many were cancelled.
        """
        late = await self._wait(seconds)
        if not late:
            return 0
        self._cut_off = 0
        for task in late & self._begun:
            self._cut(task)
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        count, self._cut_off = self._cut_off, None
        return count

    def _cut(self, task: "asyncio.Task[Any]") -> None:
        if self._cut_off is not None:
            self._cut_off += 1
            task.cancel()

    async def _run(self, work: Coroutine[Any, Any, None], size: int) -> None:
        """Do the work. A task that had not begun when `drain` cancelled the others begins and is cancelled then.

        A task that is cancelled before it begins could not record its outcome.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._begun.add(task)
        self._cut(task)
        try:
            await work
        finally:
            self._tasks.discard(task)
            self._begun.discard(task)
            self._answered.discard(task)
            self.free(1, size)

    async def _wait(self, seconds: float) -> set[asyncio.Task[Any]]:
        """Return the tasks that have not ended in time, including those that started meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._tasks and loop.time() < until:
            await asyncio.wait(self._tasks, timeout=until - loop.time())
        return set(self._tasks)

    def _look_for_room(self) -> None:
        if not self._room.is_set() and self.slots >= self._awaited_slots:
            self._room.set()


class KeptRings:
    """Rings in the order in which they are due; those of the same time in the order in which they came."""

    def __init__(self) -> None:
        self._rings: list[tuple[float, int, Ring]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._rings)

    @property
    def next_at(self) -> float:
        """When the next ring is due; infinity if none is kept."""
        return self._rings[0][0] if self._rings else float("inf")

    def add(self, rings: Iterable[Ring], due_at: float) -> None:
        """Keep these rings until then."""
        for each in rings:
            heapq.heappush(self._rings, (due_at, next(self._order), each))

    def take_due(self, most: int, now: float) -> list[Ring]:
        """Remove and return at most `most` rings that are due."""
        rings = list[Ring]()
        while len(rings) < most and self.next_at <= now:
            rings.append(heapq.heappop(self._rings)[2])
        return rings

    def take_all(self) -> list[Ring]:
        """Remove and return every ring."""
        rings, self._rings = [each for _, _, each in self._rings], []
        return rings
