"""How much time statements over a backlog leave to deliveries."""

import asyncio
from contextlib import suppress

import pytest

from hookseal.worker.chores import LONGEST_PAUSE_SECONDS, BacklogTurns
from tests.doubles.clock import FakeClock

pytestmark = pytest.mark.req("DEL-09")


@pytest.mark.parametrize(
    ("took", "passed", "waits"), [(0.04, 0.01, [0.03]), (9.0, 0.0, [LONGEST_PAUSE_SECONDS]), (1.0, 1.0, [])]
)
async def test_a_turn_leaves_as_much_time_as_it_took(*, took: float, passed: float, waits: list[float]) -> None:
    """The next turn begins no sooner after the last one than that one took, or 0.1 s."""
    clock = FakeClock()
    turns = BacklogTurns(clock)
    async with turns.turn():
        clock.elapsed += took
    clock.elapsed += passed
    async with turns.turn():
        pass

    assert waits == pytest.approx(clock.slept)


async def test_a_turn_that_failed_leaves_time_too() -> None:
    """A statement that timed out is followed by a pause."""
    clock = FakeClock()
    turns = BacklogTurns(clock)
    with suppress(TimeoutError):
        async with turns.turn():
            clock.elapsed += 0.05
            raise TimeoutError
    async with turns.turn():
        pass

    assert [0.05] == pytest.approx(clock.slept)


async def test_turns_do_not_overlap() -> None:
    """While one has its turn, the others wait, in the order in which they came."""
    turns, order = BacklogTurns(FakeClock()), list[str]()
    begun, end = asyncio.Event(), asyncio.Event()

    async def take(name: str) -> None:
        async with turns.turn():
            order.append(name)
            begun.set()
            await end.wait()

    both = asyncio.gather(take("first"), take("second"))
    await begun.wait()
    assert ["first"] == order
    end.set()
    await both
    assert ["first", "second"] == order
