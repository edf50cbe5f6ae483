"""Places that many owners share: who gets the next one, and how many one owner may hold."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from hookseal.ground.turns import Turns

_SOON = 0.01
_LONG = 60.0


class Callers:
    """Callers that wait for a place, and keep it until a test lets them leave."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.inside: list[str] = []  # in the order in which they got their place
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.leaving: dict[str, asyncio.Event] = {}

    async def come(self, *names: str) -> None:
        """Let these callers ask; the first letter is their owner."""
        for name in names:
            self.leaving[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name))
            await _settled()

    async def leave(self, *names: str) -> None:
        for name in names:
            self.leaving[name].set()
            await _settled()

    async def _hold(self, name: str) -> None:
        async with self.turns.place(name[0], seconds=_LONG):
            self.inside.append(name)
            await self.leaving[name].wait()


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def callers(turns: Turns) -> AsyncIterator[Callers]:
    """Yield callers, and end those that are left."""
    made = Callers(turns)
    try:
        yield made
    finally:
        for task in made.tasks.values():
            task.cancel()
        await asyncio.gather(*made.tasks.values(), return_exceptions=True)


async def all_are_free(turns: Turns, owners: Iterable[str | None]) -> bool:
    """Return whether each of these, one for each place, gets a place at once."""
    async with AsyncExitStack() as held:
        for owner in owners:
            await held.enter_async_context(turns.place(owner, seconds=_SOON))
    return True


async def test_free_places_go_to_the_owners_in_turn() -> None:
    """However many callers one of them has; those of one owner in the order in which they ask."""
    async with callers(Turns(1, most_of_one=1)) as each:
        await each.come("a0", "a1", "a2", "a3", "b1", "b2", "c1")
        await each.leave("a0", "a1", "b1", "c1", "a2", "b2")
        assert ["a0", "a1", "b1", "c1", "a2", "b2", "a3"] == each.inside


async def test_one_owner_leaves_places_for_others() -> None:
    """Also while others of its callers wait; its next caller goes on when one of its own leaves."""
    async with callers(Turns(3, most_of_one=2)) as each:
        await each.come("a1", "a2", "a3", "b1")
        assert ["a1", "a2", "b1"] == each.inside
        await each.leave("b1")
        assert ["a1", "a2", "b1"] == each.inside
        await each.come("b2")
        await each.leave("a2")
        assert ["a1", "a2", "b1", "b2", "a3"] == each.inside


async def test_nobody_in_particular_may_have_all_places() -> None:
    turns = Turns(3, most_of_one=1)
    assert await all_are_free(turns, [None, None, None])
    assert await all_are_free(turns, ["a", "b", "c"])


async def test_who_gets_no_place_in_time_leaves_none_behind() -> None:
    turns = Turns(2, most_of_one=1)
    async with turns.place("a", seconds=_SOON):
        with pytest.raises(TimeoutError):
            async with turns.place("a", seconds=_SOON):
                pass
        assert await all_are_free(turns, ["b"])
    assert await all_are_free(turns, ["a", "b"])


async def test_a_caller_that_is_cancelled_holds_nothing() -> None:
    """Neither while it waits, nor in the moment in which it gets its place, which goes to the next one."""
    turns = Turns(1, most_of_one=1)
    async with callers(turns) as each:
        await each.come("a1", "b1", "c1", "d1")
        each.tasks["b1"].cancel()
        each.leaving["a1"].set()
        await _settled()
        assert ["a1", "c1"] == each.inside

        each.leaving["c1"].set()
        for _ in range(5):
            if not turns._held["d"]:
                await asyncio.sleep(0)  # until the place is given to d1, which does not know it yet
        each.tasks["d1"].cancel()
        await _settled()
        assert ["a1", "c1"] == each.inside
    assert await all_are_free(turns, ["e"])
