"""All lanes of one worker: which rings wait here, which deliveries begin next, and what must wait in PostgreSQL. Pure.

A delivery begins only if its lane has room. Tenants take turns, and so do the endpoints of each tenant. If there are
several tenants, none gets all slots: some are always left for others (`TENANT_SHARE`).
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hookseal.dispatcher.core.model import Claim, Outcome, Pace, Ring, WaitingFor
from hookseal.dispatcher.lanes.crowded import Asked, CrowdedLanes
from hookseal.dispatcher.lanes.lane import LEAST_MAY_WAIT, Fleet, KnownLanes, LockedEndpoints, Opened, Parked
from hookseal.dispatcher.lanes.round_robin import Key, RoundRobin
from hookseal.dispatcher.lanes.tenants import MOST_UNANSWERED, Tenants, Unanswered
from hookseal.dispatcher.lanes.waiting import Begun, WaitingRings

LOOK_AHEAD: Final = 64  # rings that this worker takes although it has no slot for them yet
MOST_ASKED: Final = 128  # deliveries in one look for the next ones
MOST_TO_PARK: Final = 10_000  # rings; with more of them this worker takes none until they are parked
LONGEST_WAIT_SECONDS: Final = 5.0  # then its ring is parked, before the sweep counts it as lost
FETCHED_WITHIN_SECONDS: Final = 2.0  # after its lane got room, unless this worker has no slots


class Lanes:
    """The lanes of one worker. `ceiling` is the limit of an endpoint without one of its own, for the whole fleet.

    `peak` is what this limit may grow to for an endpoint that answers quickly, and `peak_here` what the part of this
    worker may grow to, so that some endpoints that hang cannot fill it; 0: it does not grow. `crowded` are the
    lanes with deliveries that wait in PostgreSQL, `to_park` the rings of what is to wait there. `at_their_share` are
    the tenants for which the last `pick` had no slots, if no ring of another one could begin.
    """

    def __init__(self, ceiling: int, fleet: Callable[[], Fleet] = Fleet, *, peak: int = 0, peak_here: int = 0) -> None:
        self.tenants = Tenants()
        self._waiting = WaitingRings(self.tenants)
        self._lanes = KnownLanes(ceiling, fleet, self._waiting.by_lane, peak=peak, peak_here=peak_here)
        self._ready = RoundRobin()
        self._first: OrderedDict[str, tuple[float, Ring]] = OrderedDict()
        self.crowded, self.locked = CrowdedLanes(), LockedEndpoints()
        self._unanswered = Unanswered()
        self._begun = Begun(self.tenants, self._unanswered)
        self.to_park, self._opened = deque[Parked](), list[Opened]()
        self._got_room, self.at_their_share = False, frozenset[str]()

    @property
    def ready(self) -> bool:
        """Whether a ring waits whose lane may have room."""
        return bool(self._first or self._ready)

    @property
    def needs_database(self) -> bool:
        """Whether rings are to be parked, breakers are to be opened, or a crowded lane got room."""
        return bool(self.to_park or self._opened or self._got_room)

    def space(self, slots: int) -> int:
        """Return how many more rings this worker should take, with so many free slots."""
        if len(self.to_park) > MOST_TO_PARK:
            return 0
        return max(slots + LOOK_AHEAD - (self._waiting.ready - self.tenants.waiting_of_full), 0)

    def add(self, rings: Iterable[Ring], now: float) -> None:
        """Let these rings wait for their turn. A ring that waits here already, or whose request runs, is left out."""
        changed: dict[Key, None] = {}
        for ring in rings:
            if ring.delivery_id in self._waiting or ring.delivery_id in self._begun:
                continue
            key: Key = (ring.tenant_id, ring.endpoint_id)
            if self.tenants.is_full(key[0]) and self.tenants.waiting(key[0]) >= LOOK_AHEAD:
                self._park(ring, now)
                continue
            self._waiting.add(ring, now)
            changed[key] = None
        for key in changed:
            self._settle(key, now)

    def add_first(self, rings: Iterable[Ring], now: float) -> None:
        """Let these rings go before others, whatever room their lanes have: each names a probe, or what is not due."""
        self._first.update((ring.delivery_id, (now, ring)) for ring in rings if ring.delivery_id not in self._begun)

    def pick(self, slots: int, now: float, *, most: int = MOST_ASKED) -> list[Ring]:
        """Remove and return the rings whose turn it is, at most `most`, and count them as begun. `slots` are free."""
        for key in self.locked.ended(now):
            self._settle(key, now)
        picked, unanswered = self._pick_first(slots, now, most := min(most, slots))
        passed = set[str]()
        for key in self._unanswered.take_next(now):
            self._settle(key, now, is_next=True)
        while self._ready and len(picked) < most and len(passed) < self._ready.tenants and unanswered < MOST_UNANSWERED:
            key = self._ready.first()
            if self.tenants.has_its_share(key[0], slots - len(picked)):
                self.tenants.fill(key[0])
                self._ready.pass_tenant(key[0])
                passed.add(key[0])
                continue
            lane = self._lanes[key]
            if is_paused := not lane.answers and self._unanswered.is_paused(key[0], now):
                self._ready.pass_turn(key)
            if is_paused or not lane.room(now):
                self._settle(key, now)
                continue
            passed.clear()
            if len(self._ready) > 1:
                self._ready.pass_turn(key)
            unanswered += not lane.answers
            picked.append(self._take(key, now))
        self._unanswered.pause(now, after=unanswered)
        self.at_their_share = frozenset(passed) if len(passed) == self._ready.tenants else frozenset()
        return picked

    def _pick_first(self, slots: int, now: float, most: int) -> tuple[list[Ring], int]:
        """Pick from the rings that go before others; also return how many of these requests may stay unanswered."""
        picked, unanswered = list[Ring](), 0
        for _, ring in list(self._first.values())[:MOST_ASKED]:
            if len(picked) == most or unanswered == MOST_UNANSWERED // 2:
                break
            tenant, lane = ring.tenant_id, self._lanes[ring.tenant_id, ring.endpoint_id]
            must_wait = lane.is_locked(now) or self._unanswered.is_paused(tenant, now)
            if must_wait or self.tenants.has_its_share(tenant, slots - len(picked)):
                self._first.move_to_end(ring.delivery_id)  # the next turn looks at those behind it
                continue
            picked.append(self._first.pop(ring.delivery_id)[1])
            unanswered += not lane.answers
            self.begin(ring, now)
        return picked, unanswered

    def next_at(self, now: float) -> float:
        """Return when rings may begin that wait for the end of a pause or of a lock; infinity if none does."""
        return min(self._unanswered.ends_pause_at(now, others_wait=bool(self._first)), self.locked.next_at)

    def begin(self, ring: Ring, now: float, *, waited: bool = False) -> None:
        """Count this ring as begun, unless it is. `waited`: its lane had no room for it before."""
        if ring.delivery_id not in self._begun:
            key = (ring.tenant_id, ring.endpoint_id)
            self._begun.begin(ring.delivery_id, key, now, answers=(lane := self._lanes[key]).answers, waited=waited)
            lane.begin(now)

    def waited(self, delivery_id: str) -> bool:
        """Return whether a delivery that has begun waited before for room in its lane, or for its turn in a line.

        It did not if it only waited for a slot of this worker: not even one of a tenant that has its share of them.
        """
        return delivery_id in self._begun.waited

    def claimed(self, claim: Claim, now: float, number: int = 1) -> int:
        """Take over what a claim has read about its endpoint; return how many of `number` its limits do not allow."""
        key = (claim.ring.tenant_id, claim.ring.endpoint_id)
        over = self._lanes.configure(key, claim.target.pace, number, now) if claim.target is not None else 0
        if claim.is_probe is False:
            self._lanes[key].close(now)
        self._settle(key, now)
        return over

    def read_pace(self, key: Key, pace: Pace, now: float) -> None:
        """Take over the settings of an endpoint that a look has read: without a share this worker claims nothing."""
        if self._lanes.read(key, pace, now):
            self._settle(key, now)

    def behind(self, rings: Iterable[Ring]) -> None:
        """Park these rings, whose deliveries are not at the head of their lines."""
        self.to_park += (Parked(ring, WaitingFor.ORDER) for ring in rings if not ring.is_parked)

    def unclaimed(self, ring: Ring, now: float) -> None:
        """Count a ring that claimed nothing."""
        if begun := self._begun.end(ring.delivery_id):
            self._lanes[begun[0]].unspent()
            self._use_room(begun[0], now)

    def found_locked(self, rings: Sequence[Ring], now: float) -> None:
        """Put these rings, whose endpoints' rows are locked, first in their lanes, and begin none for a moment."""
        keys = dict.fromkeys((ring.tenant_id, ring.endpoint_id) for ring in rings)
        for key in keys:
            self._lanes[key].lock(now)
            self.locked.add(key, now)
        for ring in reversed(rings):
            self.unclaimed(ring, now)
            if ring.delivery_id not in self._waiting:
                self._waiting.add(ring, now, first=True)
        for key in keys:
            self._settle(key, now)

    def left(self, delivery_id: str, now: float) -> bool:
        """Count the end of a delivery without an answer, unless it was answered; return whether it was not."""
        if begun := self._begun.end(delivery_id):
            self._lanes[begun[0]].left()
            self._use_room(begun[0], now)
        return begun is not None

    def answered(self, ring: Ring, outcome: Outcome, now: float) -> None:
        """Count the end of a request."""
        if begun := self._begun.end(ring.delivery_id, outcome, now):
            key, begun_at = begun
            if self._lanes[key].answered(outcome, begun_at=begun_at, now=now):
                self._opened.append(Opened(key, outcome))
            self._use_room(key, now)

    def reopened(self, key: Key, since: object, now: float) -> None:
        """Begin slowly again after the lane was closed, once for each `since`."""
        if (lane := self._lanes[key]).reopened != since:
            lane.reopen(since)
            lane.made_wait_at = now
            self._settle(key, now)

    def share_again(self) -> None:
        """Take another share in the limit of each endpoint if workers came or went. Call it every second."""
        self._lanes.share_again()

    def park_old(self, now: float) -> None:
        """Park the rings that have waited here for long: the sweep would take them for lost."""
        for delivery_id in [each for each, (at, _) in self._first.items() if now - at >= LONGEST_WAIT_SECONDS]:
            del self._first[delivery_id]  # the sweep rings it again
        for key in list(self._waiting.by_lane):
            self._waiting.unblock(key)
            for ring in self._waiting.take_old(key, now - LONGEST_WAIT_SECONDS):
                self._park(ring, now)
            self._settle(key, now)

    def take_parked(self, most: int) -> list[Parked]:
        """Remove and return rings that are to be parked."""
        return [self.to_park.popleft() for _ in range(min(most, len(self.to_park)))]

    def take_opened(self) -> list[Opened]:
        """Remove and return the breakers that are to be opened."""
        opened, self._opened = self._opened, []
        return opened

    def wanted(self, slots: int, now: float) -> list[Asked]:
        """Return what to ask the crowded lanes for that have room, in the order of their turns."""
        self._got_room, asked = False, list[Asked]()
        left = min(self.space(slots), MOST_ASKED)
        each = max(left // max(len(self.crowded), 1), 1)  # of many lanes few may have more: a look asks many
        for key in self.crowded.turns(now) if left > 0 else ():
            lane = self._lanes[key]
            if not (room := lane.room(now)):
                lane.made_wait_at = now
            room -= (here := len(self._waiting.by_lane.get(key, ())))
            few = lane.in_flight and lane.rate is None and room < lane.limit // 4
            is_full = here > LOOK_AHEAD // 2 or self.tenants.is_full(key[0])
            is_full |= not lane.answers and self._unanswered.has_enough(key[0], now, self._waiting.places(key[0]))
            if room <= 0 or is_full:
                self.crowded.no_room(key, now, has_share=bool(lane.ceiling))
            elif not (few and self.crowded.may_wait(key, now)):
                asked.append(self.crowded.ask(key, min(room, each), here, now))
                if (left := left - min(room, each)) <= 0:
                    break
        return asked

    def found(self, asked: Sequence[Asked], rings: Sequence[Ring], now: float) -> None:
        """Let these deliveries of crowded lanes wait for their turn here, and note which lanes had no more."""
        self.crowded.found(asked, rings, now)
        self.add(rings, now)

    def leave(self) -> list[Ring]:
        """Remove and return every ring that waits here and is not parked, for another worker."""
        left = [*(ring for _, ring in self._first.values()), *(each.ring for each in self.to_park)]
        self._first.clear()
        self.to_park.clear()
        self._ready = RoundRobin()
        self._unanswered.leave()
        return left + self._waiting.leave()

    def _take(self, key: Key, now: float) -> Ring:
        here_since, lane = self._waiting.by_lane[key][0][0], self._lanes[key]
        ring = self._waiting.take(key)
        if key not in self._waiting.by_lane:
            self._leave_turns(key)
        if ring.is_parked:
            waited = lane.pace.ordered or lane.made_wait_at >= here_since - FETCHED_WITHIN_SECONDS
        else:
            waited = lane.made_wait_at >= here_since
        self.begin(ring, now, waited=waited)
        return ring

    def _leave_turns(self, key: Key) -> None:
        self._ready.discard(key)
        self._unanswered.forget(key)

    def _use_room(self, key: Key, now: float) -> None:
        self._got_room |= self.crowded.got_room(key, now)
        if key not in self._ready or not self._lanes[key].answers:  # else more room changes nothing
            self._settle(key, now)

    def _settle(self, key: Key, now: float, *, is_next: bool = False) -> None:
        """Put the lane among those that are ready if it has room, and park the rings for which it has no place.

        `is_next` says that it does not wait any longer behind other lanes without answers.
        """
        rings = self._waiting.by_lane.get(key)
        if rings is None:
            self._leave_turns(key)
            return
        self._waiting.unblock(key)
        room = (lane := self._lanes[key]).room(now)
        waits = self._unanswered.must_wait(key, now, unless=lane.answers or is_next or not room)
        places = 0 if waits else room
        places += min(LEAST_MAY_WAIT if waits else lane.may_wait(now), self._waiting.places(key[0]))
        while len(rings) > places:
            lane.made_wait_at = now
            self._park(self._waiting.take(key, last=True), now)
        if not rings:
            self._leave_turns(key)
        elif room and not waits:
            self._ready.add(key)
        else:
            self._ready.discard(key)
            if waits or (lane.is_known and not lane.is_locked(now)):
                lane.made_wait_at = now
            if waits or lane.is_known or lane.is_locked(now):
                self._waiting.block(key)

    def _park(self, ring: Ring, now: float) -> None:
        key = (ring.tenant_id, ring.endpoint_id)
        if ring.is_parked:  # it still waits in PostgreSQL
            self.crowded.start_over(key)
            return
        self.to_park.append(Parked(ring, self._lanes[key].waiting_for(now)))
