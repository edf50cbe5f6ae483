"""The first baseline: a loop that POSTs with aiohttp, without signatures, queue, records or logs."""

from tools.bench.contenders.job import Order, Sender, main, nothing_to_queue, send_all


async def work(ordered: Order) -> None:
    """Send everything, then wait to be killed, since the CPU is read from outside, as for the others."""
    sender, body = Sender(ordered), ordered.body.encode()
    sender.open()
    await send_all(ordered, lambda: sender.bare(body))


if __name__ == "__main__":
    main(nothing_to_queue, work)
