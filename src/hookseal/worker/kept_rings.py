"""Rings that a worker keeps for a moment, and then tries again."""

import heapq
from collections.abc import Iterable
from itertools import count

from hookseal.dispatcher.model import Ring


class KeptRings:
    """Rings in the order in which they are due; those of the same time in the order in which they came."""

    def __init__(self) -> None:
        self._rings: list[tuple[float, int, Ring]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._rings)

    @property
    def next_at(self) -> float:
        """When the next ring is due; infinity if none is kept."""
        return self._rings[0][0] if self._rings else float("inf")

    def add(self, rings: Iterable[Ring], due_at: float) -> None:
        """Keep these rings until then."""
        for each in rings:
            heapq.heappush(self._rings, (due_at, next(self._order), each))

    def take_due(self, most: int, now: float) -> list[Ring]:
        """Remove and return at most `most` rings that are due."""
        rings = list[Ring]()
        while len(rings) < most and self.next_at <= now:
            rings.append(heapq.heappop(self._rings)[2])
        return rings

    def take_all(self) -> list[Ring]:
        """Remove and return every ring."""
        rings, self._rings = [each for _, _, each in self._rings], []
        return rings
