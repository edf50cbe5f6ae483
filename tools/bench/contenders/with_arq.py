"""The second baseline: the tuned worker of arq, which signs with a secret in memory and records nothing."""

import asyncio
from typing import Any, Final, cast

from arq import Worker, func
from arq.connections import ArqRedis
from arq.typing import StartupShutdown
from redis.asyncio.connection import ConnectionPool

from hookseal.queue.serializer import job_deserializer, job_serializer
from tools.bench.contenders.job import Order, Sender, main, ready

_QUEUE: Final = "bench:stock"
_AT_ONCE: Final = 50


async def post(context: dict[Any, Any], delivery_id: str, body: bytes) -> None:
    """Do the job."""
    await context["sender"].post(delivery_id, body)


async def enqueue(ordered: Order) -> None:
    """Queue all jobs."""
    body, left = ordered.body.encode(), iter(ordered.numbers)
    pool = ConnectionPool.from_url(ordered.redis_url)
    async with ArqRedis(pool, job_serializer=job_serializer, job_deserializer=job_deserializer) as redis:

        async def some() -> None:
            for number in left:
                await redis.enqueue_job("post", f"msg_{number}", body, _queue_name=_QUEUE)

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


async def work(ordered: Order) -> None:
    """Work until killed."""

    async def started(context: dict[Any, Any]) -> None:
        context["sender"] = Sender(ordered)
        context["sender"].open()
        ready()

    worker = Worker(
        functions=[func(cast("Any", post), name="post")],
        queue_name=_QUEUE,
        redis_pool=ArqRedis(ConnectionPool.from_url(ordered.redis_url)),
        max_jobs=ordered.concurrency,
        queue_read_limit=5 * ordered.concurrency,
        poll_delay=0.01,
        keep_result=0,
        job_completion_wait=1,
        on_startup=cast("StartupShutdown", started),
        log_results=False,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
    )
    await worker.async_run()


if __name__ == "__main__":
    main(enqueue, work)
