"""One lane: how many requests to one endpoint this worker may have in flight; and all lanes that it knows. Pure.

The limit grows while the endpoint answers and halves when it is in trouble, at most once for all requests that were in
flight together. After many failures in a row the breaker opens. All live workers share the limit of an endpoint.
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from hookseal.dispatcher.core.model import NO_PACE, Outcome, Pace, Ring, WaitingFor
from hookseal.dispatcher.lanes.round_robin import Key


@dataclass(frozen=True, slots=True)
class Fleet:
    """The number of live workers, and the rank of this one among them, from 0."""

    rank: int = 0
    workers: int = 1

    def share(self, whole: int, endpoint_id: str) -> int:
        """Return this worker's part of a whole number. The parts of all workers together are the whole.

        Which workers get one more than others differs by endpoint; with fewer than one for each, some get none.
        """
        each, rest = divmod(whole, self.workers)
        turn = (self.rank + int(endpoint_id[-8:], 16)) % self.workers
        return each + (turn < rest)


LOCKED_SECONDS: Final = 0.2  # how long a worker claims nothing for an endpoint after it found its row locked


class LockedEndpoints:
    """The endpoints for which nothing is claimed for a moment, those first whose time ends first."""

    def __init__(self) -> None:
        self._until: OrderedDict[Key, float] = OrderedDict()

    @property
    def next_at(self) -> float:
        """When the first of them may be tried again; infinity if there is none."""
        return next(iter(self._until.values()), inf)

    def add(self, key: Key, now: float) -> None:
        """Claim nothing for this endpoint for a moment."""
        self._until[key] = now + LOCKED_SECONDS
        self._until.move_to_end(key)

    def ended(self, now: float) -> Iterator[Key]:
        """Remove and yield those that may be tried again."""
        while self.next_at <= now:
            yield self._until.popitem(last=False)[0]


BREAKER_FAILURES: Final = 10  # in a row
CLOSED_SECONDS: Final = 5.0  # how long a worker claims nothing for a closed lane; then it asks PostgreSQL again
MOST_LOCKED_IN_A_ROW: Final = (
    25  # tries that found the row locked, in five seconds; then no ring waits here until a claim succeeds
)
# A lane that may grow beyond its ceiling does so by an eighth with each round of answers, if all that it may have was
# in flight meanwhile, and if an answer takes at most 0.1 s, or twice the shortest time.
GROWTH: Final = 1 / 8
PEAK_PART: Final = 4  # one endpoint grows to at most a quarter of the slots of a worker
QUICK_SECONDS: Final = 0.1
SLOWER: Final = 2.0
FORGOTTEN_PART: Final = 1 / 100  # of the difference to each slower answer: an endpoint may become slower for good
UNKNOWN_MAY_WAIT: Final = 256  # rings of an endpoint whose settings this worker has not read yet
LEAST_MAY_WAIT: Final = 4
# The endpoint, or the way to it, cannot take what is sent.
TROUBLE: Final = frozenset({
    Outcome.THROTTLED,
    Outcome.SERVER_ERROR,
    Outcome.TIMEOUT,
    Outcome.TLS,
    Outcome.DNS,
    Outcome.CONNECTION,
    Outcome.PROTOCOL,
})  # fmt: skip
# These say nothing about the endpoint: nothing was sent, or nobody knows what came of it.
NEUTRAL: Final = frozenset({Outcome.FORBIDDEN_ADDRESS, Outcome.PROXY, Outcome.INVALID_URL, Outcome.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Parked:
    """A ring whose delivery is to wait in PostgreSQL, and what it waits for."""

    ring: Ring
    waiting_for: WaitingFor


@dataclass(frozen=True, slots=True)
class Opened:
    """An endpoint whose breaker opens, and the outcome that opened it."""

    key: Key
    outcome: Outcome


@dataclass(slots=True)
class Lane:
    """The state of one endpoint in one worker. `ceiling` is this worker's share of the endpoint's limit.

    `peak` is this worker's share of the limit of an endpoint that answers quickly: `limit` may grow from the ceiling to
    it. It is 0 for an endpoint with a limit of its own. `fastest` is about the shortest time in which the endpoint
    answered lately, and `full_at` when as many requests were in flight as may be. `is_known` says whether the settings
    were read: before that only one request is in flight. `answers` says whether the last request was answered.
    `made_wait_at` is when a delivery last waited because the lane had no room.
    """

    ceiling: int
    limit: float
    threshold: float
    peak: int = 0
    fastest: float = inf
    full_at: float = -inf
    pace: Pace = NO_PACE
    rate: float | None = None
    tokens: float = 1.0
    filled_at: float = 0.0
    is_known: bool = False
    answers: bool = False
    in_flight: int = 0
    failed_in_a_row: int = 0
    halved_at: float = float("-inf")
    closed_until: float = float("-inf")
    locked_until: float = float("-inf")
    locked_in_a_row: int = 0
    reopened: object = None
    made_wait_at: float = float("-inf")

    def configure(
        self, pace: Pace, fleet: Fleet, endpoint_id: str, *, default: int, peak: int = 0, peak_here: int = 0
    ) -> None:
        """Take over the settings that were read."""
        self.pace = pace
        self.is_known = True
        self.locked_in_a_row = 0
        self.share(fleet, endpoint_id, default=default, peak=peak, peak_here=peak_here)

    def share(self, fleet: Fleet, endpoint_id: str, *, default: int, peak: int = 0, peak_here: int = 0) -> None:
        """Take this worker's share. A lane without trouble has the whole of it at once."""
        # Of an ordered endpoint any worker may have the one delivery that is claimed: the claim takes only the head.
        ceiling = 1 if self.pace.ordered else fleet.share(self.pace.concurrency or default, endpoint_id)
        may_grow = not self.pace.ordered and self.pace.concurrency is None
        self.peak = min(fleet.share(peak, endpoint_id), peak_here) if may_grow and ceiling else 0
        if ceiling != self.ceiling:
            if self.limit >= self.ceiling:
                self.limit = self.threshold = float(max(ceiling, 1))
            self.ceiling = ceiling
        self.limit = min(self.limit, float(max(self.peak, ceiling, 1)))
        self.rate = None if self.pace.rate is None else self.pace.rate / fleet.workers

    def lowered(self, claimed: int, now: float, *, most_before: int, rate_before: float | None) -> int:
        """Return how many of the requests that were just claimed, and counted, lower settings do not allow.

        A lower rate counts all of them, as if it had been there before.
        """
        over = self.in_flight - self.most if self.most < most_before else 0
        if self.rate is not None and (rate_before is None or self.rate < rate_before):
            self.tokens += claimed if rate_before is not None else 0
            self._fill(now, self.rate)
            self.tokens -= claimed
            over = max(over, ceil(-self.tokens))
        return min(max(over, 0), claimed)

    def room(self, now: float) -> int:
        """Return how many more requests may begin now."""
        if now < self.closed_until or now < self.locked_until:
            return 0
        room = self.most - self.in_flight
        if room > 0 and self.rate is not None:
            self._fill(now, self.rate)
            room = min(room, int(self.tokens))
        return max(room, 0)

    def may_wait(self, now: float) -> int:
        """Return how many rings may wait in this worker: about one more round. The others wait in PostgreSQL."""
        is_stuck = now < self.closed_until or self.locked_in_a_row >= MOST_LOCKED_IN_A_ROW
        if is_stuck or self.rate is not None or not self.ceiling:
            return 0
        return max(int(self.limit), LEAST_MAY_WAIT) if self.is_known else UNKNOWN_MAY_WAIT

    def begin(self, now: float) -> None:
        """Count a request."""
        self.in_flight += 1
        if self.in_flight >= self.most:
            self.full_at = now
        if self.rate is not None:
            self._fill(now, self.rate)
            self.tokens -= 1

    def left(self) -> None:
        """Count the end of a request whose outcome says nothing about the endpoint, or that was not begun."""
        self.in_flight -= 1

    def unspent(self) -> None:
        """Count a request that was not begun."""
        self.in_flight -= 1
        self.tokens += self.rate is not None

    def answered(self, outcome: Outcome, *, begun_at: float, now: float) -> bool:
        """Count the end of a request with this outcome, and return whether the breaker opens."""
        self.in_flight -= 1
        if outcome in NEUTRAL:
            return False
        self.answers = outcome not in TROUBLE
        if self.answers:
            self.failed_in_a_row = 0
            self._grow(now - begun_at, was_full=self.full_at >= begun_at)
            return False
        self.failed_in_a_row += 1
        if begun_at > self.halved_at:  # else it was in flight when the limit was halved
            self.limit = self.threshold = max(self.limit / 2, 1.0)
            self.halved_at = now
        if self.failed_in_a_row < BREAKER_FAILURES or now < self.closed_until:
            return False
        self.close(now)
        return True

    def close(self, now: float) -> None:
        """Begin nothing for a while: the lane is closed for all workers."""
        self.closed_until = now + CLOSED_SECONDS

    def lock(self, now: float) -> None:
        """Begin nothing for a moment: another transaction has locked the endpoint's row."""
        self.locked_until = now + LOCKED_SECONDS
        self.locked_in_a_row += 1

    def is_locked(self, now: float) -> bool:
        """Return whether nothing begins because the row was found locked."""
        return now < self.locked_until

    def reopen(self, since: object) -> None:
        """Begin again with one request at a time; the limit then doubles with each round, up to half of the ceiling."""
        self.reopened = since
        self.closed_until = float("-inf")
        self.failed_in_a_row = 0
        self.limit, self.threshold = 1.0, max(self.ceiling / 2, 1.0)

    def is_idle(self, now: float) -> bool:
        """Return whether the worker may forget it: it has no request in flight, no trouble, and all its tokens."""
        if self.rate is not None and self.tokens + (now - self.filled_at) * self.rate < max(self.rate, 1.0):
            return False  # a new lane has them all
        return not self.in_flight and self.limit >= self.ceiling

    def waiting_for(self, now: float) -> WaitingFor:
        """Return what a delivery waits for that may not begin now."""
        if self.rate is None or now < self.closed_until:
            return WaitingFor.CONCURRENCY
        allowed = int(self.tokens)
        return WaitingFor.RATE if allowed < max(self.most - self.in_flight, 1) else WaitingFor.CONCURRENCY

    @property
    def most(self) -> int:
        """How many requests may be in flight now."""
        return min(int(self.limit), max(self.peak, self.ceiling)) if self.is_known else min(self.ceiling, 1)

    def _grow(self, seconds: float, *, was_full: bool) -> None:
        """Raise the limit after an answer that took so long: up to the ceiling, and beyond it if that helps.

        Beyond the ceiling it grows only while it is used, and while more requests in flight do not make each of them
        slower; else it shrinks. So it stays where the endpoint answers most in a second.
        """
        if seconds < self.fastest:
            self.fastest = seconds
        elif not was_full:  # else the endpoint may be slower only because of what it has to answer
            self.fastest += (seconds - self.fastest) * FORGOTTEN_PART
        if self.limit < self.ceiling:
            grown = self.limit + (1.0 if self.limit < self.threshold else 1.0 / self.limit)
            self.limit = min(grown, float(max(self.ceiling, 1)))
        elif self.peak > self.ceiling:
            is_fast = seconds <= max(QUICK_SECONDS, SLOWER * self.fastest)
            changed = self.limit + (GROWTH if was_full and is_fast else -GROWTH)
            self.limit = max(min(changed, float(self.peak)), float(self.ceiling))

    def _fill(self, now: float, rate: float) -> None:
        """Add the tokens of the time since the last call: `rate` for each second, and at most those of one second."""
        self.tokens = min(self.tokens + (now - self.filled_at) * rate, max(rate, 1.0))
        self.filled_at = now


