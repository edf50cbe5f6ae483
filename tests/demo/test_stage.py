"""Chapters run side by side, and none waits for ever."""

import asyncio

import pytest

from hookseal.demo.stage import patience, side_by_side
from hookseal.ground.errors import Unavailable


async def test_side_by_side() -> None:
    """They run at the same time, and what they return keeps their order."""
    first, second = asyncio.Event(), asyncio.Event()

    async def one() -> int:
        first.set()
        await second.wait()
        return 1

    async def two() -> int:
        await first.wait()
        second.set()
        return 2

    assert [1, 2] == await asyncio.wait_for(side_by_side(one(), two()), 5)


async def test_one_that_raises() -> None:
    """What one raises is raised as it is, and the others have ended by then."""
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails() -> None:
        await begun.wait()
        raise Unavailable("Redis does not answer")

    with pytest.raises(Unavailable, match="Redis does not answer"):
        await asyncio.wait_for(side_by_side(waits(), fails()), 5)
    assert ended.is_set()


async def test_patience_ends() -> None:
    """What takes longer is given up without a word, and what others are cancelled for is not swallowed."""
    async with asyncio.timeout(60), patience(0):
        await asyncio.Event().wait()

    async def patiently() -> None:
        async with patience():
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    waiting = asyncio.create_task(patiently())
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
