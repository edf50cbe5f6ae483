"""Turns of the statements that work through a backlog: they leave most of the machine to the deliveries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hookseal.ground.clock import Clock

LONGEST_PAUSE_SECONDS: Final = 0.1
PARKING_SECONDS: Final = 1.0  # so long after rings were parked, others of the same backlog may follow


class BacklogTurns:
    """Runs one such statement of a worker at a time, with a pause after it as long as it took, at most 0.1 s.

    Such a statement takes 5 to 30 ms of one core. Two at a time, or one after another without a pause, would delay the
    claims and outcomes of other tenants.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()
        self._pause_until = self._parking_until = float("-inf")

    @property
    def is_parking(self) -> bool:
        """Whether rings were parked in the last second: lanes are full, and more of the backlog may have to wait."""
        return self._clock.monotonic() < self._parking_until

    def parked(self) -> None:
        """Note that rings were parked."""
        self._parking_until = self._clock.monotonic() + PARKING_SECONDS

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until it is the caller's turn and the pause has ended. The block is its statement."""
        async with self._turn:
            if (seconds := self._pause_until - self._clock.monotonic()) > 0:
                await self._clock.sleep(seconds)
            began_at = self._clock.monotonic()
            try:
                yield
            finally:
                ended_at = self._clock.monotonic()
                self._pause_until = ended_at + min(ended_at - began_at, LONGEST_PAUSE_SECONDS)
