"""Waits with a time limit."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TypeVar

from hookseal.ground.clock import Clock

T = TypeVar("T")


async def set_within(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Return True in the first turn of the event loop after the event is set, False if that is not within `seconds`."""

    async def end() -> None:
        await clock.sleep(seconds)
        limit.reschedule(0)

    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            sleeping = asyncio.ensure_future(end())
            try:
                await event.wait()
            finally:
                sleeping.cancel()
    return event.is_set()


async def at_most(seconds: float, work: Coroutine[object, object, T]) -> T:
    """Return what the work returns. After `seconds` it is cancelled, without waiting until it has ended.

    Raises the exception of the work, or `TimeoutError`.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(retrieve_exception)
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        raise TimeoutError
    return await task


def retrieve_exception(task: asyncio.Task[object]) -> None:
    """Retrieve the exception of a task that nobody awaits: otherwise asyncio would print its text."""
    if not task.cancelled():
        task.exception()
