"""The first baseline: a loop that POSTs with aiohttp, without signatures, queue, records or logs."""

import asyncio

from tools.bench.contenders.job import Order, Sender, main, ready


async def enqueue(ordered: Order) -> None:
    """Do nothing: there is no queue."""


async def work(ordered: Order) -> None:
    """Send everything, then wait to be killed, since the CPU is read from outside, as for the others."""
    sender, body, left = Sender(ordered), ordered.body.encode(), iter(ordered.numbers)

    async def send() -> None:
        for _ in left:
            await sender.bare(body)

    sender.open()
    ready()
    await asyncio.gather(*(send() for _ in range(ordered.concurrency)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    main(enqueue, work)
