"""The endpoints whose rows another transaction has locked, and when this worker tries them again. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from math import inf
from typing import Final

from hookseal.dispatcher.lanes.rotation import Key

LOCKED_SECONDS: Final = 0.2  # how long a worker claims nothing for an endpoint after it found its row locked


class LockedEndpoints:
    """The endpoints for which nothing is claimed for a moment, those first whose time ends first."""

    def __init__(self) -> None:
        self._until: OrderedDict[Key, float] = OrderedDict()

    @property
    def next_at(self) -> float:
        """When the first of them may be tried again; infinity if there is none."""
        return next(iter(self._until.values()), inf)

    def add(self, key: Key, now: float) -> None:
        """Claim nothing for this endpoint for a moment."""
        self._until[key] = now + LOCKED_SECONDS
        self._until.move_to_end(key)

    def ended(self, now: float) -> Iterator[Key]:
        """Remove and yield those that may be tried again."""
        while self.next_at <= now:
            yield self._until.popitem(last=False)[0]
