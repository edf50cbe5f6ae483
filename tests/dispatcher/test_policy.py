"""What happens next is decided without I/O."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.model import Outcome, Retries, State, Target, Verdict, WaitingFor
from hookseal.dispatcher.policy import End, Wait, admit, again, await_secret, back_off, decide
from tests.doubles.claims import CLAIM, TARGET, claim, target


def admitted(given_target: Target | None) -> Target | Wait | End:
    """Return what becomes of a claim with this target."""
    return admit(claim(target=given_target), allow_http=False, jitter=0.5)


@pytest.mark.req("DEL-03")
def test_admits() -> None:
    """A claim of an enabled endpoint with a usable row may be sent to its target."""
    assert TARGET is admit(CLAIM, allow_http=False, jitter=0.5)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("scheme", ["standard", "x-webhook"])
def test_admits_both_schemes(scheme: str) -> None:
    """Both schemes are signed with, under hmac."""
    usable = target(scheme=scheme, algorithm="hmac")

    assert usable is admitted(usable)


def test_endpoint_gone() -> None:
    """Without an endpoint the delivery is cancelled."""
    assert End(state=State.CANCELLED, reason="the endpoint is gone") == admitted(None)


@pytest.mark.req("SEC-24", part="put-back")
def test_endpoint_lost() -> None:
    """Without an endpoint that anybody deleted the delivery waits, and is told where to look."""
    verdict = admit(claim(target=None, endpoint_lost=True), allow_http=False, jitter=0.5)

    assert isinstance(verdict, Wait)
    assert (WaitingFor.SECRET, 15.0) == (verdict.waiting_for, verdict.seconds)
    assert "hookseal restore check" in verdict.reason


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize(("is_probe", "waits"), [(None, False), (True, False), (False, True)])
def test_of_a_held_endpoint_the_probe_alone_goes_out(*, is_probe: bool | None, waits: bool) -> None:
    """While a secret of an endpoint is refused one delivery is tried; another one waits without asking for it."""
    verdict = admit(claim(is_probe=is_probe), allow_http=False, jitter=0.5)

    assert waits == isinstance(verdict, Wait)
    if isinstance(verdict, Wait):
        assert (WaitingFor.SECRET, 15.0, False) == (verdict.waiting_for, verdict.seconds, verdict.is_refusal)


def test_endpoint_disabled() -> None:
    """A disabled endpoint holds its deliveries back, 15 seconds in the middle of the jitter."""
    assert Wait(waiting_for=WaitingFor.ENDPOINT_DISABLED, seconds=15.0, reason="the endpoint is disabled") == admitted(
        target(enabled=False)
    )


@pytest.mark.parametrize(
    "row",
    [
        {"url": "not a url"},
        {"url": "http://receiver.example/"},
        {"url": "https://user:pass@receiver.example/"},
        {"scheme": "sha1"},
        {"algorithm": "none"},
    ],
)
def test_spoilt_row(row: dict[str, Any]) -> None:
    """A row that cannot be sent to fails its delivery; the reason holds nothing of the row."""
    verdict = admitted(target(**row))

    assert isinstance(verdict, End)
    assert State.FAILED is verdict.state
    assert next(iter(row.values())) not in verdict.reason


def test_await_secret() -> None:
    """A delivery without its secret waits for it."""
    assert Wait(waiting_for=WaitingFor.SECRET, seconds=11.25, reason="why") == await_secret("why", 0.0)


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_again_is_bounded(jitter: float) -> None:
    """A waiting delivery is looked at again within 15 seconds, give or take a quarter."""
    assert 11.25 <= again(jitter) <= 18.75


NOW = datetime(2015, 10, 21, 7, 26, tzinfo=UTC)
RETRIES = Retries(attempts_allowed=10, backoff_base_seconds=30, backoff_cap_seconds=43_200, schedule=None)
SPARE = {Outcome.DELIVERED, Outcome.GONE, Outcome.INVALID_URL}  # what ends a delivery, whatever is left of its budget
RETRIED = sorted(set(Outcome) - SPARE)
JITTER = st.floats(min_value=0, max_value=1, exclude_max=True)


def verdict(
    outcome: Outcome = Outcome.SERVER_ERROR,
    *,
    retry_after: tuple[str, ...] = (),
    budget_spent: int = 0,
    retries: Retries = RETRIES,
    jitter: float = 0.5,
) -> Verdict:
    """Return what follows from this outcome, in the middle of the jitter unless told otherwise."""
    return decide(outcome, retry_after=retry_after, budget_spent=budget_spent, retries=retries, now=NOW, jitter=jitter)


def scheduled(*schedule: int) -> Retries:
    """Return the retries of an endpoint with a schedule of its own."""
    return replace(RETRIES, attempts_allowed=len(schedule) + 1, schedule=schedule)


@pytest.mark.req("DEL-03")
@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize("outcome", list(Outcome))
def test_what_follows(outcome: Outcome) -> None:
    """Delivered is over, gone disables, an invalid url fails, the rest is due after back-off."""
    expected = {
        Outcome.DELIVERED: Verdict(state=State.DELIVERED),
        Outcome.GONE: Verdict(state=State.FAILED, disable="the receiver answered 410 Gone"),
        Outcome.INVALID_URL: Verdict(state=State.FAILED),
    }.get(outcome, Verdict(state=State.PENDING, retry_in_seconds=30.0))

    assert expected == verdict(outcome)


@pytest.mark.req("DEL-06")
@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("outcome", RETRIED)
def test_dead_letter(outcome: Outcome) -> None:
    """The last attempt that is allowed leaves a dead letter, whatever a receiver asks; the one before it does not."""
    assert Verdict(state=State.DEAD_LETTER) == verdict(outcome, budget_spent=9, retry_after=("60",))
    assert State.PENDING is verdict(outcome, budget_spent=8).state
    assert Verdict(state=State.DEAD_LETTER) == verdict(outcome, retries=replace(RETRIES, attempts_allowed=1))


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("outcome", RETRIED)
def test_fewer_attempts_than_were_made(outcome: Outcome) -> None:
    """An endpoint that allows fewer attempts than a delivery has spent already leaves a dead letter after the next."""
    assert Verdict(state=State.DEAD_LETTER) == verdict(outcome, budget_spent=10)


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("spent", [9, 10, 1_000])
@pytest.mark.parametrize("outcome", sorted(SPARE))
def test_a_last_attempt_may_end_well(outcome: Outcome, spent: int) -> None:
    """What ends a delivery ends it on the last attempt too: it is never a dead letter then."""
    assert verdict(outcome) == verdict(outcome, budget_spent=spent)


@pytest.mark.req("DEL-06")
def test_the_default_delays() -> None:
    """The base doubles with each attempt: ten attempts take 4 h 15 min 30 s in the middle of the jitter."""
    delays = [verdict(budget_spent=spent).retry_in_seconds for spent in range(9)]

    assert [30, 60, 120, 240, 480, 960, 1_920, 3_840, 7_680] == delays
    assert 15_330 == sum(delays)


@pytest.mark.req("DEL-06")
def test_the_cap() -> None:
    """No delay is above the cap but for jitter, after however many attempts."""
    endless = replace(RETRIES, attempts_allowed=10**30)

    assert [30_720, 43_200, 43_200] == [
        verdict(budget_spent=spent, retries=endless).retry_in_seconds for spent in (10, 11, 12)
    ]
    assert 43_200 == verdict(budget_spent=10**20, retries=endless).retry_in_seconds
    assert 5 == verdict(retries=replace(RETRIES, backoff_cap_seconds=5)).retry_in_seconds, "a cap below the base"


@pytest.mark.req("DEL-06")
def test_the_largest_cap_is_reached() -> None:
    """The smallest base comes to the largest cap that a row can hold."""
    widest = replace(RETRIES, attempts_allowed=10**6, backoff_base_seconds=1, backoff_cap_seconds=2**31 - 1)

    assert 2**31 - 1 == verdict(budget_spent=31, retries=widest).retry_in_seconds


@pytest.mark.req("DEL-06")
@given(st.integers(1, 86_400), st.integers(1, 604_800), st.integers(1, 10**9), JITTER)
def test_back_off_is_bounded(base: int, cap: int, made: int, jitter: float) -> None:
    """Back-off is within a quarter of the base doubled, at most the cap, and never falls as attempts grow."""
    retries = Retries(attempts_allowed=10, backoff_base_seconds=base, backoff_cap_seconds=cap, schedule=None)
    middle = min(base * 2 ** min(made - 1, 40), cap)

    assert 0.75 * middle <= back_off(retries, made, jitter) <= 1.25 * middle
    assert back_off(retries, made, jitter) <= back_off(retries, made + 1, jitter)


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 22.5), (0.25, 26.25), (0.5, 30.0), (0.75, 33.75)])
def test_jitter(jitter: float, seconds: float) -> None:
    """Jitter spreads a delay evenly from a quarter below to a quarter above."""
    assert seconds == verdict(jitter=jitter).retry_in_seconds


@pytest.mark.req("DEL-06")
def test_a_schedule_of_its_own() -> None:
    """A schedule stands in place of base and cap, entry by entry; it may last longer than a day."""
    days = scheduled(5, 300, 604_800)
    found = [verdict(budget_spent=spent, retries=days) for spent in range(4)]

    assert [5, 300, 604_800] == [each.retry_in_seconds for each in found[:3]]
    assert Verdict(state=State.DEAD_LETTER) == found[3]
    assert 453_600 == verdict(budget_spent=2, retries=days, jitter=0.0).retry_in_seconds


@pytest.mark.req("DEL-06")
def test_the_end_of_a_schedule() -> None:
    """Beyond the end of a schedule its last entry counts, and one without entries is none."""
    assert 300 == back_off(scheduled(5, 300), 7, 0.5)
    assert 30 == back_off(replace(RETRIES, schedule=()), 1, 0.5)


@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ((), 30),
        (("invalid",), 30),
        (("-1",), 30),
        (("0",), 30),
        (("29",), 30),
        (("31",), 31),
        (("3600", "10"), 3_600),
        (("Wed, 21 Oct 2015 07:28:00 GMT",), 120),
        (("Wed, 21 Oct 2015 07:25:00 GMT",), 30),
        (("99999999999",), 86_400),
    ],
)
@pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.SERVER_ERROR, Outcome.CLIENT_ERROR, Outcome.REDIRECT])
def test_retry_after_is_a_floor(outcome: Outcome, retry_after: tuple[str, ...], seconds: float) -> None:
    """A reply that is tried again waits for back-off or `Retry-After`, whichever is longer, a day at most;
    what cannot be read, or lies in the past, adds nothing.
    """
    assert Verdict(state=State.PENDING, retry_in_seconds=seconds) == verdict(outcome, retry_after=retry_after)


@pytest.mark.req("DEL-06")
def test_retry_after_shortens_nothing() -> None:
    """A schedule that waits longer than a day is not cut to what a receiver may ask for."""
    assert 604_800 == verdict(retry_after=("60",), retries=scheduled(604_800)).retry_in_seconds


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("outcome", sorted(SPARE))
def test_retry_after_is_for_what_is_tried_again(outcome: Outcome) -> None:
    """`Retry-After` of a reply that is not tried again, or of none, changes nothing."""
    assert verdict(outcome) == verdict(outcome, retry_after=("60",))


@pytest.mark.req("DEL-06")
@given(st.sampled_from(Outcome), st.lists(st.text() | st.integers().map(str)), st.integers(0, 10**6), JITTER)
def test_a_verdict_can_be_written(outcome: Outcome, values: list[str], spent: int, jitter: float) -> None:
    """Whatever the receiver says, a delivery is due within the bounds, and only one that is pending has a time."""
    found = verdict(outcome, retry_after=tuple(values), budget_spent=spent, jitter=jitter)

    assert 0 <= found.retry_in_seconds <= 86_400
    assert found.state is State.PENDING or 0 == found.retry_in_seconds
    assert (outcome is Outcome.GONE) is (found.disable is not None)
