"""Simulates workers with the lanes of the product, endpoints that fail and recover, and PostgreSQL as a few dicts.

Time is a number that jumps from event to event, so that days take seconds. A claim takes no time. What the simulation
shares with the product are the decisions (`hookseal.dispatcher.lanes`); what it leaves out are statements and sockets.
What statements decide it repeats: which delivery may be claimed, what waits, and what the leader moves on.
"""

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from hookseal.dispatcher.core.model import NO_PACE, OnDeadLetter, Outcome, Pace, Ring, WaitingFor
from hookseal.dispatcher.core.policy import LONGEST_PROBE_SECONDS
from hookseal.dispatcher.lanes.crowded import Asked
from hookseal.dispatcher.lanes.lane import PEAK_PART, TROUBLE, Fleet
from hookseal.dispatcher.lanes.round_robin import Key
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.dispatcher.store.lanes import FIRST_PROBE_SECONDS, MOST_LEFT_WAITING, REOPENED_SECONDS
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.worker.holding import LOOK_SECONDS as LINE_SECONDS
from hookseal.worker.lane_keeper import BUSY_LOOK_SECONDS, LOOK_SECONDS, MOST_FETCHES

RETRY_SECONDS: Final = 30.0  # the first back-off; each later one is twice as long
CLAIM_SECONDS: Final = 0.005
OUTBOX_SECONDS: Final = 0.13  # until what was given back is rung again

# Returns for a time how long the endpoint takes to answer, and its outcome.
Receiver = Callable[[float], tuple[float, Outcome]]


@dataclass(slots=True)
class Delivery:
    """A delivery, when it was published, and when its first request began.

    Only for those of ordered endpoints it is noted when they are due, and what they wait for.
    """

    number: int
    key: Key
    published_at: float
    attempts: int = 0
    begun_at: float | None = None
    ended_at: float | None = None
    spent: int = 0  # attempts since it was published or replayed
    due_at: float | None = None  # None: it is being sent, or has ended
    waiting_for: WaitingFor | None = None


@dataclass(slots=True)
class Line:
    """The deliveries of an ordered endpoint that have not left their line, in the order of publishing."""

    attempts_allowed: int
    on_dead_letter: OnDeadLetter
    deliveries: deque[Delivery] = field(default_factory=deque)
    is_watched: bool = False

    @property
    def head(self) -> Delivery | None:
        """The only one that may be claimed."""
        return self.deliveries[0] if self.deliveries else None

    def join(self, delivery: Delivery, now: float) -> bool:
        """Give it the last place; return whether it is due, as no other is in the line."""
        self.deliveries.append(delivery)
        delivery.spent, delivery.due_at = 0, now
        is_first = delivery is self.head
        delivery.waiting_for = None if is_first else WaitingFor.ORDER
        return is_first

    def leave(self, delivery: Delivery) -> None:
        """Take it out of its line."""
        self.deliveries.remove(delivery)  # it is the first, unless the simulation let it overtake


@dataclass(slots=True)
class Endpoint:
    """An endpoint: its receiver and pace, and what PostgreSQL has about it."""

    receiver: Receiver
    pace: Pace = NO_PACE
    line: Line | None = None
    parked: list[int] = field(default_factory=list)  # a heap: the oldest first. What is in a line is not here
    is_crowded: bool = False
    is_held: bool = False
    step: float = FIRST_PROBE_SECONDS
    probe: int | None = None
    reopened_at: float | None = None
    in_flight: int = 0

    def park(self, delivery: Delivery) -> None:
        """Let it wait for its lane."""
        if self.line is None:
            heapq.heappush(self.parked, delivery.number)
        else:
            delivery.waiting_for = WaitingFor.CONCURRENCY

    @property
    def has_parked(self) -> bool:
        """Whether one waits for its lane."""
        head = None if self.line is None else self.line.head
        return bool(self.parked) or (head is not None and head.waiting_for is WaitingFor.CONCURRENCY)

    def oldest(self, number: int) -> list[int]:
        """Return the oldest that wait for their lane, or the head of the line if it waits."""
        if self.line is not None:
            head = self.line.head
            return [head.number] if head is not None and head.waiting_for is not None else []
        return [heapq.heappop(self.parked) for _ in range(min(number, len(self.parked)))]


