"""Simulates workers with the lanes of the product, endpoints that fail and recover, and PostgreSQL as a few dicts.

Time is a number that jumps from event to event, so that days take seconds. A claim takes no time. What the simulation
shares with the product are the decisions (`hookseal.dispatcher.lanes`); what it leaves out are statements and sockets.
"""

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from hookseal.dispatcher.lane_store import FIRST_PROBE_SECONDS
from hookseal.dispatcher.lanes.fleet import Fleet
from hookseal.dispatcher.lanes.lane import TROUBLE
from hookseal.dispatcher.lanes.rotation import Key
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.dispatcher.model import NO_PACE, Outcome, Pace, Ring
from hookseal.dispatcher.policy import LONGEST_PROBE_SECONDS
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId

LOOK_SECONDS: Final = 0.1  # of a keeper, while a lane is crowded
RETRY_SECONDS: Final = 30.0  # the first back-off; each later one is twice as long
CLAIM_SECONDS: Final = 0.005

# Returns for a time how long the endpoint takes to answer, and its outcome.
Receiver = Callable[[float], tuple[float, Outcome]]


@dataclass(slots=True)
class Delivery:
    """A delivery, when it was published, and when its first request began."""

    number: int
    key: Key
    published_at: float
    attempts: int = 0
    begun_at: float | None = None
    ended_at: float | None = None


@dataclass(slots=True)
class Endpoint:
    """An endpoint: its receiver and pace, and what PostgreSQL has about it."""

    receiver: Receiver
    pace: Pace = NO_PACE
    parked: list[int] = field(default_factory=list)  # a heap: the oldest first
    is_crowded: bool = False
    is_held: bool = False
    step: float = FIRST_PROBE_SECONDS
    probe: int | None = None
    reopened_at: float | None = None
    in_flight: int = 0


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

    def __init__(self, rank: int, workers: int, slots: int, ceiling: int) -> None:
        self.lanes = Lanes(ceiling, lambda: Fleet(rank, workers))
        self.slots = slots
        self.taken = 0
        self.is_looking = False


