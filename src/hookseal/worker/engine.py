"""Runs arq's worker, tuned, and makes a new one whenever it dies (Redis went away)."""

import asyncio
from typing import Any, Final, cast

from arq.typing import WorkerCoroutine
from arq.worker import func

from hookseal.ground.clock import Clock
from hookseal.queue.bell import FUNCTION, Bell
from hookseal.queue.serializer import job_deserializer, job_serializer
from hookseal.queue.taking import Taking
from hookseal.worker.inflight import InFlight
from hookseal.worker.rings import RingWorker
from hookseal.worker.tasks import JOB_SECONDS, Answering

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 6.0
_ROUND_SECONDS: Final = 1.0  # a round of taking that is not over by then hangs


class Engine:
    """The loop that takes rings. `beat` is the monotonic time at which it last moved, with or without a ring."""

    def __init__(
        self,
        bell: Bell,
        queue: str,
        answering: Answering,
        in_flight: InFlight,
        *,
        clock: Clock,
        log: Any,
    ) -> None:
        self._bell = bell
        self._taking = Taking(bell.redis, queue)
        self._queue = queue
        self._answering = answering
        self._in_flight = in_flight
        self._clock = clock
        self._log = log
        self._stopping = False
        self._worker: RingWorker | None = None
        self.beat = clock.monotonic()

    async def run(self) -> None:
        """Take rings until `stop`; a worker of arq that dies is replaced after a short pause."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping:
            self._worker = self._new_worker()
            born = self.beat = self._clock.monotonic()
            try:
                await self._worker.async_run()
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
            except Exception as error:  # noqa: BLE001 -- whatever killed it, the next one must live
                self._log.warning("engine.restarted", reason=type(error).__name__)
            finally:
                await _settle(self._worker)
            lived = self._clock.monotonic() - born
            pause = _FIRST_PAUSE_SECONDS if lived > _LONGEST_PAUSE_SECONDS else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            if not self._stopping:
                await self._clock.sleep(pause)

    async def stop(self) -> None:
        """Take no more rings; return once the jobs at hand have claimed or given up. No job begins afterwards."""
        self._stopping = True
        worker = self._worker
        if worker is not None and worker.main_task is not None:
            worker.max_jobs = 0  # ends the round that runs now, too, and leaves no ring half taken
            await asyncio.wait({worker.main_task}, timeout=_ROUND_SECONDS)
            worker.main_task.cancel()
            await asyncio.wait({worker.main_task}, timeout=_ROUND_SECONDS)
            await _settle(worker)

    def _new_worker(self) -> RingWorker:
        return RingWorker(
            taking=self._taking,
            deliver=self._answering.deliver,
            beaten=self._beaten,
            dropped=self._answering.drop,
            functions=[func(cast("WorkerCoroutine", self._answering.deliver), name=FUNCTION)],
            queue_name=self._queue,
            redis_pool=self._bell.redis,
            handle_signals=False,
            max_jobs=min(self._in_flight.limit, 100),
            poll_delay=0.02,
            job_timeout=JOB_SECONDS,
            job_serializer=job_serializer,
            job_deserializer=job_deserializer,
        )

    def _beaten(self) -> None:
        self.beat = self._clock.monotonic()
        if self._in_flight.is_full:  # what is due waits for room, not for the queue
            self._answering.movement.moved()
        if self._worker is not None:
            self._worker.allow_pick_jobs = not self._in_flight.is_full
            if self._stopping and self._worker.main_task is not None:
                self._worker.main_task.cancel()


async def _settle(worker: RingWorker) -> None:
    """Wait, boundedly, for the jobs of a worker that takes no more. Their errors were told by the jobs."""
    tasks = list(worker.tasks.values())
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
