"""saq on Redis: it records the status and result of each job, and expires them at once (`ttl=-1`), its minimum."""

import asyncio
from typing import Any, Final

from saq import Queue, Worker

from tools.bench.contenders.job import Order, Sender, main, ready

_AT_ONCE: Final = 50
_RESULT_IS_NOT_KEPT: Final = -1


async def enqueue(ordered: Order) -> None:
    """Queue all jobs."""
    queue = Queue.from_url(ordered.redis_url, max_concurrent_ops=_AT_ONCE)
    left = iter(ordered.numbers)

    async def some() -> None:
        for number in left:
            await queue.enqueue(
                "post", ttl=_RESULT_IS_NOT_KEPT, timeout=60, delivery=f"msg_{number}", body=ordered.body
            )

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    await queue.disconnect()


async def work(ordered: Order) -> None:
    """Work until killed."""
    queue, sender = Queue.from_url(ordered.redis_url, max_concurrent_ops=ordered.concurrency), Sender(ordered)

    async def post(_context: dict[str, Any], *, delivery: str, body: str) -> None:
        await sender.post(delivery, body.encode())

    async def started(_context: dict[str, Any]) -> None:
        sender.open()
        ready()

    await Worker(queue, functions=[("post", post)], concurrency=ordered.concurrency, startup=started).start()


if __name__ == "__main__":
    main(enqueue, work)
