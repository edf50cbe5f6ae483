"""What the leader has to do besides ringing: its other loops ask PostgreSQL only if there may be something to do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from hookseal.dispatcher.store.ledger import Chore
from hookseal.ground.clock import Clock

FRESH_SECONDS: Final = 0.5  # two looks of a calm outbox


class Leader(Protocol):
    """Whether this worker leads, and what it then has to do."""

    @property
    def leads(self) -> bool:
        """Whether this worker leads now."""

    def may_have(self, chore: Chore) -> bool:
        """Return False if there is certainly none of these."""


class Chores:
    """What the last look of the outbox found. An older look says nothing: then there may be anything to do."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: frozenset[Chore] = frozenset()
        self._looked_at = float("-inf")

    def found(self, chores: frozenset[Chore], looked_at: float) -> None:
        """Take over what a look found that began at this monotonic time."""
        self._found, self._looked_at = chores, looked_at

    def may_have(self, chore: Chore) -> bool:
        """Return False if a look in the last half second found none of these."""
        return chore in self._found or self._clock.monotonic() >= self._looked_at + FRESH_SECONDS


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
