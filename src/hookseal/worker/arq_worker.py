"""arq's `Worker` as the shell of a deployed worker: the loop that takes rings runs as its `main`.

Nothing else in the product imports arq. What arq's own loop would do is not done: it polls, runs jobs in tasks that it
may cancel, and keeps cron jobs, aborts, results, hooks and a health check. Signals and probes are hookseal's own.
"""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from arq.connections import ArqRedis
from arq.typing import WorkerCoroutine
from arq.worker import Worker, func

from hookseal.queue.bell import Bell
from hookseal.queue.rings import EXPIRES_MS, FUNCTION
from hookseal.queue.serializer import job_deserializer, job_serializer


class ArqWorker(Worker):
    """An arq worker of this queue that runs one loop. `main` raises the error that ends the loop."""

    def __init__(self, bell: Bell, loop: Callable[[], Awaitable[None]]) -> None:
        redis = ArqRedis(
            bell.redis.connection_pool,
            job_serializer=job_serializer,
            job_deserializer=job_deserializer,
            default_queue_name=bell.queue,
            expires_extra_ms=EXPIRES_MS,
        )
        super().__init__(
            functions=[func(cast("WorkerCoroutine", _never_run), name=FUNCTION)],
            queue_name=bell.queue,
            redis_pool=redis,
            handle_signals=False,
            job_serializer=job_serializer,
            job_deserializer=job_deserializer,
        )
        self._take = loop

    async def main(self) -> None:
        """Run the loop, in place of arq's."""
        await self._take()


async def _never_run(_ctx: dict[Any, Any], *_arguments: Any) -> None:
    """Fill the list of functions that arq requires. It is never called, because the loop of arq does not run."""


async def within_arq(bell: Bell, loop: Callable[[], Awaitable[None]]) -> None:
    """Run the loop as an arq worker (see `engine.Shell`)."""
    await ArqWorker(bell, loop).async_run()
