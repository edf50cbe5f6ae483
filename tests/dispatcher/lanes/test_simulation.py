"""The bounds of docs/fairness.md, on a simulated fleet: thousands of endpoints and days of traffic in seconds."""

import itertools
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from hookseal.dispatcher.core.model import NO_PACE, OnDeadLetter, Outcome, Pace
from hookseal.dispatcher.lanes.rotation import Key
from hookseal.dispatcher.lanes.tenants import TENANT_SHARE
from tools.fairness.simulation import (
    OUTBOX_SECONDS,
    Delivery,
    Endpoint,
    Simulation,
    failing_between,
    hanging,
    healthy,
    in_flight_over_time,
    waits,
)
from tools.records import percentile

HOUR = 3_600.0
HEALTHY = {f"healthy-{number}" for number in range(10)}


def steady(simulation: Simulation, *, seconds: float, per_second: float = 10.0) -> None:
    """Publish at a steady rate for 50 healthy endpoints of ten tenants."""
    keys = [simulation.add(tenant, number, healthy()) for tenant in sorted(HEALTHY) for number in range(5)]
    for each in range(int(seconds * per_second)):
        simulation.publish(each / per_second, keys[each % len(keys)])


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize(
    ("endpoints", "answer"),
    [
        (1, (5.0, Outcome.TIMEOUT)),
        (1, (0.01, Outcome.THROTTLED)),
        (1, (0.01, Outcome.CONNECTION)),
        (500, (20.0, Outcome.TIMEOUT)),
    ],
)
def test_failing_endpoints_delay_no_other_tenant(endpoints: int, answer: tuple[float, Outcome]) -> None:
    """10,000 deliveries for endpoints of one tenant that hang, throttle or reset make no other tenant wait at all."""
    simulation = Simulation(workers=1)
    steady(simulation, seconds=30, per_second=20)
    bad = [simulation.add("bad", number, lambda _now: answer) for number in range(endpoints)]
    for each in range(10_000):
        simulation.publish(1.0, bad[each % endpoints])
    simulation.run(60)

    others = waits(simulation, HEALTHY)
    assert 600 == len(others)
    assert 0.0 == percentile(others, 0.99)
    assert simulation.workers[0].taken <= TENANT_SHARE / (TENANT_SHARE + 1) * 500 + 1


@pytest.mark.req("DEL-09")
def test_a_recovered_endpoint_gets_requests_gradually() -> None:
    """After an outage an endpoint gets one request of each worker, then at most twice as many in each round."""
    simulation = Simulation(workers=3)
    key = simulation.add("acme", 1, failing_between(10, 10 * 60, seconds=0.5))
    record = in_flight_over_time(simulation, key)
    for each in range(4_000):
        simulation.publish(each * 0.2, key)
    simulation.run(2 * HOUR)

    closed_at = simulation.endpoints[key].reopened_at
    assert closed_at is not None
    assert closed_at - 10 * 60 <= 300, "a probe comes at least every five minutes"
    for rounds in range(5):
        until = closed_at + 1.0 + 0.5 * rounds
        most = max((number for at, number in record if closed_at < at < until), default=0)
        assert most <= 3 * 2 ** (rounds + 2), f"{most} in flight after {rounds} rounds"
    assert all(number <= 32 for _, number in record), "the limit of the fleet"
    assert all(each.ended_at is not None for each in simulation.deliveries), "some starved"


@pytest.mark.req("DEL-09")
def test_an_outage_of_hours_costs_few_requests() -> None:
    """While an endpoint hangs for six hours, it gets about one request every few minutes, whatever waits for it."""
    simulation = Simulation(workers=2)
    key = simulation.add("acme", 1, failing_between(60, 6 * HOUR))
    record = in_flight_over_time(simulation, key)
    for each in range(20_000):
        simulation.publish(each * 1.0, key)
    simulation.run(6 * HOUR)

    during = [at for at, _ in record if 120 < at < 6 * HOUR]
    assert len(during) <= 6 * HOUR / 150
    assert max(b - a for a, b in itertools.pairwise(during)) <= 305


@pytest.mark.req("DEL-10")
def test_a_rate_holds_for_the_fleet() -> None:
    """A backlog of an endpoint with 10/s begins at ten a second over all workers, and no slower."""
    simulation = Simulation(workers=4)
    key = simulation.add("acme", 1, healthy(), Pace(rate=10))
    for _ in range(3_000):
        simulation.publish(0.0, key)
    simulation.run(290)

    begun = sorted(each.begun_at for each in simulation.deliveries if each.begun_at is not None)
    for seconds in (10, 60, 200):
        within = sum(at <= seconds for at in begun)
        assert 0.9 * 10 * seconds - 10 <= within <= 10 * seconds + 10


