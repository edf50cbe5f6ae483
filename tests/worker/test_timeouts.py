"""Pauses and calls with a time limit."""

import asyncio
import gc
from typing import Any

import pytest

from hookseal.ground.clock import SystemClock
from hookseal.worker.timeouts import at_most, set_within
from tests.doubles.clock import FakeClock


async def test_an_event_ends_a_pause() -> None:
    """A pause ends at once with its event, or at its time limit, and returns which it was."""
    event = asyncio.Event()
    assert not await set_within(event, 60, FakeClock())
    asyncio.get_running_loop().call_soon(event.set)
    assert await asyncio.wait_for(set_within(event, 3600, SystemClock()), 60)


async def test_a_pause_ends_in_the_first_turn_of_the_loop() -> None:
    """The caller of a pause continues before anything that becomes ready after the event is set."""
    event = asyncio.Event()
    waiting = asyncio.create_task(set_within(event, 3600, SystemClock()))
    await asyncio.sleep(0)
    event.set()
    await asyncio.sleep(0)

    assert waiting.done()
    assert await waiting


async def test_slow_work_is_cancelled() -> None:
    """Work that exceeds its time limit is cancelled, and a later error of it causes no message."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    go_on = asyncio.Event()
    ended = asyncio.Event()

    async def stubborn() -> None:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            await go_on.wait()
            ended.set()
            raise OSError from None

    with pytest.raises(TimeoutError):
        await at_most(0, stubborn())
    go_on.set()
    await asyncio.wait_for(ended.wait(), 60)
    gc.collect()
    assert [] == complaints


async def test_finished_work_raises_its_error() -> None:
    """Work that ends in time has run, and its error is raised."""

    async def fail() -> None:
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        await at_most(5, fail())
    event = asyncio.Event()

    async def act() -> None:
        event.set()

    await at_most(5, act())
    assert event.is_set()
