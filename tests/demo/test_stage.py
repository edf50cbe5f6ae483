"""Chapters run concurrently, and none waits for ever."""

import asyncio

import pytest

from hookseal.demo.stage import side_by_side, time_limit
from hookseal.errors import Unavailable


async def test_chapters_run_concurrently() -> None:
    """Chapters run at the same time, and their results keep their order."""
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


async def test_an_error_ends_the_others_first() -> None:
    """An error is raised unchanged, after the others have ended."""
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


async def test_the_time_limit_ends_a_block_silently() -> None:
    """The time limit ends a block silently, but does not suppress a cancellation from outside."""
    async with asyncio.timeout(60), time_limit(0):
        await asyncio.Event().wait()

    async def limited() -> None:
        async with time_limit():
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    waiting = asyncio.create_task(limited())
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
