"""Runs the loop that takes rings, and the handler; starts each again when it ends, as when Redis fails."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Coroutine, Sequence
from typing import Any, Final, TypeAlias

from hookseal.dispatcher.core.model import Ring
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock
from hookseal.ground.log import why
from hookseal.queue.bell import Bell
from hookseal.queue.intake import Intake
from hookseal.queue.rings import translate_redis_errors
from hookseal.worker.periodic import Passes, at_most
from hookseal.worker.ring_handler import MOST_AT_ONCE, RingHandler

WAIT_SECONDS: Final = 1.0  # how long one look waits for a ring
_FIRST_WAIT_SECONDS: Final = 0.001


# Runs the loop that takes rings from this bell, and raises what the loop raises: arq's worker, or nothing around it.
Shell: TypeAlias = Callable[[Bell, Callable[[], Awaitable[None]]], Coroutine[object, object, None]]


async def without_arq(_bell: Bell, loop: Callable[[], Awaitable[None]]) -> None:
    """Run the loop with nothing around it (see `Shell`)."""
    await loop()


class Taker:
    """Takes rings until `stop`. `run` raises any error that ends the loop, for instance an outage of Redis."""

    def __init__(self, bell: Bell, handler: RingHandler, *, passed: Callable[[], None]) -> None:
        """Prepare the loop. `passed` is called at the end of each of its turns."""
        self._stop = asyncio.Event()
        self._intake = Intake(bell)
        self._handler = handler
        self._passed = passed

    def stop(self) -> None:
        """Make `run` return after the current look."""
        self._stop.set()

    async def run(self) -> None:
        """Take rings and pass them to the handler while it has space for them, until `stop`."""
        seconds = _FIRST_WAIT_SECONDS  # rings may be there whose bell has rung for a worker that ended
        while not self._stop.is_set():
            if self._handler.is_down:  # PostgreSQL does not answer: other workers may take the rings in the queue
                await self._handler.pause(WAIT_SECONDS)
            elif space := min(self._handler.space, MOST_AT_ONCE):
                self._handler.add(await self._rings(space, seconds))
                seconds = WAIT_SECONDS
                await asyncio.sleep(0)  # noqa: TID251 -- a turn of the event loop: first the claim, then the next look
            else:
                await self._handler.wait_for_space()
            self._passed()

    async def _rings(self, most: int, seconds: float) -> list[Ring]:
        """Return rings of the queue; wait for a first one for so long."""
        taken = await self._intake.take(most, seconds)
        for dropped in taken.dropped:
            self._handler.drop(dropped)
        return taken.rings


_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_STOP_SECONDS: Final = WAIT_SECONDS + 5.0  # for a look at the queue and a claim
_GOODBYE_SECONDS: Final = 1.0


class Engine:
    """Two loops: one takes rings out of the queue, the other handles those whose turn it is.

    `due` returns the ids of the deliveries that are due, of those that rings name. The first loop runs in `shell`.
    """

    def __init__(
        self,
        bell: Bell,
        handler: RingHandler,
        *,
        due: Callable[[Sequence[Ring]], Coroutine[object, object, Container[str]]],
        clock: Clock,
        log: Any,
        shell: Shell = without_arq,
    ) -> None:
        self._bell = bell
        self._handler = handler
        self._due = due
        self._clock = clock
        self._log = log
        self._stop = asyncio.Event()
        self.taking, self.handling = Passes("taking", clock), Passes("handling", clock)
        self._shell = shell
        self._taker = Taker(bell, handler, passed=self.taking.passed)
        self._taker_task: asyncio.Task[None] | None = None
        self._handler_task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Take and handle rings until `stop`. A loop that ends is started again after a short pause."""
        if not self._stop.is_set():
            await asyncio.gather(
                self._kept_running(self.taking, self._take), self._kept_running(self.handling, self._handle)
            )

    async def stop(self) -> None:
        """Take no more rings, and return once the current claim has ended. Kept rings that are due are rung again."""
        self._stop.set()
        self._taker.stop()
        self._handler.wake_up()
        tasks = {task for task in (self._taker_task, self._handler_task) if task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_GOODBYE_SECONDS)
        if rings := self._handler.leave():
            await self._ring_again(rings)

    async def _take(self) -> None:
        with translate_redis_errors():
            self._taker_task = asyncio.ensure_future(self._shell(self._bell, self._taker.run))
            await self._taker_task

    async def _handle(self) -> None:
        self._handler_task = asyncio.ensure_future(self._handler.run(self.handling, self._stop))
        try:
            await asyncio.shield(self._handler_task)
        except asyncio.CancelledError:
            self._handler_task.cancel()
            await asyncio.wait({self._handler_task})
            raise

    async def _kept_running(self, passes: Passes, loop: Callable[[], Awaitable[None]]) -> None:
        """Run the loop until `stop`, and start it again whenever it ends. A start alone is no pass."""
        pause, logged = _FIRST_PAUSE_SECONDS, ""
        while not self._stop.is_set():
            started_at = self._clock.monotonic()
            try:
                await loop()
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
            except Exception as error:  # noqa: BLE001 -- whatever ended it, it is started again
                if isinstance(error, Unavailable):
                    passes.interrupted()
                facts = why(error)
                if facts["reason"] != logged or passes.passed_at > started_at:  # once for each outage
                    self._log.warning("engine.restarted", loop=passes.name, **facts)
                logged = facts["reason"]
            ran_seconds = self._clock.monotonic() - started_at
            pause = (
                _FIRST_PAUSE_SECONDS if ran_seconds > _LONGEST_PAUSE_SECONDS else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            )
            if not self._stop.is_set():
                await self._clock.sleep(pause)

    async def _ring_again(self, rings: list[Ring]) -> None:
        """Ring for other workers what is still due. If Redis does not accept them now, the sweep rings them."""
        try:
            if still_due := await self._still_due(rings):
                await at_most(_GOODBYE_SECONDS, self._bell.ring(still_due))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the requests in flight are to end
            self._log.warning("rings.left", rings=len(rings), **why(error))

    async def _still_due(self, rings: list[Ring]) -> list[Ring]:
        """Return the rings whose deliveries are due, or all if PostgreSQL does not say which in time.

        Other workers may have sent some of them: a ring for these would stay in Redis until a worker comes.
        """
        try:
            due = await at_most(_GOODBYE_SECONDS, self._due(rings))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the requests in flight are to end
            self._log.warning("rings.unknown", rings=len(rings), **why(error))
            return rings
        return [each for each in rings if each.delivery_id in due]
