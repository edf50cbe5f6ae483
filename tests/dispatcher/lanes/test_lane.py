"""One lane: its limit, its rate and its breaker."""

import pytest

from hookseal.dispatcher.core.model import Outcome, Pace, WaitingFor
from hookseal.dispatcher.lanes.fleet import Fleet
from hookseal.dispatcher.lanes.lane import BREAKER_FAILURES, CLOSED_SECONDS, LEAST_MAY_WAIT, NEUTRAL, TROUBLE, Lane
from tests.doubles.claims import ENDPOINT
from tests.doubles.replaced import replace

OK, BAD = Outcome.DELIVERED, Outcome.TIMEOUT
ALONE = Fleet()
NOW = 100.0  # long after the start of the clock, so that the tokens of a second are there


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


@pytest.mark.req("DEL-09")
@pytest.mark.req("DEL-10")
@pytest.mark.parametrize(("whole", "workers"), [(32, 1), (32, 5), (3, 4), (1, 7)])
def test_the_shares_of_all_workers_add_up_to_the_limit(whole: int, workers: int) -> None:
    """Together the workers have exactly the limit, and no worker has two more than another."""
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
