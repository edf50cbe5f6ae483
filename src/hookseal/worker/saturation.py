"""What limits a worker: its limits and what it uses of them, and for how long each has stopped it from doing more."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hookseal.dispatcher.core.concerns import Limit
from hookseal.ground.clock import Clock
from hookseal.worker.periodic import Periodic

SAMPLE_SECONDS: Final = 0.5
RECENT: Final = 10  # samples: about those between two heartbeats
NEARLY_ALL: Final = 0.9
HALF: Final = 0.5


class Has(StrEnum):
    """What a worker has a limited number of."""

    REQUESTS = "requests"
    BYTES = "bytes"
    CONNECTIONS = "connections"
    BATCH_CONNECTIONS = "batch_connections"


class Statement(StrEnum):
    """The statements of which a delivery needs one each."""

    CLAIM = "claim"
    RECORD = "record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state of a worker at the monotonic time `at`.

    `waits` says whether a delivery could begin, `has_slot` whether a slot is free for it, `has_bytes` whether a body of
    the largest size has room, and `records_late` whether outcomes wait that have taken all slots, or cannot be
    recorded.
    The others are seconds since the start: of the CPU that the process has used, of waits for a connection that claims
    or records, of statements that claim, and of waits for an answer of Redis.
    """

    at: float
    waits: bool
    has_slot: bool
    has_bytes: bool
    records_late: bool
    cpu_seconds: float
    connection_seconds: float
    claim_seconds: float
    redis_seconds: float


def limits_between(before: Sample, now: Sample) -> frozenset[Limit]:
    """Return what limited the worker from one sample to the next. Pure.

    Slots and bytes limit it if something waited for them at both times. If the CPU does, statements and Redis seem slow
    because their answers are read late: then they count as no limits.
    """
    elapsed = now.at - before.at
    if elapsed <= 0:
        return frozenset()
    limits = set[Limit]()
    if before.waits and now.waits:
        if not (before.has_bytes or now.has_bytes):
            limits.add(Limit.BYTES)
        elif not (before.has_slot or now.has_slot or now.records_late):
            limits.add(Limit.REQUESTS)
    if now.cpu_seconds - before.cpu_seconds >= NEARLY_ALL * elapsed:
        return frozenset(limits | {Limit.CPU})
    if (
        (before.records_late and now.records_late)
        or now.claim_seconds - before.claim_seconds >= NEARLY_ALL * elapsed
        or now.connection_seconds - before.connection_seconds >= HALF * elapsed
    ):
        limits.add(Limit.POSTGRESQL)
    if now.redis_seconds - before.redis_seconds >= HALF * elapsed:
        limits.add(Limit.REDIS)
    return frozenset(limits)


class Saturation:
    """Looks at a worker twice a second, and adds up for how long each limit has stopped it."""

    def __init__(self, look: Callable[[], Sample], *, clock: Clock, log: Any) -> None:
        self._look = look
        self._last: Sample | None = None
        self._recent = deque[frozenset[Limit]](maxlen=RECENT)
        self.seconds: dict[str, float] = {each.value: 0.0 for each in Limit}
        self.loop = Periodic("saturation", self.once, every=SAMPLE_SECONDS, clock=clock, log=log)

    @property
    def limits(self) -> list[Limit]:
        """What has limited the worker in half of the last ten looks, or more."""
        return [limit for limit in Limit if 2 * sum(limit in each for each in self._recent) >= len(self._recent) > 0]

    async def once(self) -> None:
        """Take a sample, and add the time since the last one to each limit that held meanwhile."""
        now = self._look()
        if self._last is not None:
            found = limits_between(self._last, now)
            self._recent.append(found)
            for limit in found:
                self.seconds[limit] += now.at - self._last.at
        self._last = now
