"""One lane, and a simulation of many."""

import itertools
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from hookseal.dispatcher.core.model import NO_PACE, OnDeadLetter, Outcome, Pace, WaitingFor
from hookseal.dispatcher.lanes.lane import (
    BREAKER_FAILURES,
    CLOSED_SECONDS,
    LEAST_MAY_WAIT,
    NEUTRAL,
    TROUBLE,
    Fleet,
    Lane,
)
from hookseal.dispatcher.lanes.round_robin import Key
from hookseal.dispatcher.lanes.tenants import TENANT_SHARE
from tests.doubles.claims import ENDPOINT
from tests.doubles.replaced import replace
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

OK, BAD = Outcome.DELIVERED, Outcome.TIMEOUT
ALONE = Fleet()
NOW = 100.0  # long after the start of the clock, so that the tokens of a second are there
HOUR = 3_600.0
HEALTHY = {f"healthy-{number}" for number in range(10)}


def lane(ceiling: int = 32, *, rate: int | None = None, fleet: Fleet = ALONE) -> Lane:
    """Return a lane whose settings are read."""
    new = Lane(ceiling=ceiling, limit=float(ceiling), threshold=float(ceiling))
    new.configure(Pace(concurrency=ceiling, rate=rate), fleet, ENDPOINT, default=32)
    return new


def answer(of: Lane, outcome: Outcome, *, at: float, begun_at: float | None = None) -> bool:
    """Begin a request and end it with this outcome; return whether the breaker opens."""
    of.begin(at)
    return of.answered(outcome, begun_at=at if begun_at is None else begun_at, now=at)


@pytest.mark.req("DEL-05", part="throttled")
@pytest.mark.req("DEL-09")
@pytest.mark.parametrize("outcome", sorted(TROUBLE))
def test_trouble_halves_the_limit_once_for_all_in_flight(outcome: Outcome) -> None:
    """The first failure halves the limit; others that were in flight then do not; it never falls below one."""
    found = lane()
    rooms = []
    for round_ in range(1, 8):
        for _ in range(3):
            answer(found, outcome, at=float(round_), begun_at=round_ - 0.5)
        found.failed_in_a_row = 0
        rooms.append(found.room(float(round_)))

    assert [16, 8, 4, 2, 1, 1, 1] == rooms


@pytest.mark.req("DEL-09")
def test_each_round_of_answers_raises_the_limit_by_one() -> None:
    """After trouble, each full round of answers adds one; the limit never exceeds the ceiling."""
    found = lane(8)
    answer(found, BAD, at=1.0)
    for _ in range(4):
        answer(found, OK, at=2.0)
    assert 5 == pytest.approx(found.limit, abs=0.2)
    for _ in range(100):
        answer(found, OK, at=3.0)
    assert 8 == found.room(3.0)


def growing(*, workers: int = 1) -> Lane:
    """Return a lane of an endpoint without a limit of its own, which may grow from 32 to 256 over all workers."""
    new = Lane(ceiling=32, limit=32.0, threshold=32.0)
    new.configure(Pace(), Fleet(workers=workers), ENDPOINT, default=32, peak=256, peak_here=256)
    return new


def round_of(of: Lane, seconds: float, outcome: Outcome = OK) -> None:
    """Begin as many requests as may, and answer all of them after so long."""
    for _ in range(number := of.most):
        of.begin(0.0)
    for _ in range(number):
        of.answered(outcome, begun_at=0.0, now=seconds)


