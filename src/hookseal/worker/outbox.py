"""The outbox: one elected worker rings the deliveries that are not marked as rung since they became due.

While a worker listens, publish notifies it of these, so that the outbox does not wait for its next look.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import asyncpg

from hookseal.dispatcher.core.looks import LookStart, earlier
from hookseal.dispatcher.store.ledger import Chore, PostgresLedger, Unrung
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock
from hookseal.postgres.connect import has_session_of_its_own
from hookseal.postgres.pool import ANSWER_SECONDS, Pool
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import translated
from hookseal.queue.bell import MAX_QUEUED, Bell
from hookseal.worker.chores import BacklogTurns, Chores
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.metrics.definitions import RungBy
from hookseal.worker.periodic import Passes, Periodic, at_most, set_within

MOST_AT_ONCE: Final = 250  # deliveries in one look: the worker handles its answer, and rings them, without a break
FEW_AT_ONCE: Final = 50  # in the first look at a backlog, and while lanes are full; the next rings twice as many
FULL_SECONDS: Final = 1.0  # while Redis has `most_standing` of these rings, each tenant gets one more in this time
_ENDS: Final = 2  # ends of the list of tenants: between two of them, every tenant was looked at


@dataclass(frozen=True, slots=True)
class Rung:
    """How many rings one look put into Redis, and whether to look again without waiting for the next poll.

    `chores` is what else there is for the leader to do, None if PostgreSQL was not asked.
    """

    rings: int
    has_more: bool
    chores: frozenset[Chore] | None = None


class UnrungRings:
    """Rings in batches. It remembers at which tenant the last batch ended.

    At most `most_standing` of its rings wait for a worker at the same time, over all tenants. Above that each tenant
    gets one more ring a second, so that one whose rings are not taken does not stop the others. Rings of others count
    only up to that number, so filling Redis stops no backlog.
    """

    most_standing = MAX_QUEUED

    def __init__(self, ledger: PostgresLedger, bell: Bell, *, clock: Clock, turns: BacklogTurns) -> None:
        self._ledger = ledger
        self._bell = bell
        self._clock = clock
        self._turns = turns
        self.start = LookStart(clock)
        self._standing = LookStart(clock)
        self._after_tenant = ""
        self._ends = 0
        self._at_once = FEW_AT_ONCE
        self._is_busy = True
        self._rung_at = float("-inf")

    async def ring(self, token: str | None, *, waited_seconds: float, now: datetime | None = None) -> Rung:
        """Ring a batch of what was due `waited_seconds` before `now`. Raises `Unavailable`."""
        moment = self._clock.monotonic()
        room, each = min(self._at_once, await self._room()) if self._is_busy else self._at_once, None
        if not room:
            if moment < self._rung_at + FULL_SECONDS:
                return Rung(0, has_more=False)
            room, each = MOST_AT_ONCE, 1
        async with self._turns.turn():
            if self._turns.is_parking and each is None:
                room = min(room, FEW_AT_ONCE)
            unrung = await self._ledger.ring_unrung(
                token,
                waited_seconds=waited_seconds,
                now=now,
                after=self._after_tenant,
                at_most=room,
                each=each,
                start=self.start,
            )
        self._after_tenant = unrung.place
        self._at_once = max(min(2 * room, MOST_AT_ONCE), FEW_AT_ONCE) if unrung.has_backlog else FEW_AT_ONCE
        self._is_busy = unrung.has_backlog or bool(unrung.rings)
        self._rung_at = moment
        await self._put(unrung)
        has_more = not self._is_vain(unrung) and unrung.has_more and each is None
        return Rung(len(unrung.rings), has_more=has_more, chores=unrung.chores)

    def _is_vain(self, unrung: Unrung) -> bool:
        """Return whether a look at all tenants rang nothing: other transactions have locked what is due."""
        self._ends = self._ends + (not unrung.place) if unrung.has_backlog and unrung.is_empty else 0
        if self._ends < _ENDS:
            return False
        self._ends = 0
        return True

    async def _room(self) -> int:
        """Return how many more rings may stand in Redis."""
        standing = await self._bell.depth()
        if standing >= self.most_standing:
            with self._standing.look() as since:
                counted, oldest = await self._ledger.standing(self.most_standing, since)
                # What is rung from now on has been due since `start.since`.
                self._standing.since = self.start.since if oldest is None else earlier(oldest, self.start.since)
            standing = min(standing, counted)
        return max(self.most_standing - standing, 0)

    async def _put(self, unrung: Unrung) -> None:
        if unrung.rings:
            await self._bell.ring(unrung.rings, backlogged=unrung.backlogged)


LEASE_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.08
QUIET_POLL_SECONDS: Final = 0.25  # after there was nothing to ring for `QUIET_AFTER_SECONDS`
QUIET_AFTER_SECONDS: Final = 10.0
WAITED_SECONDS: Final = 0.05  # a publisher has this long to ring by itself
_TRY_SECONDS: Final = 1.0  # between two tries to become the leader, and after a failure
_GOODBYE_SECONDS: Final = 1.0  # a stop waits no longer than this if PostgreSQL does not answer
_RENEWALS: Final = 3  # within the length of one lease

_SQL: Final = Statements("hookseal.worker", "outbox.sql")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CHANNEL: Final = "hookseal_unrung"
NOTICE_SECONDS: Final = 10.0  # how long publish notifies after the last request of a listener
_ASK_SECONDS: Final = 3.0
_AGAIN_SECONDS: Final = 1.0
_AGAIN_BEHIND_POOLER_SECONDS: Final = 60.0
_BEHIND_POOLER: Final = (
    "a pooler stands between this worker and PostgreSQL, and a LISTEN through it hears nothing: set "
    "HOOKSEAL_LISTEN_URL to a url of the same database that goes to PostgreSQL itself, or set HOOKSEAL_LISTEN=false; "
    "until then a delivery that nobody rang waits for the next look of the outbox, at most 0.3 seconds"
)


class Lease:
    """The lease of the leader, in PostgreSQL. It expires by the database clock if its worker does not renew it."""

    def __init__(self, pool: Pool, *, holder: str, seconds: float = LEASE_SECONDS) -> None:
        self._pool = pool
        self._holder = holder
        self.seconds = seconds

    async def take(self) -> str | None:
        """Take or renew the lease; return its token, None while another worker has it. Raises `Unavailable`."""
        token: str | None = await _SQL.value(self._pool, "lead", self._holder, self.seconds)
        return token

    async def give_back(self) -> None:
        """Give the lease back if this worker has it, so that another can take it. Raises `Unavailable`."""
        await _SQL.execute(self._pool, "step_down", self._holder)


class Outbox:
    """Tries to lead, and rings while it leads. Every worker has one. It is the `Leader` of the other loops.

    It looks every `poll_seconds`. By default it looks every `POLL_SECONDS`, or every `QUIET_POLL_SECONDS` after there
    was nothing to ring for `QUIET_AFTER_SECONDS`. The first look comes a moment after the start: until then the worker
    claims what is in Redis, and a look would lock these deliveries and ring them again.
    """

    poll_seconds: float | None = None

    def __init__(
        self,
        lease: Lease,
        unrung: UnrungRings,
        bell: Bell,
        *,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._lease = lease
        self._unrung = unrung
        self._chores = Chores(clock)
        self._bell = bell
        self._clock = clock
        self._meter = meter
        self._log = log
        self._token: str | None = None
        self._ask_at = self._lead_until = clock.monotonic()
        self._quiet_at = clock.monotonic()
        self._woken = asyncio.Event()
        self.passes = Passes("outbox", clock)
        self.loop = Periodic(
            "outbox",
            self._look,
            first=QUIET_POLL_SECONDS,
            every=self._pause,
            retry=_TRY_SECONDS,
            woken=self._woken,
            passes=self.passes,
            clock=clock,
            log=log,
        )

    @property
    def leads(self) -> bool:
        """Whether this worker leads now. By its own clock the lease ends no later than by that of the database."""
        return self._token is not None and self._clock.monotonic() < self._lead_until

    def may_have(self, chore: Chore) -> bool:
        """Return False if the last look, in the last half second, found none of these."""
        return self._chores.may_have(chore)

    def wake(self) -> None:
        """If this worker leads, ring now what is unrung, without waiting for its publisher to ring."""
        if self.leads:
            self._woken.set()

    async def _look(self) -> bool:
        return await self.once(waited_seconds=0.0 if self.loop.was_woken else WAITED_SECONDS)

    async def once(self, *, waited_seconds: float = WAITED_SECONDS) -> bool:
        """Take or renew the lease when it is time to, and ring a batch if it leads; return whether more may be left.

        Raises `Unavailable`.
        """
        if self._clock.monotonic() >= self._ask_at:
            await self._ask()
        if self._token is None:
            return False
        if self.loop.outage.lasts:
            await self._require_bell()
        return await self._ring(self._token, waited_seconds)

    async def step_down(self) -> None:
        """Stop leading, so that another worker can lead at once. If PostgreSQL does not answer, the lease expires."""
        self._token = None
        with self.loop.outage.survived(), translated():
            await at_most(_GOODBYE_SECONDS, self._lease.give_back())

    async def _ask(self) -> None:
        asked_at = self._clock.monotonic()
        led = self._token is not None
        token = await self._lease.take()
        self._token = token
        if token is not None:
            self._lead_until = asked_at + self._lease.seconds
        self._ask_at = asked_at + (_TRY_SECONDS if token is None else self._lease.seconds / _RENEWALS)
        if led != (token is not None):
            self._log.info("outbox.leads" if token is not None else "outbox.follows")

    async def _require_bell(self) -> None:
        """Raise `Unavailable` unless Redis answers: deliveries are marked as rung before they are put into Redis."""
        await self._bell.ping()

    async def _ring(self, token: str, waited_seconds: float) -> bool:
        looked_at = self._clock.monotonic()
        rung = await self._unrung.ring(token, waited_seconds=waited_seconds)
        if rung.chores is not None:
            self._chores.found(rung.chores, looked_at)
        if rung.rings:
            self._meter.rang(RungBy.OUTBOX, rung.rings)
            self._quiet_at = self._clock.monotonic() + QUIET_AFTER_SECONDS
        return rung.has_more

    def _pause(self) -> float:
        now = self._clock.monotonic()
        if self._token is None:
            return max(self._ask_at - now, 0.0)
        return self.poll_seconds or (POLL_SECONDS if now < self._quiet_at else QUIET_POLL_SECONDS)


class Listening:
    """Listens on a connection of its own, and calls `wake` at every notification and every new connection.

    `connect` must connect to PostgreSQL directly. Through a pooler no notification arrives; this is logged, and tried
    again every minute.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], wake: Callable[[], None], *, clock: Clock, log: Any
    ) -> None:
        self._connect = connect
        self._wake = wake
        self._clock = clock
        self._again_seconds = _AGAIN_SECONDS
        self.loop = Periodic("listen", self.once, every=lambda: self._again_seconds, clock=clock, log=log)

    async def once(self) -> None:
        """Listen until the connection is lost. Raises `Unavailable`."""
        with translated():
            await self._listen()

    async def _listen(self) -> None:
        connection = await self._connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())
        self._again_seconds = _AGAIN_SECONDS
        try:
            if not await has_session_of_its_own(connection, seconds=ANSWER_SECONDS):
                self._again_seconds = _AGAIN_BEHIND_POOLER_SECONDS
                raise Unavailable(_BEHIND_POOLER)
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.add_listener(CHANNEL, lambda *_notice: self._wake())
            self._wake()
            while not lost.is_set():
                await _SQL.execute(connection, "ask_for_notice", NOTICE_SECONDS)
                self.loop.outage.over()
                await set_within(lost, _ASK_SECONDS, self._clock)
        finally:
            connection.terminate()
