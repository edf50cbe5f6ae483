"""How a worker ends its own loops."""

import asyncio
from contextlib import suppress

from hookseal.worker.run import cancelled


async def test_a_lost_cancellation_is_repeated() -> None:
    """A loop that loses cancellations, as one that writes to Redis may on Python 3.11, is ended all the same."""
    lost = 0

    async def loop() -> None:
        nonlocal lost
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            lost += 1
        await asyncio.Event().wait()

    async def fail() -> None:
        raise OSError

    tasks = [asyncio.create_task(loop()), asyncio.create_task(fail())]
    await asyncio.wait(tasks, timeout=0)
    await asyncio.wait_for(cancelled(tasks), 5)

    assert 2 == lost
    assert [True, False] == [task.cancelled() for task in tasks]
    assert isinstance(tasks[1].exception(), OSError)


async def test_nothing_to_end() -> None:
    """Without loops it returns at once."""
    await asyncio.wait_for(cancelled([]), 5)
