"""The heartbeat: a row in `workers` which shows that this worker is alive, with its settings and keys."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from typing import Any, Final

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.lanes.lane import Fleet
from hookseal.ground.clock import Clock
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import revision
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import translated
from hookseal.worker.periodic import Passes, Periodic, at_most
from hookseal.worker.recorder import Circuit

BEAT_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 60.0
_LATE_SECONDS: Final = LIVE_SECONDS - 2 * BEAT_SECONDS  # after so long without a beat of its own, all may seem dead
_DOUBT_SECONDS: Final = 3 * BEAT_SECONDS  # in which every live worker beats again
_AGAIN_SECONDS: Final = 1.0  # after a failure
_MISSED_SECONDS: Final = 2 * BEAT_SECONDS  # after so long without a beat of its own, PostgreSQL did not accept one
_GOODBYE_SECONDS: Final = 1.0  # a stop waits no longer than this if PostgreSQL does not answer

_SQL: Final = Statements("hookseal.worker", "heartbeat.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """The public facts about a worker: its times, the ids of its master keys, and the providers that it reads."""

    worker_id: str
    version: str
    drain_seconds: int
    lease_seconds: int
    key_ids: Sequence[str]
    providers: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a worker uses now, how much of it it may use, and what limits it.

    It uses requests, bytes of their bodies, connections, and connections that claim and record.
    """

    requests: int | None = None
    most_requests: int | None = None
    bytes: int | None = None
    most_bytes: int | None = None
    connections: int | None = None
    most_connections: int | None = None
    batch_connections: int | None = None
    most_batch_connections: int | None = None
    limited_by: Sequence[str] | None = None


class Heartbeat:
    """Writes the row of one worker, and once a minute deletes rows of any worker that are more than an hour old.

    `fleet` is the rank of the worker among the live ones, as of the last heartbeat. After an outage, in which no worker
    could write its row, a smaller fleet is not believed at first: else the first one to beat again would take every
    limit for itself, until the others have beaten.

    `circuit` knows whether outcomes wait for their record, which the row says. `load` is what else it says: what the
    worker uses; nothing until somebody sets it.
    """

    def __init__(self, pool: Pool, presence: Presence, *, circuit: Circuit, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._circuit = circuit
        self._presence = presence
        self._clock = clock
        self.passes = Passes("heartbeat", clock)
        self.loop = Periodic(
            "heartbeat",
            self.once,
            first=BEAT_SECONDS,
            every=BEAT_SECONDS,
            retry=_AGAIN_SECONDS,
            clock=clock,
            log=log,
        )
        self._forget_at = self._beaten_at = clock.monotonic()
        self._doubts_until = float("-inf")
        self._believes_from = self._believing()
        self._drains = False
        self.fleet = Fleet()
        self.load: Callable[[], Load] = Load

    @property
    def believes_others(self) -> bool:
        """Whether a worker without a heartbeat is to be taken for dead, and its leases may be ended.

        It is not after a start, nor after an outage in which a heartbeat failed, until every live worker could beat
        again and record what it knows: for 15 s, or the length of a lease if that is shorter.
        """
        now = self._clock.monotonic()
        return now >= self._believes_from and now - self._beaten_at <= _MISSED_SECONDS

    def doubt_others(self) -> None:
        """Believe no other worker to be dead for a while, since PostgreSQL did not end a lease."""
        self._believes_from = self._believing()

    def _believing(self) -> float:
        return self._clock.monotonic() + min(_DOUBT_SECONDS, self._presence.lease_seconds)

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """Write the row, and delete it when the block ends. Raises `Unavailable` if it cannot be written."""
        await self.beat()
        try:
            yield
        finally:
            with self.loop.outage.survived(), translated():
                await at_most(_GOODBYE_SECONDS, self._execute("leave", self._presence.worker_id))

    async def once(self) -> None:
        """Write the row, and delete old ones if it is time. Raises `Unavailable`."""
        await self.beat()
        await self._forget()

    async def drain(self) -> None:
        """Leave the share of this worker to the others, which learn of it at their next heartbeat.

        The row stays: requests in flight still need the keys in it. `fleet` stays, too, so that no lane of this worker
        shrinks. If PostgreSQL does not answer within a second, the next heartbeat says it.
        """
        self._drains = True
        with self.loop.outage.survived(), translated():
            await at_most(_GOODBYE_SECONDS, self.beat())

    async def beat(self) -> None:
        """Write the row, or what has changed in it, and read `fleet`. Raises `Unavailable`."""
        own = self._presence
        lists = list(own.key_ids), list(own.providers)
        facts = own.worker_id, own.version, own.drain_seconds, own.lease_seconds, *lists
        unrecorded_seconds = self._circuit.oldest_seconds if self._circuit.is_late else None
        now = self._drains, LIVE_SECONDS, unrecorded_seconds, revision.EXPECTED
        row = await _SQL.row(self._pool, "beat", *facts, *now, *astuple(self.load()))
        self.passes.passed()
        if row is not None:
            self._learn(Fleet(rank=row["rank"], workers=row["others"] + 1))

    def _learn(self, fleet: Fleet) -> None:
        now = self._clock.monotonic()
        if now - self._beaten_at > _LATE_SECONDS:
            self._doubts_until = now + _DOUBT_SECONDS
        if now - self._beaten_at > _MISSED_SECONDS:
            self.doubt_others()
        self._beaten_at = now
        if self._drains:
            return
        if fleet.workers >= self.fleet.workers or now >= self._doubts_until:
            self.fleet = fleet

    async def _forget(self) -> None:
        if self._clock.monotonic() >= self._forget_at:
            await self._execute("forget")
            self._forget_at = self._clock.monotonic() + FORGET_SECONDS

    async def _execute(self, name: str, *arguments: Any) -> None:
        await _SQL.execute(self._pool, name, *arguments)