def healthy(seconds: float = 0.02) -> Receiver:
    """Return a receiver that answers."""
    return lambda _now: (seconds, Outcome.DELIVERED)


def hanging(timeout: float = 5.0) -> Receiver:
    """Return a receiver that never answers."""
    return lambda _now: (timeout, Outcome.TIMEOUT)


def failing_between(begin: float, end: float, *, seconds: float = 0.02, timeout: float = 5.0) -> Receiver:
    """Return a receiver that answers, except that it hangs in between."""
    return lambda now: (timeout, Outcome.TIMEOUT) if begin <= now < end else (seconds, Outcome.DELIVERED)


@dataclass(frozen=True, slots=True)
class _Target:
    pace: Pace


@dataclass(frozen=True, slots=True)
class _Claim:
    ring: Ring
    target: _Target
    is_probe: bool | None


class Worker:
    """One worker: its lanes and its slots."""

    def __init__(self, rank: int, workers: int, slots: int, ceiling: int, peak: int) -> None:
        self.lanes = Lanes(ceiling, lambda: Fleet(rank, workers), peak=peak, peak_here=slots // PEAK_PART)
        self.slots = slots
        self.taken = 0
        self.is_looking = False
        self.forget_at = float("-inf")
        self.turn_at = float("inf")


class Simulation:
    """A fleet, its endpoints, and the deliveries so far.

    `begun` is called with each request that begins, `given_up` with each delivery whose attempts are spent. Only those
    of ordered endpoints are given up.
    """

    def __init__(
        self, *, workers: int = 2, slots: int = 500, ceiling: int = 32, peak: int = 256, seed: int = 7
    ) -> None:
        self.now = 0.0
        self.endpoints: dict[Key, Endpoint] = {}
        self.deliveries: list[Delivery] = []
        self.workers = [Worker(rank, workers, slots, ceiling, peak) for rank in range(workers)]
        self.begun: Callable[[Delivery, Endpoint], None] = lambda _delivery, _endpoint: None
        self.given_up: Callable[[Delivery], None] = lambda _delivery: None
        self._random = random.Random(seed)  # noqa: S311 -- no secret depends on it
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def add(self, tenant: str, number: int, receiver: Receiver, pace: Pace = NO_PACE) -> Key:
        """Add an endpoint."""
        key = (tenant, f"01900000-0000-7000-8000-{number:012x}")
        self.endpoints[key] = Endpoint(receiver, pace)
        return key

    def add_ordered(
        self,
        tenant: str,
        number: int,
        receiver: Receiver,
        *,
        attempts: int = 11,
        what: OnDeadLetter = OnDeadLetter.STOP,
    ) -> Key:
        """Add an ordered endpoint, which gives a delivery up after so many attempts."""
        key = self.add(tenant, number, receiver, Pace(ordered=True))
        self.endpoints[key].line = Line(attempts, what)
        return key

    def publish(self, at: float, key: Key) -> None:
        """Publish an event for this endpoint at that time."""
        delivery = Delivery(len(self.deliveries), key, at)
        self.deliveries.append(delivery)
        self._at(at, lambda: self._published(delivery))

    def replay(self, at: float, delivery: Delivery) -> None:
        """At that time, send what stops its line again, in its place and with all its attempts."""
        self._at(at, lambda: self._replayed(delivery))

    def skip(self, at: float, delivery: Delivery) -> None:
        """At that time, take what stops its line out of it."""
        if (line := self.endpoints[delivery.key].line) is not None:
            self._at(at, lambda: self._skipped(line, delivery))

    def ring_all(self, at: float, key: Key) -> None:
        """At that time, make all due that waits for its order, and ring it, as another program may."""
        if (line := self.endpoints[key].line) is not None:
            self._at(at, lambda: self._ring_all(line))

    def run(self, until: float) -> None:
        """Let the time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _published(self, delivery: Delivery) -> None:
        line = self.endpoints[delivery.key].line
        if line is None or line.join(delivery, self.now):
            self._due(delivery)

    def _replayed(self, delivery: Delivery) -> None:
        delivery.spent, delivery.due_at = 0, self.now
        self._due(delivery)

    def _skipped(self, line: Line, delivery: Delivery) -> None:
        line.leave(delivery)
        self._watch(line, delivery.key)

    def _ring_all(self, line: Line) -> None:
        for each in [each for each in line.deliveries if each.waiting_for is WaitingFor.ORDER]:
            each.waiting_for = None
            self._ring(each)

    def _watch(self, line: Line, key: Key) -> None:
        """Let the leader look at the line, which it does twice a second."""
        if not line.is_watched:
            line.is_watched = True
            self._at((self.now // LINE_SECONDS + 1) * LINE_SECONDS, lambda: self._move(line, key))

    def _move(self, line: Line, key: Key) -> None:
        """Make the head of the line due if it waits without a reason."""
        line.is_watched = False
        head, endpoint = line.head, self.endpoints[key]
        if head is None or head.waiting_for is None:
            return
        if head.waiting_for is WaitingFor.ORDER or not (endpoint.is_held or endpoint.is_crowded):
            head.waiting_for = None
            self._due(head)

    def _due(self, delivery: Delivery) -> None:
        """Ring it at one of the workers, or let it wait in its lane."""
        endpoint = self.endpoints[delivery.key]
        if endpoint.is_held or endpoint.is_crowded:
            endpoint.park(delivery)
            return
        self._ring(delivery)

    def _ring(self, delivery: Delivery) -> None:
        worker = self._random.choice(self.workers)
        worker.lanes.add([self._ring_of(delivery)], self.now)
        self._turn(worker)

    def _ring_of(self, delivery: Delivery, *, is_parked: bool = False) -> Ring:
        return Ring(
            tenant_id=TenantId(delivery.key[0]),
            endpoint_id=EndpointId(delivery.key[1]),
            delivery_id=DeliveryId(str(delivery.number)),
            is_parked=is_parked,
        )

    def _turn(self, worker: Worker) -> None:
        """Begin what may begin, and write what is to be written."""
        self._pick(worker)
        if worker.lanes.needs_database:
            self._keep(worker)

    def _pick(self, worker: Worker) -> None:
        """Begin what may begin, now and at the end of a pause."""
        while picked := worker.lanes.pick(worker.slots - worker.taken, self.now):
            for ring in picked:
                self._begin(worker, ring)
        at = max(worker.lanes.next_at(self.now), self.now)
        if at < worker.turn_at and worker.taken < worker.slots:
            worker.turn_at = at
            self._at(at, lambda: self._turn_again(worker))

    def _turn_again(self, worker: Worker) -> None:
        worker.turn_at = float("inf")
        self._turn(worker)

    def _begin(self, worker: Worker, ring: Ring) -> None:
        delivery = self.deliveries[int(ring.delivery_id)]
        endpoint = self.endpoints[delivery.key]
        if not self._is_due(delivery, is_parked=ring.is_parked) or not self._is_in_turn(delivery):
            if self._is_due(delivery, is_parked=ring.is_parked):
                worker.lanes.behind([ring])
            worker.lanes.unclaimed(ring, self.now)
            return
        is_probe = endpoint.probe == delivery.number if endpoint.is_held else None
        claim: Any = _Claim(ring, _Target(endpoint.pace), is_probe)
        if worker.lanes.claimed(claim, self.now, int(is_probe is None)):
            self._give_back(worker, ring, delivery)
            return
        if endpoint.line is not None:
            worker.lanes.crowded.rest(delivery.key)
        if is_probe is False:
            worker.lanes.unclaimed(ring, self.now)
            endpoint.park(delivery)
            return
        worker.taken += 1
        endpoint.in_flight += 1
        delivery.attempts += 1
        delivery.spent += 1
        delivery.due_at = delivery.waiting_for = None
        if delivery.begun_at is None:
            delivery.begun_at = self.now
        self.begun(delivery, endpoint)
        seconds, outcome = endpoint.receiver(self.now)
        self._at(self.now + CLAIM_SECONDS + seconds, lambda: self._answer(worker, ring, outcome))

    def _give_back(self, worker: Worker, ring: Ring, delivery: Delivery) -> None:
        """Make it due again; the outbox rings it."""
        worker.lanes.unclaimed(ring, self.now)
        self._at(self.now + OUTBOX_SECONDS, lambda: self._due(delivery))

    def _is_due(self, delivery: Delivery, *, is_parked: bool) -> bool:
        """Return whether it is pending and due. What is in no line has one ring, and only while it is due."""
        if self.endpoints[delivery.key].line is None:
            return True
        return (
            delivery.due_at is not None and delivery.due_at <= self.now and (is_parked or delivery.waiting_for is None)
        )

    def _is_in_turn(self, delivery: Delivery) -> bool:
        """Return whether it is in no line, or the head of its line."""
        line = self.endpoints[delivery.key].line
        return line is None or delivery is line.head

    def _answer(self, worker: Worker, ring: Ring, outcome: Outcome) -> None:
        delivery = self.deliveries[int(ring.delivery_id)]
        endpoint = self.endpoints[delivery.key]
        worker.taken -= 1
        endpoint.in_flight -= 1
        worker.lanes.answered(ring, outcome, self.now)
        line = endpoint.line
        if outcome is Outcome.DELIVERED:
            delivery.ended_at = self.now
            if line is not None:
                line.leave(delivery)
        elif line is not None and delivery.spent >= line.attempts_allowed:
            if line.on_dead_letter is OnDeadLetter.SKIP:
                line.leave(delivery)
            self.given_up(delivery)
        else:
            wait = RETRY_SECONDS * 2 ** min(delivery.spent - 1, 10)
            delivery.due_at = self.now + wait
            self._at(self.now + wait, lambda: self._due(delivery))
        if endpoint.is_held and endpoint.probe == delivery.number:
            self._probed(endpoint, delivery.key, is_well=outcome not in TROUBLE)
        if line is not None:  # the next of its line may begin
            self._watch(line, delivery.key)
            worker.lanes.crowded.expect(delivery.key)
            self._keep(worker)
        self._turn(worker)

    def _probed(self, endpoint: Endpoint, key: Key, *, is_well: bool) -> None:
        endpoint.probe = None
        if is_well:
            endpoint.is_held = False
            endpoint.is_crowded = True
            endpoint.reopened_at, endpoint.step = self.now, FIRST_PROBE_SECONDS
            for worker in self.workers:
                self._at(self.now + self._random.random(), lambda each=worker: self._learn(each, key))  # type: ignore[misc]

    def _learn(self, worker: Worker, key: Key) -> None:
        endpoint = self.endpoints[key]
        worker.lanes.read_pace(key, endpoint.pace, self.now)
        if endpoint.reopened_at is not None:
            worker.lanes.reopened(key, endpoint.reopened_at, self.now)
        if endpoint.is_crowded:
            worker.lanes.crowded.learn(key)
        self._look(worker)

    def _keep(self, worker: Worker) -> None:
        """Open breakers, and park rings without room; rings that must no longer wait go first."""
        for opened in worker.lanes.take_opened():
            self._hold(opened.key)
        for parked in worker.lanes.take_parked(10_000):
            key: Key = (parked.ring.tenant_id, parked.ring.endpoint_id)
            endpoint = self.endpoints[key]
            delivery = self.deliveries[int(parked.ring.delivery_id)]
            is_due = self._is_due(delivery, is_parked=False)
            if parked.waiting_for is WaitingFor.ORDER:
                delivery.waiting_for = WaitingFor.ORDER if is_due else delivery.waiting_for
                continue
            if not is_due or (endpoint.is_held and endpoint.probe == delivery.number):
                worker.lanes.add_first([parked.ring], self.now)
                continue
            endpoint.park(delivery)
            if not endpoint.is_held and not endpoint.is_crowded:
                endpoint.is_crowded = True
                for other in self.workers:
                    self._at(self.now + self._random.random(), lambda each=other, of=key: self._learn(each, of))  # type: ignore[misc]
            worker.lanes.crowded.parked(key)
        self._look(worker)

    def _hold(self, key: Key) -> None:
        endpoint = self.endpoints[key]
        if not endpoint.is_held:
            endpoint.is_held, endpoint.is_crowded = True, False
            self._at(self.now + endpoint.step * self._spread(), lambda: self._probe(key))

    def _probe(self, key: Key) -> None:
        """Try the oldest waiting delivery. If none waits, the breaker closes."""
        endpoint = self.endpoints[key]
        if not endpoint.is_held:
            return
        if not endpoint.has_parked:
            endpoint.is_held, endpoint.step = False, FIRST_PROBE_SECONDS
            return
        endpoint.step = min(2 * endpoint.step, LONGEST_PROBE_SECONDS)
        [endpoint.probe] = endpoint.oldest(1)
        probe = self.deliveries[endpoint.probe]
        probe.waiting_for = None
        self._ring(probe)
        self._at(self.now + endpoint.step * self._spread(), lambda: self._probe(key))

    def _look(self, worker: Worker) -> None:
        """Fetch the next deliveries of the crowded lanes, and look again while there are any."""
        if self.now >= worker.forget_at and worker.taken < worker.slots:
            worker.forget_at = self.now + LOOK_SECONDS
            self._forget_calm(worker)
        for _ in range(MOST_FETCHES):
            wanted = worker.lanes.wanted(worker.slots - worker.taken, self.now)
            if not wanted:
                break
            worker.lanes.found(wanted, self._next(wanted), self.now)
        self._pick(worker)
        if worker.lanes.crowded and not worker.is_looking:
            worker.is_looking = True
            self._at(self.now + BUSY_LOOK_SECONDS, lambda: self._look_again(worker))

    def _forget_calm(self, worker: Worker) -> None:
        """Delete the lanes that have become calm, unless many deliveries wait in them or their breakers just closed."""
        crowded = worker.lanes.crowded
        for key in crowded.calm(self.now):
            endpoint = self.endpoints[key]
            was_crowded = endpoint.is_crowded
            if endpoint.reopened_at is None or self.now - endpoint.reopened_at > REOPENED_SECONDS:
                endpoint.is_crowded = was_crowded and len(endpoint.parked) > MOST_LEFT_WAITING
            if endpoint.is_held or not (was_crowded or endpoint.has_parked):
                crowded.forget(key)
            elif endpoint.has_parked:
                crowded.learn_again(key)
            else:
                crowded.keep(key)

    def _next(self, wanted: Sequence[Asked]) -> list[Ring]:
        """Return the oldest waiting deliveries of these lanes, at most so many of each."""
        found: list[int] = []
        for each in wanted:
            endpoint = self.endpoints[each.key]
            found += [] if endpoint.is_held else endpoint.oldest(each.number)
        return [self._ring_of(self.deliveries[each], is_parked=True) for each in found]

    def _look_again(self, worker: Worker) -> None:
        worker.is_looking = False
        worker.lanes.park_old(self.now)
        self._turn(worker)
        self._look(worker)

    def _spread(self) -> float:
        return 0.75 + 0.5 * self._random.random()


def waits(simulation: Simulation, tenants: set[str]) -> list[float]:
    """Return how long each delivery of these tenants waited for its first request, in order of the wait."""
    return sorted(
        each.begun_at - each.published_at
        for each in simulation.deliveries
        if each.key[0] in tenants and each.begun_at is not None
    )


def in_flight_over_time(simulation: Simulation, key: Key) -> "deque[tuple[float, int]]":
    """Return a record, filled while the simulation runs, of the requests in flight to an endpoint as each begins."""
    record: deque[tuple[float, int]] = deque()
    of = simulation.endpoints[key]

    def begun(_delivery: Delivery, endpoint: Endpoint) -> None:
        if endpoint is of:
            record.append((simulation.now, endpoint.in_flight))

    simulation.begun = begun
    return record


def most_by_minute(record: "deque[tuple[float, int]]", minutes: int) -> list[int]:
    """Return the most requests in flight in each minute."""
    most: dict[int, int] = defaultdict(int)
    for at, number in record:
        most[int(at // 60)] = max(most[int(at // 60)], number)
    return [most[minute] for minute in range(minutes)]
