"""pgqueuer on PostgreSQL: it takes jobs in batches, and moves finished ones to its log, also in batches."""

from datetime import timedelta
from typing import Any, Final

import asyncpg
from pgqueuer import AsyncpgPoolDriver, PgQueuer, Queries

from tools.bench.contenders.job import Order, Sender, main, ready

_AT_ONCE: Final = 500
_CONNECTIONS: Final = 10


async def enqueue(ordered: Order) -> None:
    """Create the schema, and queue all jobs."""
    async with asyncpg.create_pool(ordered.postgres_url, min_size=1, max_size=2) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        for first in range(0, ordered.deliveries, _AT_ONCE):
            number = min(_AT_ONCE, ordered.deliveries - first)
            await queries.enqueue(["post"] * number, [ordered.body.encode()] * number, [0] * number)


async def work(ordered: Order) -> None:
    """Work until killed."""
    sender = Sender(ordered)
    async with asyncpg.create_pool(ordered.postgres_url, min_size=2, max_size=_CONNECTIONS) as pool:
        queuer = PgQueuer(AsyncpgPoolDriver(pool))

        async def post(job: Any) -> None:
            await sender.post(f"msg_{job.id}", job.payload)

        queuer.entrypoint("post")(post)
        sender.open()
        ready()
        await queuer.run(
            dequeue_timeout=timedelta(seconds=1),
            batch_size=ordered.concurrency,
            max_concurrent_tasks=2 * ordered.concurrency,  # the minimum that it accepts with such batches
        )


if __name__ == "__main__":
    main(enqueue, work)
