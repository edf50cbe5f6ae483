"""What one worker sees of its endpoints: which are failing, and how many attempts of each succeeded. Pure.

An endpoint is failing from when a worker has seen nothing but failures for a while, until an attempt succeeds. Its row
keeps that time, so that the restart of a worker changes nothing. It is the time of the write, and not that of the first
failure: other workers may have succeeded in between. A worker writes seldom, and again at most once in
`AGAIN_SECONDS`. So an endpoint that answers, and one that fails now and then, cost no statement.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from hookseal.dispatcher.core.model import FinishedAttempt, Outcome, Target
from hookseal.ground.clock import Clock
from hookseal.ground.ids import EndpointId, TenantId

FAILING_SECONDS: Final = 60.0  # after this time with failures only, an endpoint is failing
AGAIN_SECONDS: Final = 600.0
MOST_REMEMBERED: Final = 10_000  # endpoints; beyond that the one that failed first is forgotten, and begins anew

Key: TypeAlias = tuple[TenantId, EndpointId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be written: endpoints that are failing, and endpoints that have recovered."""

    failing: Sequence[Key]
    recovered: Sequence[Key]


@dataclass(slots=True)
class _Failing:
    since: float
    written_at: float | None = None


class FailingEndpoints:
    """Remembers the endpoints that only fail."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: OrderedDict[Key, _Failing] = OrderedDict()
        self._due: set[Key] = set()
        self._recovered: set[Key] = set()

    def attempted(self, target: Target, outcome: Outcome) -> None:
        """Notice the outcome of an attempt that was recorded. An unknown outcome changes nothing."""
        if outcome is Outcome.DELIVERED:
            if target.is_failing or self._failing:
                self._succeeded(_key(target), is_marked=target.is_failing)
        elif outcome is not Outcome.UNKNOWN:
            self._failed(_key(target))

    def take(self) -> Changes:
        """Remove and return what is to be written."""
        changes = Changes(failing=sorted(self._due), recovered=sorted(self._recovered))
        self._due, self._recovered = set(), set()
        return changes

    def put_back(self, changes: Changes) -> None:
        """Keep what could not be written, unless something newer is known."""
        self._recovered.update(key for key in changes.recovered if key not in self._failing)
        self._due.update(key for key in changes.failing if key in self._failing)

    def _succeeded(self, key: Key, *, is_marked: bool) -> None:
        failing = self._failing.pop(key, None)
        self._due.discard(key)
        if is_marked or (failing is not None and failing.written_at is not None):
            self._recovered.add(key)

    def _failed(self, key: Key) -> None:
        now = self._clock.monotonic()
        failing = self._failing.get(key)
        if failing is None:
            failing = self._failing[key] = _Failing(now)
            if len(self._failing) > MOST_REMEMBERED:
                self._due.discard(self._failing.popitem(last=False)[0])
        self._recovered.discard(key)
        is_new = failing.written_at is None or now >= failing.written_at + AGAIN_SECONDS
        if is_new and now >= failing.since + FAILING_SECONDS:
            failing.written_at = now
            self._due.add(key)


def _key(target: Target) -> Key:
    return target.pointer.tenant_id, target.pointer.endpoint_id


# As hookseal.duration_bounds() returns them.
BOUNDS_MS: Final = (
    *(1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000),
    *(7_000, 10_000, 15_000, 20_000),
)
MOST_ENDPOINTS: Final = 50_000  # about 30 MB; the attempts of further endpoints are not counted until these are written


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

    def add(self, finished: FinishedAttempt) -> None:
        """Count a recorded attempt."""
        counts = self._counts_of((finished.claim.ring.tenant_id, finished.claim.ring.endpoint_id))
        if counts is not None:
            counts.delivered += finished.attempt.outcome is Outcome.DELIVERED
            counts.durations[bisect_left(BOUNDS_MS, finished.attempt.duration_ms or 0)] += 1

    def take(self) -> dict[Key, Counts]:
        """Remove and return all counts."""
        taken, self._counts = self._counts, {}
        return taken

    def put_back(self, taken: dict[Key, Counts]) -> None:
        """Keep what could not be written."""
        for key, counts in taken.items():
            if (ours := self._counts_of(key)) is not None:
                ours.add(counts)

    def _counts_of(self, key: Key) -> Counts | None:
        if key not in self._counts and len(self._counts) >= self._most:
            return None
        return self._counts.setdefault(key, Counts())
