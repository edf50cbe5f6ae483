"""arq's worker with a loop of our own: it takes many rings at once and serves `deliver`, nothing else.

arq's own loop asks Redis 16 times for each job. The keys, the form of jobs and `enqueue_job` stay arq's.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from arq.typing import WorkerCoroutine
from arq.worker import Worker, func

from hookseal.dispatcher.model import Ring
from hookseal.queue.bell import FUNCTION, Bell
from hookseal.queue.intake import Intake
from hookseal.queue.serializer import job_deserializer, job_serializer
from hookseal.worker.inflight import InFlight
from hookseal.worker.ring_handler import RingHandler

MOST_AT_ONCE: Final = 128  # rings in one claim
WAIT_SECONDS: Final = 1.0  # how long one look waits for a ring, or for a free slot


class ArqWorker(Worker):
    """Takes rings until `stop`. Whatever ends its loop, an outage of Redis above all, is raised by `main`."""

    def __init__(
        self,
        bell: Bell,
        handler: RingHandler,
        in_flight: InFlight,
        *,
        moved: Callable[[], None],
    ) -> None:
        """Prepare. `moved` is called whenever the loop moves."""
        super().__init__(
            functions=[func(cast("WorkerCoroutine", _never_run), name=FUNCTION)],
            queue_name=bell.queue,
            redis_pool=bell.redis,
            handle_signals=False,
            max_jobs=in_flight.limit,
            job_serializer=job_serializer,
            job_deserializer=job_deserializer,
        )
        self._stop = asyncio.Event()
        self._intake = Intake(bell)
        self._handler = handler
        self._in_flight = in_flight
        self._moved = moved

    def stop(self) -> None:
        """Have `main` end after the look and the claim that run now."""
        self._stop.set()

    async def main(self) -> None:
        """Take rings and have them handled, for as long as there are free slots, until `stop`."""
        while not self._stop.is_set():
            self._moved()
            room = min(self._in_flight.room, MOST_AT_ONCE)
            if not room:
                self._handler.full()
                await self._in_flight.wait_for_room(WAIT_SECONDS)
                continue
            rings = await self._rings(room)
            if self._stop.is_set():
                self._handler.keep(rings)
            elif rings:
                await self._handler.handle(rings)

    async def _rings(self, most: int) -> list[Ring]:
        """Return kept rings that are due, which need no Redis, or else what is in the queue; wait for a first one."""
        rings = self._handler.due(most)
        if rings:
            return rings
        if self._handler.is_down:  # PostgreSQL is away: what waits in the queue is left to others
            await self._handler.pause(WAIT_SECONDS)
            return []
        taken = await self._intake.take(most)
        if not taken.rings and not taken.dropped:
            kept_for = self._handler.next_in()
            taken = await self._intake.wait(most, min(WAIT_SECONDS, kept_for or WAIT_SECONDS))
        for dropped in taken.dropped:
            self._handler.drop(dropped)
        return taken.rings


async def _never_run(_ctx: dict[Any, Any], *_arguments: Any) -> None:
    """Stand for `deliver` among the functions of arq, whose loop does not run."""
