"""Runs the worker that takes rings, and makes a new one whenever it dies (Redis went away)."""

import asyncio
from typing import Any, Final

from hookseal.dispatcher.model import Ring
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.queue.bell import Bell
from hookseal.worker.arq_worker import WAIT_SECONDS, ArqWorker
from hookseal.worker.inflight import InFlight
from hookseal.worker.pause import at_most
from hookseal.worker.ring_handler import RingHandler

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_STOP_SECONDS: Final = WAIT_SECONDS + 5.0  # a look at the queue and a claim
_GOODBYE_SECONDS: Final = 1.0


class Engine:
    """The loop that takes rings. `beat` is the monotonic time at which it last moved."""

    def __init__(self, bell: Bell, handler: RingHandler, in_flight: InFlight, *, clock: Clock, log: Any) -> None:
        self._bell = bell
        self._handler = handler
        self._in_flight = in_flight
        self._clock = clock
        self._log = log
        self._is_stopping = False
        self._worker = self._new_worker()
        self.beat = clock.monotonic()

    async def run(self) -> None:
        """Take rings until `stop`; a worker that dies is replaced after a short pause."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._is_stopping:
            born = self.beat = self._clock.monotonic()
            try:
                await self._worker.async_run()
            except asyncio.CancelledError:
                if not self._is_stopping:
                    raise
            except Exception as error:  # noqa: BLE001 -- whatever ended it, the next one must live
                self._log.warning("engine.restarted", reason=type(error).__name__)
                self._worker = self._new_worker()
            lived = self._clock.monotonic() - born
            pause = _FIRST_PAUSE_SECONDS if lived > _LONGEST_PAUSE_SECONDS else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            if not self._is_stopping:
                await self._clock.sleep(pause)

    async def stop(self) -> None:
        """Take no more rings; return once the claim at hand has ended. What was taken in vain is rung again."""
        self._is_stopping = True
        self._worker.stop()
        task = self._worker.main_task
        if task is not None:
            await asyncio.wait({task}, timeout=_STOP_SECONDS)
            task.cancel()
            await asyncio.wait({task}, timeout=_GOODBYE_SECONDS)
        left = self._handler.leave()
        if left:
            await self._ring_again(left)

    async def _ring_again(self, rings: list[Ring]) -> None:
        """Leave the rings to other workers. If Redis does not take them now, the sweep does it."""
        try:
            await at_most(_GOODBYE_SECONDS, self._bell.ring(rings))
        except (TimeoutError, Unavailable) as error:
            self._log.warning("rings.left", rings=len(rings), reason=type(error).__name__)

    def _new_worker(self) -> ArqWorker:
        return ArqWorker(self._bell, self._handler, self._in_flight, moved=self._moved)

    def _moved(self) -> None:
        self.beat = self._clock.monotonic()
