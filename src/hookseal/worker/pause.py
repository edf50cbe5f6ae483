"""Waits that something ends early: an event, or patience."""

import asyncio
from collections.abc import Coroutine

from hookseal.ground.clock import Clock


async def set_within(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Return True as soon as the event is set, False once so many seconds have passed without."""
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({sleeping, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        waiting.cancel()
    return event.is_set()


async def at_most(seconds: float, work: Coroutine[object, object, object]) -> None:
    """Return once the work is done; what takes longer is cancelled and left behind.

    Raises what the work raises in time, and `TimeoutError`.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(seen)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        raise TimeoutError
    await task


def seen(task: asyncio.Task[object]) -> None:
    """Take notice of an error that comes when nobody waits any more: asyncio would print its text."""
    if not task.cancelled():
        task.exception()
