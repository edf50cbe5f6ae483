"""A worker of arq with another loop, which takes many rings at once and passes them on; it runs nothing itself.

The loop of arq asks Redis 16 times for each job. The keys, the format of jobs and `enqueue_job` are those of arq.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from arq.typing import WorkerCoroutine
from arq.worker import Worker, func

from hookseal.dispatcher.model import Ring
from hookseal.queue.bell import Bell
from hookseal.queue.intake import Intake
from hookseal.queue.rings import FUNCTION
from hookseal.queue.serializer import job_deserializer, job_serializer
from hookseal.worker.ring_handler import MOST_AT_ONCE, RingHandler

WAIT_SECONDS: Final = 1.0  # how long one look waits for a ring
_FIRST_WAIT_SECONDS: Final = 0.001


class ArqWorker(Worker):
    """Takes rings until `stop`. `main` raises any error that ends its loop, for instance an outage of Redis."""

    def __init__(
        self,
        bell: Bell,
        handler: RingHandler,
        *,
        passed: Callable[[], None],
    ) -> None:
        """Prepare the worker. `passed` is called at the end of every turn of the loop."""
        super().__init__(
            functions=[func(cast("WorkerCoroutine", _never_run), name=FUNCTION)],
            queue_name=bell.queue,
            redis_pool=bell.redis,
            handle_signals=False,
            job_serializer=job_serializer,
            job_deserializer=job_deserializer,
        )
        self._stop = asyncio.Event()
        self._intake = Intake(bell)
        self._handler = handler
        self._passed = passed

    def stop(self) -> None:
        """Make `main` return after the current look."""
        self._stop.set()

    async def main(self) -> None:
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


async def _never_run(_ctx: dict[Any, Any], *_arguments: Any) -> None:
    """Fill the list of functions that arq requires. It is never called, because the loop of arq does not run."""
