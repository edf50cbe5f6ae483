"""The calls of a Publisher that are under way: it closes its connections only after them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

from hookseal.ground.errors import Refused

WAIT_SECONDS: Final = 7.0  # five for PostgreSQL and two for Redis: a call with a connection does not take longer


class Calls:
    """Counts the calls that are under way. Once it is closed, it refuses further ones."""

    def __init__(self) -> None:
        self._number = 0
        self._is_closed = False
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the block as a call. Raises `Refused` once it is closed."""
        if self._is_closed:
            raise Refused("this Publisher is closed: publish within its `async with`")
        self._number += 1
        self._all_ended.clear()
        try:
            yield
        finally:
            self._number -= 1
            if not self._number:
                self._all_ended.set()

    async def close(self, *, seconds: float = WAIT_SECONDS) -> None:
        """Refuse further calls, and wait that long for those under way."""
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_ended.wait()


@asynccontextmanager
async def counted_calls() -> AsyncIterator[Calls]:
    """Yield the calls of a Publisher, which are closed at the end of the block."""
    calls = Calls()
    try:
        yield calls
    finally:
        await calls.close()