MOST_LANES: Final = 10_000  # idle lanes whose state is kept


class KnownLanes:
    """The lanes by endpoint. `ceiling` is the limit of an endpoint without one of its own, for the whole fleet.

    `peak` is what this limit may grow to, `peak_here` what the part of this worker may. A lane with rings that wait,
    which is one of `waiting`, is kept.
    """

    def __init__(
        self, ceiling: int, fleet: Callable[[], Fleet], waiting: Container[Key], *, peak: int = 0, peak_here: int = 0
    ) -> None:
        self._default = ceiling
        self._peak = peak
        self._peak_here = peak_here
        self._fleet = fleet
        self._shared = fleet()
        self._waiting = waiting
        self._lanes: OrderedDict[Key, Lane] = OrderedDict()
        self._now = float("-inf")  # the time of the last claim

    def __len__(self) -> int:
        return len(self._lanes)

    def __getitem__(self, key: Key) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            ceiling = self._fleet().share(self._default, key[1])
            lane = self._lanes[key] = Lane(ceiling, limit=float(max(ceiling, 1)), threshold=float(max(ceiling, 1)))
            self._drop_idle()
        return lane

    def configure(self, key: Key, pace: Pace, number: int, now: float) -> int:
        """Take over the settings that a claim of so many has read; return how many of these they do not allow."""
        self._now = now
        lane = self[key]
        self._lanes.move_to_end(key)
        is_new, most, rate = not lane.is_known or pace != lane.pace, lane.most, lane.rate
        lane.configure(pace, self._fleet(), key[1], default=self._default, peak=self._peak, peak_here=self._peak_here)
        return lane.lowered(number, now, most_before=most, rate_before=rate) if is_new else 0

    def read(self, key: Key, pace: Pace, now: float) -> bool:
        """Take over the settings that a look has read, if they are new; return whether they were taken over.

        If requests have begun, that is left to the claims: a claim that runs gives back what lower limits do not allow.
        """
        lane = self[key]
        is_new = not lane.in_flight and (pace != lane.pace or not lane.is_known)
        if is_new:  # each look would otherwise restart the count of tries that found the row locked
            self.configure(key, pace, 0, now)
        return is_new

    def share_again(self) -> None:
        """If workers came or went, take another share in the limit of each lane: one without a share claims nothing."""
        fleet = self._fleet()
        if fleet != self._shared:
            self._shared = fleet
            for key, lane in self._lanes.items():
                lane.share(fleet, key[1], default=self._default, peak=self._peak, peak_here=self._peak_here)

    def _drop_idle(self) -> None:
        """Forget the lane that was claimed for longest ago if there are too many, unless something would be lost."""
        for _ in range(min(len(self._lanes) - MOST_LANES, 2)):  # two, so that those that are kept do not add up
            key, lane = next(iter(self._lanes.items()))
            if lane.is_idle(self._now) and key not in self._waiting:
                del self._lanes[key]
            else:
                self._lanes.move_to_end(key)
