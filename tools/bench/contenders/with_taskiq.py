"""taskiq on a Redis list, without result backend and acknowledgement, so it records nothing."""

import asyncio
from typing import Any, Final

from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker

from tools.bench.contenders.job import Order, Sender, main, ready

_AT_ONCE: Final = 50


def _with_task(ordered: Order) -> tuple[Any, Any, Sender]:
    broker, sender = ListQueueBroker(ordered.redis_url), Sender(ordered)

    async def post(delivery: str, body: str) -> None:
        await sender.post(delivery, body.encode())

    return broker, broker.register_task(post, task_name="post"), sender


async def enqueue(ordered: Order) -> None:
    """Queue all jobs."""
    broker, task, _ = _with_task(ordered)
    await broker.startup()
    left = iter(ordered.numbers)

    async def some() -> None:
        for number in left:
            await task.kiq(f"msg_{number}", ordered.body)

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    await broker.shutdown()


async def work(ordered: Order) -> None:
    """Work until killed."""
    broker, _, sender = _with_task(ordered)
    broker.is_worker_process = True
    await broker.startup()
    sender.open()
    ready()
    # It prefetches as many jobs as it processes: with 0, its default here, it fetches one at a time.
    await run_receiver_task(broker, max_async_tasks=ordered.concurrency, max_prefetch=ordered.concurrency)


if __name__ == "__main__":
    main(enqueue, work)