class Simulation:
    """A fleet, its endpoints, and the deliveries so far. `begun` is called with each request that begins."""

    def __init__(self, *, workers: int = 2, slots: int = 500, ceiling: int = 32, seed: int = 7) -> None:
        self.now = 0.0
        self.endpoints: dict[Key, Endpoint] = {}
        self.deliveries: list[Delivery] = []
        self.workers = [Worker(rank, workers, slots, ceiling) for rank in range(workers)]
        self.begun: Callable[[Delivery, Endpoint], None] = lambda _delivery, _endpoint: None
        self._random = random.Random(seed)  # noqa: S311 -- no secret depends on it
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def add(self, tenant: str, number: int, receiver: Receiver, pace: Pace = NO_PACE) -> Key:
        """Add an endpoint."""
        key = (tenant, f"01900000-0000-7000-8000-{number:012x}")
        self.endpoints[key] = Endpoint(receiver, pace)
        return key

    def publish(self, at: float, key: Key) -> None:
        """Publish an event for this endpoint at that time."""
        delivery = Delivery(len(self.deliveries), key, at)
        self.deliveries.append(delivery)
        self._at(at, lambda: self._due(delivery))

    def run(self, until: float) -> None:
        """Let the time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _due(self, delivery: Delivery) -> None:
        """Ring it at one of the workers, or let it wait in its lane."""
        endpoint = self.endpoints[delivery.key]
        if endpoint.is_held or endpoint.is_crowded:
            heapq.heappush(endpoint.parked, delivery.number)
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
        while picked := worker.lanes.pick(worker.slots - worker.taken, self.now):
            for ring in picked:
                self._begin(worker, ring)
        if worker.lanes.needs_database:
            self._keep(worker)

    def _begin(self, worker: Worker, ring: Ring) -> None:
        delivery = self.deliveries[int(ring.delivery_id)]
        endpoint = self.endpoints[delivery.key]
        is_probe = endpoint.probe == delivery.number if endpoint.is_held else None
        claim: Any = _Claim(ring, _Target(endpoint.pace), is_probe)
        worker.lanes.claimed(claim, self.now)
        if is_probe is False:
            worker.lanes.unclaimed(ring, self.now)
            heapq.heappush(endpoint.parked, delivery.number)
            return
        worker.taken += 1
        endpoint.in_flight += 1
        delivery.attempts += 1
        if delivery.begun_at is None:
            delivery.begun_at = self.now
        self.begun(delivery, endpoint)
        seconds, outcome = endpoint.receiver(self.now)
        self._at(self.now + CLAIM_SECONDS + seconds, lambda: self._answer(worker, ring, outcome))

    def _answer(self, worker: Worker, ring: Ring, outcome: Outcome) -> None:
        delivery = self.deliveries[int(ring.delivery_id)]
        endpoint = self.endpoints[delivery.key]
        worker.taken -= 1
        endpoint.in_flight -= 1
        worker.lanes.answered(ring, outcome, self.now)
        if outcome is Outcome.DELIVERED:
            delivery.ended_at = self.now
        else:
            wait = RETRY_SECONDS * 2 ** min(delivery.attempts - 1, 10)
            self._at(self.now + wait, lambda: self._due(delivery))
        if endpoint.is_held and endpoint.probe == delivery.number:
            self._probed(endpoint, delivery.key, is_well=outcome not in TROUBLE)
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
            if endpoint.is_held and endpoint.probe == int(parked.ring.delivery_id):
                worker.lanes.add_first([parked.ring], self.now)
                continue
            heapq.heappush(endpoint.parked, int(parked.ring.delivery_id))
            if not endpoint.is_held and not endpoint.is_crowded:
                endpoint.is_crowded = True
                for other in self.workers:
                    self._at(self.now + self._random.random(), lambda each=other, of=key: self._learn(each, of))  # type: ignore[misc]
            worker.lanes.crowded.learn(key)
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
        if not endpoint.parked:
            endpoint.is_held, endpoint.step = False, FIRST_PROBE_SECONDS
            return
        endpoint.step = min(2 * endpoint.step, LONGEST_PROBE_SECONDS)
        endpoint.probe = heapq.heappop(endpoint.parked)
        self._ring(self.deliveries[endpoint.probe])
        self._at(self.now + endpoint.step * self._spread(), lambda: self._probe(key))

    def _look(self, worker: Worker) -> None:
        """Fetch the next deliveries of the crowded lanes, and look again while there are any."""
        wanted = worker.lanes.wanted(worker.slots - worker.taken, self.now)
        found: list[Ring] = []
        for key, number in wanted:
            endpoint = self.endpoints[key]
            while endpoint.parked and number > 0 and not endpoint.is_held:
                found.append(self._ring_of(self.deliveries[heapq.heappop(endpoint.parked)], is_parked=True))
                number -= 1  # noqa: PLW2901 -- so many are still wanted
        worker.lanes.found(wanted, found, self.now)
        for key in worker.lanes.crowded.emptied(self.now):
            endpoint = self.endpoints[key]
            endpoint.is_crowded = endpoint.is_crowded and bool(endpoint.parked)
            worker.lanes.crowded.forget(key)
        while picked := worker.lanes.pick(worker.slots - worker.taken, self.now):
            for ring in picked:
                self._begin(worker, ring)
        if worker.lanes.crowded and not worker.is_looking:
            worker.is_looking = True
            self._at(self.now + LOOK_SECONDS, lambda: self._look_again(worker))

    def _look_again(self, worker: Worker) -> None:
        worker.is_looking = False
        worker.lanes.park_old(self.now)
        self._turn(worker)
        self._look(worker)

    def _spread(self) -> float:
        return 0.75 + 0.5 * self._random.random()


def healthy(seconds: float = 0.02) -> Receiver:
    """Return a receiver that answers."""
    return lambda _now: (seconds, Outcome.DELIVERED)


def hanging(timeout: float = 5.0) -> Receiver:
    """Return a receiver that never answers."""
    return lambda _now: (timeout, Outcome.TIMEOUT)


def failing_between(begin: float, end: float, *, seconds: float = 0.02, timeout: float = 5.0) -> Receiver:
    """Return a receiver that answers, except that it hangs in between."""
    return lambda now: (timeout, Outcome.TIMEOUT) if begin <= now < end else (seconds, Outcome.DELIVERED)


def waits(simulation: Simulation, tenants: set[str]) -> list[float]:
    """Return how long each delivery of these tenants waited for its first request, in order of the wait."""
    return sorted(
        each.begun_at - each.published_at
        for each in simulation.deliveries
        if each.key[0] in tenants and each.begun_at is not None
    )


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which this share lies."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


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
