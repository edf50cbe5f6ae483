"""Counts the attempts of each endpoint in memory, until they are written. Pure."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hookseal.dispatcher.model import FinishedAttempt, Outcome
from hookseal.ground.ids import EndpointId, TenantId

# As hookseal.duration_bounds() returns them.
BOUNDS_MS: Final = (
    *(1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000),
    *(7_000, 10_000, 15_000, 20_000),
)
MOST_ENDPOINTS: Final = 50_000  # about 30 MB; the attempts of further endpoints are not counted until these are written

Key: TypeAlias = tuple[TenantId, EndpointId]


@dataclass(slots=True)
class Counts:
    """The attempts of one endpoint: how many succeeded, and all of them by duration."""

    delivered: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))

    def add(self, other: "Counts") -> None:
        """Add the other counts to these."""
        self.delivered += other.delivered
        self.durations = [ours + theirs for ours, theirs in zip(self.durations, other.durations, strict=True)]


class AttemptCounts:
    """The counts of the endpoints that were attempted since they were last taken."""

    def __init__(self, *, most: int = MOST_ENDPOINTS) -> None:
        self._most = most
        self._counts: dict[Key, Counts] = {}

    def add(self, made: FinishedAttempt) -> None:
        """Count a recorded attempt."""
        counts = self._of((made.claim.ring.tenant_id, made.claim.ring.endpoint_id))
        if counts is not None:
            counts.delivered += made.attempt.outcome is Outcome.DELIVERED
            counts.durations[bisect_left(BOUNDS_MS, made.attempt.duration_ms or 0)] += 1

    def take(self) -> dict[Key, Counts]:
        """Remove and return all counts."""
        taken, self._counts = self._counts, {}
        return taken

    def put_back(self, taken: dict[Key, Counts]) -> None:
        """Keep what could not be written."""
        for key, counts in taken.items():
            if (ours := self._of(key)) is not None:
                ours.add(counts)

    def _of(self, key: Key) -> Counts | None:
        if key not in self._counts and len(self._counts) >= self._most:
            return None
        return self._counts.setdefault(key, Counts())