@pytest.mark.req("DEL-09")
def test_free_slots_are_used_and_the_oldest_go_first() -> None:
    """With slots free nothing waits whose lane has room, and an endpoint at its limit gets the oldest first."""
    simulation = Simulation(workers=1, slots=50, ceiling=1)
    keys = [simulation.add(f"t{number % 5}", number, healthy(0.2)) for number in range(40)]
    order: dict[tuple[str, str], list[int]] = {key: [] for key in keys}

    def begun(delivery: Delivery, endpoint: Endpoint) -> None:
        order[delivery.key].append(delivery.number)
        assert 1 == endpoint.in_flight

    simulation.begun = begun
    for each in range(4_000):
        simulation.publish(each * 0.01, keys[each * 7 % 40])
    simulation.run(200)

    assert all(each.ended_at is not None for each in simulation.deliveries)
    # Each endpoint has 100 deliveries of 0.205 s, one after another, published within 40 s: no time is lost.
    assert max(each.ended_at or 0.0 for each in simulation.deliveries) <= 41
    assert all(numbers == sorted(numbers) for numbers in order.values())


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize(("ceiling", "pace"), [(1, NO_PACE), (32, Pace(concurrency=1))])
def test_work_is_conserved_by_workers_without_a_share(ceiling: int, pace: Pace) -> None:
    """With more workers than an endpoint takes requests, what comes to one without a share is taken by another.

    A worker that does not know the endpoint gives the first one back, which is then rung again.
    """
    simulation = Simulation(workers=3, ceiling=ceiling)
    keys = [simulation.add("acme", number, healthy(0.01), pace) for number in range(30)]
    for each in range(300):
        simulation.publish(each * 1.0, keys[each % 30])
    simulation.run(400)

    waited = waits(simulation, {"acme"})
    assert 300 == len(waited)
    assert waited[-1] <= 1.1 + (2 * OUTBOX_SECONDS if pace.concurrency else 0)


@pytest.mark.req("DEL-09")
def test_a_limit_holds_for_workers_that_do_not_know_it() -> None:
    """A burst for new endpoints with fewer requests at once than workers never has more in flight than they take."""
    simulation, most = Simulation(workers=3), [0]
    keys = [simulation.add("acme", number, healthy(0.1), Pace(concurrency=1 + number % 2)) for number in range(20)]

    def begun(_delivery: Delivery, endpoint: Endpoint) -> None:
        most[0] = max(most[0], endpoint.in_flight - (endpoint.pace.concurrency or 0))

    simulation.begun = begun
    for each in range(400):
        simulation.publish(0.0, keys[each % 20])
    simulation.run(60)

    assert 0 == most[0]
    assert all(each.ended_at is not None for each in simulation.deliveries)


@pytest.mark.req("DEL-09")
def test_two_days_with_outages_deliver_everything() -> None:
    """1,000 endpoints, two days, outages of minutes to hours: every delivery arrives, and the healthy never wait."""
    simulation, chance = Simulation(workers=2), random.Random(3)
    keys = []
    for number in range(1_000):
        begin = chance.uniform(0, 40 * HOUR)
        fails = number % 4 == 0
        receiver = failing_between(begin, begin + chance.uniform(60, 4 * HOUR)) if fails else healthy()
        keys.append(simulation.add(f"{'sick' if fails else 'well'}-{number % 50}", number, receiver))
    for _ in range(8_000):
        simulation.publish(chance.uniform(0, 48 * HOUR), chance.choice(keys))
    simulation.run(60 * HOUR)

    assert all(each.ended_at is not None for each in simulation.deliveries), "some starved"
    well = waits(simulation, {f"well-{number}" for number in range(50)})
    assert 0.0 == well[-1]
    assert all(0 == each.taken for each in simulation.workers)


@pytest.mark.req("DEL-09")
def test_a_backlog_delays_no_tenant_with_few_deliveries() -> None:
    """With more work than slots, a tenant with a few deliveries waits a few turns, not for the backlog of another."""
    simulation = Simulation(workers=1, slots=45)
    big = [simulation.add("big", number, healthy(0.1)) for number in range(40)]
    small = simulation.add("small", 1, healthy(0.1))
    for each in range(6_000):
        simulation.publish(0.0, big[each % 40])
    for each in range(20):
        simulation.publish(1.0 + each * 0.5, small)
    simulation.run(12)

    assert percentile(waits(simulation, {"small"}), 0.99) <= 0.11


@pytest.mark.req("DEL-09")
def test_hanging_tenants_leave_a_slot() -> None:
    """Three tenants whose endpoints all hang do not take every slot."""
    simulation = Simulation(workers=1, slots=90)
    for key in [simulation.add(f"hung-{each % 3}", each, hanging(60.0)) for each in range(60)]:
        for _ in range(50):
            simulation.publish(0.0, key)
    simulation.publish(5.0, simulation.add("late", 1, healthy()))
    simulation.run(10)

    assert [0.0] == waits(simulation, {"late"})