@pytest.mark.req("DEL-09")
def test_the_limit_of_an_endpoint_that_answers_grows_to_the_peak() -> None:
    """Each round of answers adds an eighth, however far away the receiver is; each worker has its part of the peak."""
    for seconds, workers in ((0.02, 1), (0.3, 1), (0.3, 2)):
        found = growing(workers=workers)
        first = found.most
        round_of(found, seconds)
        assert first < found.most <= first * 9 // 8 + 1
        for _ in range(30):
            round_of(found, seconds)
        assert 256 // workers == found.most


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize("slots", [100, 200, 500])
def test_endpoints_that_hang_after_growing_leave_slots_for_others_of_their_tenant(slots: int) -> None:
    """One endpoint that has grown has at most a quarter of the slots of a worker when it hangs, or its limit."""
    simulation = Simulation(workers=1, slots=slots)
    bad = simulation.add("acme", 1, failing_between(20, 60, seconds=0.2, timeout=20.0))
    good = simulation.add("acme", 2, healthy())
    for each in range(40_000):
        simulation.publish(each / 1_000, bad)
    for each in range(400):
        simulation.publish(each / 10, good)
    most = 0

    def begun(_delivery: Delivery, endpoint: Endpoint) -> None:
        nonlocal most
        most = max(most, endpoint.in_flight)

    simulation.begun = begun
    simulation.run(60)
    late = [
        each.begun_at - each.published_at
        for each in simulation.deliveries
        if each.key == good and each.begun_at is not None
    ]

    assert max(slots // 4, 32) >= most
    assert 400 == len(late)
    assert max(late) < 0.1


@pytest.mark.req("DEL-09")
def test_the_limit_does_not_grow_where_that_makes_answers_slower() -> None:
    """A receiver that answers 100 requests a second, however many it has, gets no more than the limit."""
    found, most = growing(), list[int]()
    round_of(found, 0.01)
    for _ in range(50):
        round_of(found, found.most * 0.01)
        most.append(found.most)

    assert {32} == set(most)


@pytest.mark.req("DEL-09")
def test_a_limit_that_has_grown_shrinks_again() -> None:
    """It shrinks if it is not used, or if answers become slow; trouble halves it; and an own limit ends it."""
    found = growing()
    for _ in range(30):
        round_of(found, 0.02)
    for _ in range(2_000):
        answer(found, OK, at=1.0)
    assert 32 == found.most, "one request at a time does not use it"
    for _ in range(30):
        round_of(found, 0.02)
    for _ in range(30):
        round_of(found, 5.0)
    assert 32 == found.most
    for _ in range(30):
        round_of(found, 0.02)
    assert 256 == found.most
    answer(found, BAD, at=2.0, begun_at=1.0)
    assert 128 == found.most
    found.configure(Pace(concurrency=32), ALONE, ENDPOINT, default=32, peak=256, peak_here=256)
    assert 32 == found.most


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize("pace", [Pace(concurrency=32), Pace(ordered=True)])
def test_the_limit_of_an_endpoint_with_its_own_does_not_grow(pace: Pace) -> None:
    found = growing()
    found.configure(pace, ALONE, ENDPOINT, default=32, peak=256, peak_here=256)
    before = found.most
    for _ in range(30):
        round_of(found, 0.02)
    assert before == found.most


def test_every_outcome_has_a_meaning_for_the_lane() -> None:
    """A refusal (4xx) is an answer: only an endpoint that cannot take more is in trouble."""
    assert {Outcome.DELIVERED, Outcome.GONE, Outcome.REDIRECT, Outcome.CLIENT_ERROR, Outcome.UNEXPECTED_STATUS} == (
        set(Outcome) - TROUBLE - NEUTRAL
    )
    found = lane()
    for outcome in NEUTRAL:
        answer(found, outcome, at=1.0)
    assert (32.0, 0, 0) == (found.limit, found.in_flight, found.failed_in_a_row)


@pytest.mark.req("DEL-09")
def test_failures_in_a_row_open_the_breaker() -> None:
    """The tenth failure in a row opens the breaker and closes the lane; one answer in between restarts the count."""
    found = lane()
    assert not any(answer(found, BAD, at=1.0) for _ in range(BREAKER_FAILURES - 1))
    assert not answer(found, OK, at=1.0)
    opened = [answer(found, BAD, at=2.0) for _ in range(BREAKER_FAILURES + 1)]
    assert [False] * (BREAKER_FAILURES - 1) + [True, False] == opened
    assert (0, 0) == (found.room(2.0), found.may_wait(2.0))
    after = 2.0 + CLOSED_SECONDS
    assert 0 < found.room(after)
    assert answer(found, BAD, at=after), "PostgreSQL did not hear of it: the next failure opens it"


@pytest.mark.req("DEL-09")
def test_after_the_breaker_the_limit_doubles_from_one() -> None:
    """When the breaker closes, one request may begin; each round of answers doubles the limit, up to half."""
    found = lane()
    for _ in range(BREAKER_FAILURES):
        answer(found, BAD, at=1.0)
    found.reopen("now")
    rooms = []
    for _ in range(6):
        rooms.append(found.room(1.0))
        for _ in range(rooms[-1]):
            answer(found, OK, at=1.0)

    assert [1, 2, 4, 8, 16, 16] == rooms


@pytest.mark.req("DEL-10")
def test_a_rate_holds_over_any_time() -> None:
    """A lane never begins more requests than its rate allows; those of one second may begin at once."""
    found = lane(1_000, rate=10)
    begun, now = 0, 0.0
    for _ in range(500):
        for _ in range(found.room(now)):
            found.begin(now)
            begun += 1
        now += 0.01
    assert 50 <= begun <= 51
    now += 60.0
    assert 10 == found.room(now)
    assert 0 == found.may_wait(now), "what exceeds the rate waits in PostgreSQL"


def test_a_ring_without_a_claim_is_not_counted() -> None:
    """A ring that claimed nothing gives its place and its token back."""
    found = lane(1, rate=1)
    found.begin(0.0)
    assert 0 == found.room(0.0)
    found.unspent()
    assert 1 == found.room(0.0)
    found.begin(0.0)
    found.left()
    assert 0 == found.room(0.0)


@pytest.mark.req("DEL-09", "DEL-10")
@pytest.mark.parametrize(("whole", "workers"), [(32, 1), (32, 5), (3, 4), (1, 7)])
def test_the_shares_of_all_workers_add_up_to_the_limit(whole: int, workers: int) -> None:
    shares = [Fleet(rank=rank, workers=workers).share(whole, ENDPOINT) for rank in range(workers)]
    rates = [lane(rate=12, fleet=Fleet(rank=rank, workers=workers)).rate or 0.0 for rank in range(workers)]

    assert whole == sum(shares)
    assert max(shares) - min(shares) <= 1
    assert 12 == pytest.approx(sum(rates))


def begun(pace: Pace, number: int) -> Lane:
    """Return a lane with these settings and so many requests that have just begun."""
    old = lane(ceiling=pace.concurrency or 32, rate=pace.rate)
    for _ in range(number):
        old.begin(NOW)
    return old


@pytest.mark.req("DEL-10")
@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (Pace(concurrency=20), Pace(concurrency=3), 3),
        (Pace(), Pace(rate=2), 2),
        (Pace(rate=100), Pace(rate=2), 2),
        (Pace(rate=20), Pace(rate=100), 15),
        (Pace(rate=20), Pace(), 15),
        (Pace(concurrency=20), Pace(concurrency=4, rate=2), 2),
        (Pace(concurrency=20), Pace(concurrency=2, rate=4), 2),
        (Pace(), Pace(), 15),
    ],
)
def test_new_limits_hold_for_what_was_just_claimed(before: Pace, after: Pace, allowed: int) -> None:
    """If the claim of 15 deliveries reads lower limits than before, those beyond them are to be given back."""
    old = begun(before, 15)
    was = replace(old)
    old.configure(after, ALONE, ENDPOINT, default=32)
    over = old.lowered(15, NOW, most_before=was.most, rate_before=was.rate)
    for _ in range(over):
        old.unspent()

    assert (15 - allowed, allowed) == (over, old.in_flight)
    if allowed < 15:
        assert 0 == old.room(NOW)


