"""The sweep: rings again what Redis has lost, and ends the expired leases of dead workers."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from hookseal.dispatcher.core.looks import LookStart, earlier
from hookseal.dispatcher.core.model import Ring, State
from hookseal.dispatcher.store.ledger import SWEEP_BATCH, Cursor, PostgresLedger
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock
from hookseal.queue.bell import MAX_QUEUED, Bell
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.metrics.definitions import RungBy
from hookseal.worker.outbox import UnrungRings
from hookseal.worker.periodic import LATE_SECONDS, Outage, Passes, Periodic

# A ring that was lost just after one look is too young for the next look. With one look a sweep, that would double the
# time until it is rung again.
LOOKS: Final = 4
_AGAIN_SECONDS: Final = 5.0  # at most, after a look that failed


class Sweep:
    """Rings due deliveries again within `seconds` after their ring was lost; it looks four times in that time.

    The outbox rings deliveries that nobody has rung. If it does not, because no worker leads or Redis did not answer,
    the sweep rings them once they have been due for `leave_seconds`, and counts them as rings of the outbox.

    Any number of workers may sweep at the same time, because rows are locked with SKIP LOCKED. `may_end` says whether
    leases may be ended now, and `failed` is called when PostgreSQL did not let the sweep end them.
    """

    leave_seconds = 2.0
    most_found = 2 * MAX_QUEUED  # the outbox keeps half as many in Redis, which may be older than all others

    def __init__(
        self,
        ledger: PostgresLedger,
        bell: Bell,
        *,
        seconds: float,
        clock: Clock,
        turns: BacklogTurns,
        meter: WorkerMeter,
        log: Any,
        may_end: Callable[[], bool] = lambda: True,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._may_end = may_end
        self._failed = failed
        self._bell = bell
        self._unrung = UnrungRings(ledger, bell, clock=clock, turns=turns)
        self._rung = LookStart(clock)
        self._leased = LookStart(clock)
        self._between = seconds / LOOKS
        self._old = timedelta(seconds=seconds - self._between)
        self._clock = clock
        self._meter = meter
        self._log = log
        self.passes = Passes("sweep", clock, late_seconds=LATE_SECONDS + 2 * self._between)
        self.loop = Periodic("sweep", self._look, every=self._pause, clock=clock, log=log)
        self._is_whole = False
        parts = ("record_refused", "take_back", "ring_due")
        self._outages = {half: Outage("sweep", log.bind(half=half)) for half in parts}

    async def once(self) -> tuple[int | None, int | None]:
        """Record what was refused, end leases, and ring; return how many of the last two, None for one that failed.

        A failure is logged once an outage, and the others still run.
        """
        recorded = await self._logged(self.record_refused)
        ended, rung = await self._logged(self.take_back), await self._logged(self.ring_due)
        self._is_whole = None not in {recorded, ended, rung}
        if self._is_whole:
            self.passes.passed()
        return ended, rung

    async def _look(self) -> None:
        await self.once()

    def _pause(self) -> float:
        return self._between if self._is_whole else min(self._between, _AGAIN_SECONDS)

    async def take_back(self) -> int:
        """End every expired lease; return how many. Raises `Unavailable`.

        It ends none, and returns 0, shortly after an outage: first, live workers record what they know.
        """
        count = dead_letters = 0
        more = self._may_end()
        while more:
            try:
                states = await self._ledger.end_lost_leases(self._leased)
            except Unavailable:
                self._failed()
                raise
            self._meter.took_back(states)
            dead_letters += states.count(State.DEAD_LETTER)
            count += len(states)
            more = len(states) == SWEEP_BATCH
        if count:
            self._log.warning("sweep.took_back", leases=count, dead_letters=dead_letters)
        return count

    async def record_refused(self) -> int:
        """Try to record the outcomes that PostgreSQL has refused; return how many it records. Raises `Unavailable`."""
        verdicts = [each for each in await self._ledger.record_refused() if each is not None]
        for each in verdicts:
            self._meter.decided(each)
        if verdicts:
            self._log.info("sweep.recorded_refused", outcomes=len(verdicts))
        return len(verdicts)

    async def ring_due(self) -> int:
        """Ring due deliveries that were not rung since they became due, or whose ring is lost; return how many.

        Of a backlog that nobody has rung it rings only what may stand in Redis. Raises `Unavailable`.
        """
        now = await self._ledger.seconds_ago(0)  # deliveries that become due meanwhile are left to the next sweep
        unrung_since = self._unrung.start.since
        with self._rung.look() as since:
            count, oldest = await self._ring_lost(now, Cursor.at(since))
        count += await self._ring_unrung(now)
        # All that was rung since `_ring_lost`, also by the leader, has been due since the earlier of these two places.
        rung_since = earlier(unrung_since, self._unrung.start.since)
        self._rung.since = rung_since if oldest is None else earlier(oldest, rung_since)
        if count:
            self._log.info("sweep.rang", deliveries=count)
        return count

    async def _ring_unrung(self, now: datetime) -> int:
        count = 0
        has_more = True
        while has_more:
            rung = await self._unrung.ring(None, waited_seconds=self.leave_seconds, now=now)
            self._meter.rang(RungBy.OUTBOX, rung.rings)
            count += rung.rings
            if has_more := rung.has_more:
                self.passes.passed()  # to ring a whole backlog takes long
        return count

    async def _ring_lost(self, now: datetime, place: Cursor) -> tuple[int, datetime | None]:
        """Ring again, oldest first, the deliveries behind the place whose ring is not in Redis; return how many.

        It also returns since when the oldest of those that were rung and not claimed has been due. Deliveries that
        their producer promised to ring are only counted: `_ring_unrung` and the outbox ring them. Once it has found
        `most_found` rings in Redis, it stops at the first batch of which Redis has more than half. A ring that is lost
        behind these is found later: to read a whole backlog in every look would cost too much.
        """
        old = now - self._old
        count = of_producers = still_in_redis = 0
        oldest: datetime | None = None
        cursor: Cursor | None = place
        while cursor is not None:
            before = await self._ledger.rung_before(now, old, cursor)
            rings, cursor, oldest = before.rings, before.place, oldest or before.oldest
            lost = await self._bell.lost(rings)
            rung, others = await self._ledger.ring_again(lost, old) if lost else ([], 0)
            self._meter.rang(RungBy.SWEEP, others)
            of_producers += others
            count += await self._ring(rung, RungBy.SWEEP)
            still_in_redis += len(rings) - len(lost)
            if still_in_redis >= self.most_found and len(lost) < len(rings) / 2:
                break
            if cursor is not None:
                self.passes.passed()  # to look for the lost rings of a backlog takes long
        if of_producers:
            self._log.warning("sweep.producer_rings_missing", deliveries=of_producers)
            self._unrung.start.look_at_all()  # they have been due for longer
        return count, oldest

    async def _ring(self, rings: Sequence[Ring], by: RungBy) -> int:
        rung = await self._bell.ring(rings)
        self._meter.rang(by, rung)
        return rung

    async def _logged(self, half: Callable[[], Awaitable[int]]) -> int | None:
        count: int | None = None
        outage = self._outages[half.__name__]
        with outage.survived():
            count = await half()
        return None if outage.lasts else count