@dataclass
class Requests:
    """The requests to ordered endpoints, in the order in which they began; and the deliveries that were given up."""

    simulation: Simulation
    of: dict[Key, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    given_up: set[int] = field(default_factory=set)
    replayed: set[int] = field(default_factory=set)
    skipped_at: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Listen to the simulation."""
        self.simulation.begun, self.simulation.given_up = self.begun, self.gives_up

    def begun(self, delivery: Delivery, endpoint: Endpoint) -> None:
        """Note a request."""
        if endpoint.line is not None:
            assert 1 == endpoint.in_flight
            before = self.of[delivery.key][-1:]
            assert all(each is delivery or self.has_left(each) for each in before), "the one before is not over"
            self.of[delivery.key].append(delivery)

    def gives_up(self, delivery: Delivery) -> None:
        """Act as the operator does an hour later: replay what stops a line, and skip what stops it again."""
        line, now = self.simulation.endpoints[delivery.key].line, self.simulation.now
        assert line is not None
        self.given_up.add(delivery.number)
        if line.on_dead_letter is OnDeadLetter.STOP and delivery.number not in self.replayed:
            self.replayed.add(delivery.number)
            self.simulation.replay(now + HOUR, delivery)
        elif line.on_dead_letter is OnDeadLetter.STOP:
            self.skipped_at[delivery.number] = now + HOUR
            self.simulation.skip(now + HOUR, delivery)
        else:
            self.skipped_at[delivery.number] = now

    def has_left(self, delivery: Delivery) -> bool:
        """Return whether the delivery has left its line."""
        skipped_at = self.skipped_at.get(delivery.number, math.inf)
        return delivery.ended_at is not None or skipped_at <= self.simulation.now


@pytest.mark.req("DEL-17")
def test_nothing_overtakes_in_an_ordered_endpoint() -> None:
    """Outages, dead letters that stop a line or leave it, replays, skips and wrong rings leave a day in order."""
    simulation, chance = Simulation(workers=3), random.Random(5)
    requests = Requests(simulation)
    keys = []
    for number in range(60):
        begin = chance.uniform(0, 16 * HOUR)
        receiver = failing_between(begin, begin + chance.uniform(60, 4 * HOUR))
        what = OnDeadLetter.STOP if number % 2 else OnDeadLetter.SKIP
        keys.append(simulation.add_ordered(f"t{number % 5}", number, receiver, attempts=2 + number % 10, what=what))
    steady(simulation, seconds=24 * HOUR, per_second=0.05)
    for at in sorted(chance.uniform(0, 24 * HOUR) for _ in range(2_000)):
        simulation.publish(at, chance.choice(keys))
    for _ in range(500):
        simulation.ring_all(chance.uniform(0, 24 * HOUR), chance.choice(keys))
    simulation.run(36 * HOUR)

    numbers = {key: [each.number for each in of] for key, of in requests.of.items()}
    assert [] == [key for key in keys if numbers[key] != sorted(numbers[key])], "something overtook"
    assert all(each.ended_at is not None or each.number in requests.skipped_at for each in simulation.deliveries)
    assert 0.0 == waits(simulation, HEALTHY)[-1]
    assert len(requests.given_up) > 50, "the outages were too short"
    assert len(requests.skipped_at.keys() & requests.replayed) > 5, "the replay fails, too"


@pytest.mark.req("DEL-17")
def test_an_ordered_endpoint_does_not_stand_still() -> None:
    """A line goes on as soon as the answer to its head is recorded, whatever others do; after a skip in 0.5 s."""
    simulation = Simulation(workers=3)
    keys = [simulation.add_ordered("acme", number, healthy(0.1)) for number in range(20)]
    bad = simulation.add("bad", 1, hanging())
    for each in range(4_000):
        simulation.publish(1.0 + each * 0.001, keys[each % 20])
        simulation.publish(1.0, bad)
    stopped = simulation.add_ordered("acme", 20, failing_between(0.0, 5.0), attempts=1)
    simulation.given_up = lambda delivery: simulation.skip(10.2, delivery)
    simulation.publish(1.0, stopped)
    simulation.publish(1.1, stopped)
    simulation.run(60)

    ends = sorted(each.ended_at for each in simulation.deliveries if each.key in keys and each.ended_at is not None)
    assert 4_000 == len(ends)
    assert ends[-1] <= 1.0 + 0.019 + 200 * 0.105 + 0.001
    assert 10.5 == simulation.deliveries[-1].begun_at, "the leader moves it on"