@pytest.mark.req("DEL-10")
@pytest.mark.parametrize(
    ("rate", "in_flight", "reason"),
    [
        (2, 0, WaitingFor.RATE),
        (2, 2, WaitingFor.RATE),
        (8, 2, WaitingFor.CONCURRENCY),
        (8, 4, WaitingFor.CONCURRENCY),
        (None, 4, WaitingFor.CONCURRENCY),
    ],
)
def test_the_lower_limit_is_the_reason_to_wait(rate: int | None, in_flight: int, reason: WaitingFor) -> None:
    """What has no room waits for the rate if that allows less than the limit of requests in flight."""
    new = lane(ceiling=4, rate=rate)
    for _ in range(in_flight):
        new.begin(NOW)
    new.room(NOW)

    assert reason is new.waiting_for(NOW)


def test_requests_from_before_count_for_new_limits() -> None:
    """If as many are in flight already as a lower limit allows, nothing of the claim may begin."""
    old = begun(Pace(concurrency=20), 8)
    was = replace(old)
    old.configure(Pace(concurrency=4), ALONE, ENDPOINT, default=32)

    assert 3 == old.lowered(3, NOW, most_before=was.most, rate_before=was.rate)


def test_a_higher_limit_gives_nothing_back() -> None:
    """If the limit was halved while requests were in flight, a claim that reads a higher one gives nothing back."""
    old = begun(Pace(concurrency=32), 32)
    old.answered(BAD, begun_at=NOW, now=NOW)
    was = replace(old)
    old.configure(Pace(concurrency=64, rate=None), ALONE, ENDPOINT, default=32)

    assert (0, 16) == (old.lowered(8, NOW, most_before=was.most, rate_before=was.rate), int(old.limit))


