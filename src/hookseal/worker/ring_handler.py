"""Handles rings: claims the deliveries whose turn it is together, and sends each one in a task of its own."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from msgspec import structs

from hookseal.dispatcher.core.deliver import by_endpoint, finish, give_back, prepare
from hookseal.dispatcher.core.model import Claim, Claimed, Outcome, Ring
from hookseal.dispatcher.core.ports import Parts
from hookseal.dispatcher.core.prepare import Prepared
from hookseal.dispatcher.lanes.tenants import MOST_UNANSWERED
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.errors import Exhausted, Unavailable, with_advice
from hookseal.ground.clock import Clock, Stopwatch
from hookseal.queue.intake import Dropped, DropReason
from hookseal.worker.inflight import InFlight, KeptRings
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.periodic import Passes, set_within

BUSY_SECONDS: Final = 0.2  # how long a ring is kept if another transaction has locked its delivery
MOST_KEPT: Final = 1_000  # rings; the sweep rings the deliveries of the others again
# How long nothing begins after this machine had no descriptor left; the time doubles while that continues.
_FIRST_REST_SECONDS: Final = 0.5
_LONGEST_REST_SECONDS: Final = 8.0
FAILED_SECONDS: Final = 1.0  # how long rings are kept after PostgreSQL did not answer
UNRECORDABLE_SECONDS: Final = 0.2  # between two looks whether outcomes can be recorded again
MOST_AT_ONCE: Final = 128  # deliveries in one claim
QUARTER_AT_LEAST: Final = 50  # deliveries in one claim, if a quarter of the slots is less
LOOK_SECONDS: Final = 1.0  # how long the handler waits for a ring, or for a free slot
STILL_SECONDS: Final = 60.0
GATHER_SECONDS: Final = 0.01  # the wait for several free slots, while more rings wait for slots
GATHERED_PART: Final = 16  # it ends when such a part of the slots is free,
FEW_GATHERED: Final = 12  # or so many, if that is more: a claim of few costs nearly as much as one of many


class Movement:
    """The time at which a delivery last came through the queue, or at which this worker had no room for one.

    If that is `still_seconds` ago, the queue may have stopped.
    """

    def __init__(self, clock: Clock, *, sweep_seconds: float) -> None:
        self.still_seconds = STILL_SECONDS + 2 * sweep_seconds
        self._clock = clock
        self._moved_at = clock.monotonic()

    def moved(self) -> None:
        """Record that a delivery came, or that there is no room for one."""
        self._moved_at = self._clock.monotonic()

    @property
    def is_still(self) -> bool:
        """Whether no delivery came for `still_seconds`."""
        return self._clock.monotonic() - self._moved_at >= self.still_seconds


class RingHandler:
    """Claims the deliveries of rings and starts sending them. Rings that could not be claimed are kept and tried again.

    Rings wait in `lanes` for their turn. `movement` records that a delivery came through the queue. `crowded` is called
    when something is to be written or read for the lanes.
    """

    def __init__(
        self,
        parts: Parts,
        in_flight: InFlight,
        meter: WorkerMeter,
        movement: Movement,
        *,
        lanes: Lanes,
        crowded: Callable[[], None] = lambda: None,
    ) -> None:
        self._parts = replace(parts, answered=self._answered)
        self._in_flight = in_flight
        self._lanes = lanes
        self._crowded = crowded
        self._quarter = min(in_flight.limit // 4, MOST_AT_ONCE)
        self._gatherable = max(in_flight.limit // GATHERED_PART, min(in_flight.limit // 4, FEW_GATHERED))
        self._awake = asyncio.Event()
        self._spacious = asyncio.Event()
        self._gathered = 0  # slots for which the next turn waits, at most `GATHER_SECONDS`
        self._gathered_for = frozenset[str]()  # the tenants whose rings may wait for that
        self._meter = meter
        self._kept = KeptRings()
        self._failed_until = self._rest_seconds = 0.0
        self._movement = movement
        self._rested_at = float("-inf")
        self._failure: str | None = None  # why the last claim failed
        self.claiming = Stopwatch(parts.clock)

    @property
    def space(self) -> int:
        """How many more rings this worker should take."""
        return self._lanes.space(self._in_flight.room) if self._in_flight.room else 0

    def add(self, rings: Sequence[Ring]) -> None:
        """Let these rings wait for their turn. A ring of another tenant ends the wait for more slots."""
        self._lanes.add(rings, self._parts.clock.monotonic())
        if any(each.tenant_id not in self._gathered_for for each in rings):
            self._gathered = 0
            self._in_flight.end_wait()
        self._changed()

    def wake_up(self) -> None:
        """End the waits of `run` and of `wait_for_space`, since the worker stops."""
        self._awake.set()
        self._spacious.set()

    async def wait_for_space(self) -> None:
        """Return after the next turn, or after a second."""
        self._spacious.clear()
        await set_within(self._spacious, LOOK_SECONDS, self._parts.clock)

    def wake(self) -> None:
        """Look again whether a delivery may begin, now or at the end of a pause."""
        if self._lanes.ready or self._lanes.next_at(self._parts.clock.monotonic()) < float("inf"):
            self._awake.set()

    def _changed(self) -> None:
        self.wake()
        if self._lanes.needs_database:
            self._crowded()

    async def run(self, passes: Passes, stop: asyncio.Event) -> None:
        """Handle the rings whose turn it is until `stop`, or until nothing may begin.

        A round of this loop is no pass as long as the last claim failed, for whatever reason.
        """
        while not (stop.is_set() or self._in_flight.is_closed):
            if self._gathered:  # one claim of many deliveries costs much less than many claims of one
                await self._in_flight.gather(GATHER_SECONDS, self._gathered)
            room = min(self._in_flight.room, max(self._quarter, QUARTER_AT_LEAST))  # claims and requests overlap
            if not room:
                self._movement.moved()  # deliveries wait for free slots, not for the queue
                await self._in_flight.wait_for_room(LOOK_SECONDS)
                self._record(passes)
                continue
            self._awake.clear()
            rings = self._next_rings(room)
            self._spacious.set()
            self._gathered = self._to_gather(len(rings), room)
            self._gathered_for = self._lanes.at_their_share or frozenset(each.tenant_id for each in rings)
            if rings:
                await self.handle(rings)
            self._record(passes)
            if rings:
                await asyncio.sleep(0)  # noqa: TID251 -- a turn of the event loop: first the requests, then the next turn
            else:
                await set_within(self._awake, min(LOOK_SECONDS, self.next_in()), self._parts.clock)

    def _record(self, passes: Passes) -> None:
        passes.passed() if self._failure is None else passes.interrupted()

    def _to_gather(self, begun: int, room: int) -> int:
        spare = self._in_flight.slots - begun if self._lanes.at_their_share else 0  # for other tenants
        return spare + self._gatherable if spare or begun == room or begun > MOST_UNANSWERED else 0

    def _next_rings(self, room: int) -> list[Ring]:
        """Return the rings whose turn it is. Those that were kept wait for their turn again, behind the others."""
        if self.is_down:
            self._movement.moved()  # deliveries wait for PostgreSQL, not for the queue
            return []
        self._lanes.add(self.due(MOST_AT_ONCE), now := self._parts.clock.monotonic())
        return self._lanes.pick(self._in_flight.slots, now, most=room)

    @property
    def is_down(self) -> bool:
        """Whether no claim is made: PostgreSQL did not answer the last one, or outcomes cannot be recorded."""
        return self._parts.clock.monotonic() < self._failed_until or not self._parts.may_begin()

    def due(self, most: int) -> list[Ring]:
        """Remove and return at most `most` kept rings that are due."""
        return self._kept.take_due(most, self._parts.clock.monotonic())

    def next_in(self) -> float:
        """Return the seconds until a kept ring, or one that waits for a moment, may be tried; infinity if none.

        While outcomes cannot be recorded it is the time to the next look whether they can.
        """
        now = self._parts.clock.monotonic()
        if not self._parts.may_begin():
            return max(UNRECORDABLE_SECONDS, self._failed_until - now)
        return max(min(self._kept.next_at, self._lanes.next_at(now)) - now, self._failed_until - now, 0.0)

    async def pause(self, seconds: float) -> None:
        """Return when the next kept ring may be tried, or after `seconds`."""
        await self._parts.clock.sleep(min(seconds, self.next_in()))

    def keep(self, rings: Iterable[Ring], seconds: float = 0.0) -> None:
        """Keep these rings; they are due after `seconds`."""
        self._kept.add(rings, self._parts.clock.monotonic() + seconds)
        self._awake.set()

    def keep_busy(self, rings: Sequence[Ring]) -> None:
        """Keep these rings, whose deliveries other transactions have locked, for a moment."""
        self.keep(rings[: (room := max(MOST_KEPT - len(self._kept), 0))], BUSY_SECONDS)
        if dropped := sum(not each.is_parked for each in rings[room:]):  # a parked one is fetched again
            self._parts.log.warning(
                "rings.left", rings=dropped, reason=f"{MOST_KEPT} rings of locked deliveries are kept"
            )

    def leave(self) -> list[Ring]:
        """Remove and return every ring that is kept or waits for its turn, for another worker."""
        return self._kept.take_all() + self._lanes.leave()

    def drop(self, dropped: Dropped) -> None:
        """Count and log rings that were dropped from the queue."""
        self._meter.ring_dropped(dropped.reason, dropped.rings)
        job_id, detail = dropped.job_id or None, dropped.detail or None
        self._parts.log.warning(
            "ring.dropped", reason=dropped.reason.value, rings=dropped.rings, delivery_id=job_id, detail=detail
        )

    async def handle(self, rings: Sequence[Ring]) -> None:
        """Claim the deliveries of these rings and start sending them. A slot must be free for each."""
        self._in_flight.take(len(rings))
        now = self._parts.clock.monotonic()
        for each in rings:
            self._lanes.begin(each, now)
        claims, asked_at = list[Claim](), self._parts.clock.monotonic()
        try:
            with self.claiming.timed(lambda seconds: self._meter.claimed(seconds, len(claims))):
                claimed = await self._parts.claims.claim_all(rings, most_bytes=self._in_flight.bytes_room)
                claims = claimed.claims
            self._sort_out(rings, claimed)
        except Unavailable as error:
            self._await_database(rings, error)
        except Exception as error:
            self._movement.moved()
            self._failure = type(error).__name__
            self._meter.claim_failed()
            self._parts.log.exception("claim.defect", deliveries=len(rings))
        except asyncio.CancelledError:  # a stop: the rings are put back into the queue
            self.keep(rings)
            raise
        finally:
            self._in_flight.free(len(rings) - len(claims))
            groups = self._count(rings, claims)
        self._start(groups, asked_at)

    def _count(self, rings: Sequence[Ring], claims: Sequence[Claim]) -> list[list[Claim]]:
        """Count what was claimed; return the claims of each endpoint, without those that its limits do not allow."""
        now = self._parts.clock.monotonic()
        ids = {each.ring.delivery_id for each in claims}
        for ring in (each for each in rings if each.delivery_id not in ids):
            self._lanes.unclaimed(ring, now)
        groups = by_endpoint(map(self._with_wait, claims))
        for each in groups:
            if over := self._lanes.claimed(each[-1], now, len(each) if each[-1].is_probe is None else 0):
                self._give_back(each[-over:], now)
                del each[-over:]
            elif each[0].is_ordered:  # nothing more of it may begin until this one is recorded
                self._lanes.crowded.rest((each[0].ring.tenant_id, each[0].ring.endpoint_id))
        self._changed()
        return groups

    def _with_wait(self, claim: Claim) -> Claim:
        """Return the claim with what only the lanes know: whether its delivery waited for room."""
        return structs.replace(claim, was_held=True) if self._lanes.waited(claim.ring.delivery_id) else claim

    def _give_back(self, claims: Sequence[Claim], now: float) -> None:
        for each in claims:
            self._lanes.unclaimed(each.ring, now)
            self._in_flight.hold(len(each.body))
            self._in_flight.start(give_back(each, self._parts), len(each.body))

    def _answered(self, ring: Ring, outcome: Outcome) -> None:
        self._in_flight.answered()
        self._lanes.answered(ring, outcome, self._parts.clock.monotonic())
        self._changed()

    def _left(self, claim: Claim) -> None:
        if self._lanes.left(claim.ring.delivery_id, self._parts.clock.monotonic()):
            self._changed()
        if claim.is_ordered:  # the next of its line may begin
            self._lanes.crowded.expect((claim.ring.tenant_id, claim.ring.endpoint_id))
            self._crowded()

    def _await_database(self, rings: Sequence[Ring], error: Unavailable) -> None:
        self._movement.moved()  # the queue works
        self._failed_until = self._parts.clock.monotonic() + FAILED_SECONDS
        self.keep(rings, FAILED_SECONDS)
        self._meter.claim_failed()
        if self._failure != (reason := with_advice(error)):  # once for each outage
            self._parts.log.warning("claim.failed", deliveries=len(rings), reason=reason)
        self._failure = reason

    def _start(self, groups: Sequence[Sequence[Claim]], asked_at: float) -> None:
        for each in filter(None, groups):
            self._in_flight.hold(sum(len(one.body) for one in each))
            self._in_flight.start(self._group(each, asked_at), len(each[0].body))

    def _sort_out(self, rings: Sequence[Ring], claimed: Claimed) -> None:
        self._failed_until = 0.0
        self._failure = None
        self.keep_busy(claimed.busy)
        self._lanes.found_locked(claimed.locked, self._parts.clock.monotonic())
        self._lanes.behind(claimed.behind)
        for ring, error in claimed.faulty:
            self._meter.claim_failed()
            self._parts.log.error("claim.defect", deliveries=1, delivery_id=ring.delivery_id, exc_info=error)
        unclaimed = len(rings) - len(claimed.claims) - len(claimed.busy) - len(claimed.locked)
        unclaimed -= len(claimed.behind) + len(claimed.faulty)
        if unclaimed < len(rings):
            self._movement.moved()
        if unclaimed and (not_due := min(unclaimed, sum(not each.is_parked for each in rings))):
            self._meter.ring_dropped(DropReason.NOT_DUE, not_due)  # another worker may have begun a parked one

    async def _group(self, claims: Sequence[Claim], asked_at: float) -> None:
        """Send the claims of one endpoint: the first in this task, each of the others in a task of its own."""
        try:
            ready = await prepare(claims, asked_at, self._parts)
        except BaseException:  # cut off: every claim is given back
            self._in_flight.free(len(claims) - 1, sum(len(each.body) for each in claims[1:]))
            for claimed in claims:
                self._left(claimed)
            raise
        first, *others = sorted(ready, key=lambda each: each.claim is not claims[0])  # this task has its bytes
        for each in others:
            self._in_flight.start(self._finish(each), len(each.claim.body))
        await self._finish(first)

    async def _finish(self, prepared: Prepared) -> None:
        try:
            await finish(prepared, self._parts)
        except Exhausted as error:
            self._rest(with_advice(error))
        except Unavailable as error:
            self._parts.log.error(  # noqa: TRY400 -- an outage: a traceback would not help
                "delivery.unrecorded", **_named(prepared.claim), reason=with_advice(error)
            )
        except Exception:
            self._parts.log.exception("delivery.defect", **_named(prepared.claim))
        finally:
            self._left(prepared.claim)

    def _rest(self, reason: str) -> None:
        """Begin nothing for a while, until requests in flight have freed descriptors or the limit is raised."""
        if self._in_flight.is_resting:
            return
        now = self._parts.clock.monotonic()
        is_new = now - self._rested_at > 2 * _LONGEST_REST_SECONDS
        self._rest_seconds = _FIRST_REST_SECONDS if is_new else min(2 * self._rest_seconds, _LONGEST_REST_SECONDS)
        self._rested_at = now
        self._in_flight.rest(self._rest_seconds)
        self._parts.log.error("worker.exhausted", reason=reason, rests_seconds=self._rest_seconds)


def _named(claim: Claim) -> dict[str, object]:
    return {"tenant_id": claim.ring.tenant_id, "delivery_id": claim.ring.delivery_id, "attempt": claim.number}
