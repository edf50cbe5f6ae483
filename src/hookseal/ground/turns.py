"""Places that the callers of many owners share: free ones go to the owners in turn. For one event loop."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """A number of places, and the callers that wait for one.

    Each free place goes to the next owner that waits, however many callers it has, and there to the caller that asked
    first. One owner holds at most `most_of_one` places, so others find one even if each of its callers holds its place
    for long. The owner None has no such limit: it is nobody in particular.
    """

    def __init__(self, places: int, *, most_of_one: int) -> None:
        self._free = places
        self._most_of_one = most_of_one
        self._held = Counter[str | None]()
        self._waiting = OrderedDict[str | None, OrderedDict[asyncio.Future[None], None]]()

    @asynccontextmanager
    async def place(self, owner: str | None, *, seconds: float) -> AsyncIterator[None]:
        """Hold a place in the block. Raises `TimeoutError` if the caller gets none within so many seconds."""
        async with asyncio.timeout(seconds):
            await self._take(owner)
        try:
            yield
        finally:
            self._give_back(owner)

    async def _take(self, owner: str | None) -> None:
        if self._free and self._may_have_another(owner):  # no caller that waits may have the place
            self._count(owner, 1)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, OrderedDict())[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._remove(owner, turn)
            else:  # it was this caller's turn just before
                self._give_back(owner)
            raise

    def _give_back(self, owner: str | None) -> None:
        self._count(owner, -1)
        for other, turns in self._waiting.items():
            turn = next((each for each in turns if not each.cancelled()), None)
            if turn is not None and self._may_have_another(other):
                self._remove(other, turn)
                if other in self._waiting:
                    self._waiting.move_to_end(other)
                self._count(other, 1)
                turn.set_result(None)
                return

    def _may_have_another(self, owner: str | None) -> bool:
        return owner is None or self._held[owner] < self._most_of_one

    def _count(self, owner: str | None, places: int) -> None:
        self._free -= places
        self._held[owner] += places
        if not self._held[owner]:
            del self._held[owner]

    def _remove(self, owner: str | None, turn: asyncio.Future[None]) -> None:
        del self._waiting[owner][turn]
        if not self._waiting[owner]:
            del self._waiting[owner]