def test_an_unknown_lane_begins_with_one() -> None:
    """Before its settings are read, one request begins; a new share of the limit counts from the next claim on."""
    new = Lane(ceiling=32, limit=32.0, threshold=32.0)
    assert 1 == new.room(0.0)
    new.configure(Pace(concurrency=4), ALONE, ENDPOINT, default=32)
    assert (4, LEAST_MAY_WAIT) == (new.room(0.0), new.may_wait(0.0))
    new.configure(Pace(), Fleet(workers=2), ENDPOINT, default=32)
    assert 16 == new.room(0.0)
    new.limit = 3.0
    new.configure(Pace(), ALONE, ENDPOINT, default=32)
    assert 3 == new.room(0.0), "a lane in trouble keeps its limit"
    assert not new.is_idle(0.0)


@pytest.mark.req("DEL-10")
@pytest.mark.parametrize(("rate", "seconds"), [(5, 0.4), (1, 1.0)])
def test_a_lane_is_not_forgotten_before_its_tokens_are_back(rate: int, seconds: float) -> None:
    """A new lane has the requests of a whole second: so one is forgotten only when it has them, too."""
    spent = begun(Pace(rate=rate), 2)
    spent.tokens = max(spent.tokens, 0.0)
    for _ in range(2):
        spent.left()

    assert not spent.is_idle(NOW + seconds - 0.01)
    assert spent.is_idle(NOW + seconds + 0.01)


@pytest.mark.req("DEL-17")
def test_an_ordered_lane_has_one_in_flight() -> None:
    """Whatever its concurrency and the number of workers, each worker may begin one delivery of an ordered endpoint."""
    for rank in range(3):
        found = lane()
        found.configure(Pace(concurrency=8, ordered=True), Fleet(rank=rank, workers=3), ENDPOINT, default=32)
        assert 1 == found.room(0.0)
        found.begin(0.0)
        assert 0 == found.room(0.0)
        found.answered(OK, begun_at=0.0, now=1.0)
        assert 1 == found.room(1.0)


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
def test_many_endpoints_that_answer_begin_without_pauses() -> None:
    """A worker that knows nothing of 6,000 endpoints of one tenant soon sends at nearly the rate of its slots.

    Each answers after 0.3 s, so 500 slots allow 1,667 a second. With a pause after each few it would be 145.
    """
    simulation = Simulation(workers=1)
    for number in range(6_000):
        simulation.publish(0.0, simulation.add("acme", number, healthy(0.3)))
    simulation.run(5.0)

    ended = [each.ended_at for each in simulation.deliveries if each.ended_at is not None]
    assert 2_600 < sum(2.0 <= at < 4.0 for at in ended)


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
    assert all(number <= 256 for _, number in record), "the peak of the fleet"
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
