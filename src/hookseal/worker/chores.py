"""What the leader has to do besides ringing: its other loops ask PostgreSQL only if there may be something to do."""

from typing import Final, Protocol

from hookseal.dispatcher.ledger import Chore
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
