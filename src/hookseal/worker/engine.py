"""Runs the arq worker that takes rings, and the handler; starts each again when it ends, as when Redis fails."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Coroutine, Sequence
from typing import Any, Final

from hookseal.dispatcher.model import Ring
from hookseal.ground.clock import Clock
from hookseal.queue.bell import Bell
from hookseal.worker.arq_worker import WAIT_SECONDS, ArqWorker
from hookseal.worker.ring_handler import RingHandler
from hookseal.worker.timeouts import at_most

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_STOP_SECONDS: Final = WAIT_SECONDS + 5.0  # for a look at the queue and a claim
_GOODBYE_SECONDS: Final = 1.0


class Engine:
    """Two loops: one takes rings out of the queue, the other handles those whose turn it is.

    `due` returns the ids of the deliveries that are due, of those that rings name.
    """

    def __init__(
        self,
        bell: Bell,
        handler: RingHandler,
        *,
        due: Callable[[Sequence[Ring]], Coroutine[object, object, Container[str]]],
        clock: Clock,
        log: Any,
    ) -> None:
        self._bell = bell
        self._handler = handler
        self._due = due
        self._clock = clock
        self._log = log
        self._stop = asyncio.Event()
        self._worker = self._new_worker()
        self._handling: asyncio.Task[None] | None = None
        self._beats = {"taking": clock.monotonic(), "handling": clock.monotonic()}

    @property
    def beat(self) -> float:
        """The monotonic time of the last turn of the loop whose last turn is longer ago."""
        return min(self._beats.values())

    async def run(self) -> None:
        """Take and handle rings until `stop`. A loop that ends is started again after a short pause."""
        if not self._stop.is_set():
            await asyncio.gather(self._kept_running("taking", self._take), self._kept_running("handling", self._handle))

    async def stop(self) -> None:
        """Take no more rings, and return once the current claim has ended. Kept rings that are due are rung again."""
        self._stop.set()
        self._worker.stop()
        self._handler.wake_up()
        tasks = {task for task in (self._worker.main_task, self._handling) if task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_GOODBYE_SECONDS)
        left = self._handler.leave()
        if left:
            await self._ring_again(left)

    async def _take(self) -> None:
        try:
            await self._worker.async_run()
        except Exception:
            self._worker = self._new_worker()
            raise

    async def _handle(self) -> None:
        self._handling = asyncio.ensure_future(self._handler.run(lambda: self._moved("handling"), self._stop))
        try:
            await asyncio.shield(self._handling)
        except asyncio.CancelledError:
            self._handling.cancel()
            await asyncio.wait({self._handling})
            raise

    async def _kept_running(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run the loop until `stop`, and start it again whenever it ends."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            started_at = self._clock.monotonic()
            self._moved(name)
            try:
                await loop()
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
            except Exception as error:  # noqa: BLE001 -- whatever ended it, it is started again
                self._log.warning("engine.restarted", loop=name, reason=type(error).__name__)
            ran_seconds = self._clock.monotonic() - started_at
            pause = (
                _FIRST_PAUSE_SECONDS if ran_seconds > _LONGEST_PAUSE_SECONDS else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            )
            if not self._stop.is_set():
                await self._clock.sleep(pause)

    async def _ring_again(self, rings: list[Ring]) -> None:
        """Ring those that are still due for other workers. If Redis does not accept them now, the sweep rings them."""
        try:
            if wanted := await self._still_due(rings):
                await at_most(_GOODBYE_SECONDS, self._bell.ring(wanted))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the requests in flight are to end
            self._log.warning("rings.left", rings=len(rings), reason=type(error).__name__)

    async def _still_due(self, rings: list[Ring]) -> list[Ring]:
        """Return the rings whose deliveries are due, or all if PostgreSQL does not say which in time.

        Other workers may have sent some of them: a ring for these would stay in Redis until a worker comes.
        """
        try:
            due = await at_most(_GOODBYE_SECONDS, self._due(rings))
        except Exception as error:  # noqa: BLE001 -- the same
            self._log.warning("rings.unknown", rings=len(rings), reason=type(error).__name__)
            return rings
        return [each for each in rings if each.delivery_id in due]

    def _new_worker(self) -> ArqWorker:
        return ArqWorker(self._bell, self._handler, moved=lambda: self._moved("taking"))

    def _moved(self, name: str) -> None:
        self._beats[name] = self._clock.monotonic()
