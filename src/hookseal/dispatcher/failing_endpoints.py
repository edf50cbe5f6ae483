"""Which endpoints are failing, as one worker sees them. Pure, but for the clock.

An endpoint is failing from when a worker has seen nothing but failures for a while, until an attempt succeeds. Its row
keeps that time, so that the restart of a worker changes nothing. It is the time of the write, and not that of the first
failure: other workers may have succeeded in between. A worker writes seldom, and again at most once in
`AGAIN_SECONDS`. So an endpoint that answers, and one that fails now and then, cost no statement.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from hookseal.dispatcher.model import Outcome, Target
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
