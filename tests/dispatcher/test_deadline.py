"""Deadlines with shared timers end a block as `asyncio.timeout_at` does."""

import asyncio
from typing import Any

import pytest

from hookseal.dispatcher.http.exchange import MOMENT_SECONDS, Deadlines


async def never() -> None:
    """Wait for a future that is never done."""
    await asyncio.get_running_loop().create_future()


def soon() -> float:
    """Return a time of the loop shortly ahead."""
    return asyncio.get_running_loop().time() + MOMENT_SECONDS


@pytest.mark.req("DEL-11", part="bounds")
async def test_a_block_ends_at_its_deadline_and_not_before() -> None:
    """At its deadline a block ends with `TimeoutError`; the task itself is not cancelled and continues."""
    loop, when = asyncio.get_running_loop(), soon()
    task = asyncio.current_task()
    assert task is not None

    with pytest.raises(TimeoutError), Deadlines().at(when):
        await never()

    assert when <= loop.time()
    assert not task.cancelling()


async def test_a_passed_deadline_ends_the_block_at_its_first_wait() -> None:
    """A block whose deadline has passed already ends with `TimeoutError` at its first wait."""
    with pytest.raises(TimeoutError), Deadlines().at(asyncio.get_running_loop().time() - 1):
        await never()


async def test_a_finished_block_is_not_affected() -> None:
    """Each block with a shared timer ends by itself, and one that has ended in time is not affected."""
    deadlines, when = Deadlines(), soon()

    async def late() -> None:
        with deadlines.at(when):
            await never()

    others = [asyncio.create_task(late()) for _ in range(3)]
    with deadlines.at(when):
        await asyncio.sleep(0)

    ended = await asyncio.gather(*others, return_exceptions=True)
    assert [TimeoutError] * 3 == [type(each) for each in ended]


async def test_an_error_of_the_block_is_unchanged() -> None:
    """An error that the block raises is passed on unchanged."""
    with pytest.raises(ZeroDivisionError), Deadlines().at(soon()):
        raise ZeroDivisionError


async def test_a_cancellation_from_outside_stays_one() -> None:
    """A cancellation from outside remains a cancellation, even if the deadline passes before it takes effect."""
    begun = asyncio.Event()

    async def work() -> None:
        with Deadlines().at(soon()):
            begun.set()
            try:
                await never()
            finally:
                with pytest.raises(asyncio.CancelledError):
                    await never()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()

    await asyncio.wait({task})
    assert task.cancelled()


async def test_near_deadlines_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """All deadlines within 0.1 s share one timer, which fires before the first of them."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    moment = (loop.time() // MOMENT_SECONDS + 100) * MOMENT_SECONDS
    call_at, timers = loop.call_at, list[float]()

    def counted(when: float, *rest: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *rest)

    monkeypatch.setattr(loop, "call_at", counted)

    for part in range(1, 20):
        with deadlines.at(moment + part * MOMENT_SECONDS / 20):
            await asyncio.sleep(0)

    assert len(timers) == 1
    assert moment - 0.001 < timers[0] < moment + MOMENT_SECONDS / 20
