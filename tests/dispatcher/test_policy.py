"""What follows an attempt: its outcome, the delay, and the state."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.core.model import (
    Failure,
    FailureKind,
    Outcome,
    Reply,
    Retries,
    State,
    Target,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.outcome import RULES, Consequence, OtherCondition, classify, consequence, explain, hundred
from hookseal.dispatcher.core.policy import End, Wait, admit, again, await_secret, back_off, decide
from tests.doubles.claims import CLAIM, TARGET, claim, target
from tests.doubles.replaced import replace

NOW = datetime(2015, 10, 21, 7, 26, tzinfo=UTC)
RETRIES = Retries(attempts_allowed=10, backoff_base_seconds=30, backoff_cap_seconds=43_200, schedule=None)
SPARE = {Outcome.DELIVERED, Outcome.GONE, Outcome.INVALID_URL}  # outcomes that end a delivery, whatever its budget
RETRIED = sorted(set(Outcome) - SPARE)
JITTER = st.floats(min_value=0, max_value=1, exclude_max=True)
TRIED_AGAIN: Final = {
    *(Outcome.REDIRECT, Outcome.CLIENT_ERROR, Outcome.SERVER_ERROR, Outcome.UNEXPECTED_STATUS, Outcome.TIMEOUT),
    *(Outcome.TLS, Outcome.DNS, Outcome.CONNECTION, Outcome.FORBIDDEN_ADDRESS, Outcome.PROTOCOL),
    *(Outcome.PROXY, Outcome.UNKNOWN),
}


def admitted(given_target: Target | None) -> Target | Wait | End:
    """Return the decision about a claim with this target."""
    return admit(claim(target=given_target), allow_http=False, jitter=0.5)


@pytest.mark.req("DEL-03")
def test_a_valid_claim_may_be_sent() -> None:
    assert TARGET is admit(CLAIM, allow_http=False, jitter=0.5)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("scheme", ["standard", "x-webhook"])
def test_both_schemes_may_be_sent(scheme: str) -> None:
    usable = target(scheme=scheme, algorithm="hmac")

    assert usable is admitted(usable)


def test_a_missing_endpoint_cancels() -> None:
    assert End(state=State.CANCELLED, reason="the endpoint is gone") == admitted(None)


@pytest.mark.req("SEC-24", part="stale")
def test_a_lost_endpoint_waits() -> None:
    """If the endpoint is missing though no command deleted it, the delivery waits, and the reason names a command."""
    verdict = admit(claim(target=None, endpoint_lost=True), allow_http=False, jitter=0.5)

    assert isinstance(verdict, Wait)
    assert (WaitingFor.SECRET, 15.0) == (verdict.waiting_for, verdict.seconds)
    assert "hookseal restore check" in verdict.reason


@pytest.mark.req("SEC-07")
@pytest.mark.parametrize(("is_probe", "waits"), [(None, False), (True, False), (False, True)])
def test_only_the_probe_of_a_held_endpoint_is_sent(*, is_probe: bool | None, waits: bool) -> None:
    """Of a held endpoint only the probe is sent; other deliveries wait without asking for the secret."""
    verdict = admit(claim(is_probe=is_probe), allow_http=False, jitter=0.5)

    assert waits == isinstance(verdict, Wait)
    if isinstance(verdict, Wait):
        assert (WaitingFor.SECRET, 15.0, False) == (verdict.waiting_for, verdict.seconds, verdict.is_refusal)


def test_a_disabled_endpoint_waits() -> None:
    """A delivery for a disabled endpoint waits, 15 seconds without jitter."""
    assert Wait(waiting_for=WaitingFor.ENDPOINT_DISABLED, seconds=15.0, reason="the endpoint is disabled") == admitted(
        target(enabled=False)
    )


@pytest.mark.parametrize(
    "row",
    [
        {"url": "not a url"},
        {"url": "http://receiver.example/#fragment"},
        {"url": "https://user:pass@receiver.example/"},
    ],
)
def test_an_invalid_row_fails_without_its_values(row: dict[str, Any]) -> None:
    """A delivery whose endpoint row is invalid fails; the reason contains no value of the row."""
    verdict = admitted(target(**row))

    assert isinstance(verdict, End)
    assert State.FAILED is verdict.state
    assert next(iter(row.values())) not in verdict.reason


@pytest.mark.req("OPS-13")
@pytest.mark.parametrize("row", [{"scheme": "of-a-later-version"}, {"algorithm": "of-a-later-version"}])
def test_an_unknown_scheme_ends_nothing(row: dict[str, Any]) -> None:
    """A worker of a later version may sign in it: the signers of this one refuse, and so the endpoint is held."""
    unknown = target(**row)

    assert unknown is admitted(unknown)


def test_a_forbidden_http_url_waits() -> None:
    """A delivery for an http url waits until the url or the worker is changed: it does not fail for good."""
    verdict = admitted(target(url="http://receiver.example/"))

    assert isinstance(verdict, Wait)
    assert (WaitingFor.SECRET, 15.0) == (verdict.waiting_for, verdict.seconds)
    assert "HOOKSEAL_ALLOW_HTTP" in verdict.reason
    assert isinstance(admit(claim(target=target(url="http://receiver.example/")), allow_http=True, jitter=0.5), Target)


def test_a_missing_secret_waits() -> None:
    assert Wait(waiting_for=WaitingFor.SECRET, seconds=11.25, reason="why") == await_secret("why", 0.0)


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_the_wait_has_bounded_jitter(jitter: float) -> None:
    """The wait of a delivery that waits is 15 seconds, plus or minus a quarter."""
    assert 11.25 <= again(jitter) <= 18.75


def verdict(
    outcome: Outcome = Outcome.SERVER_ERROR,
    *,
    retry_after: tuple[str, ...] = (),
    budget_spent: int = 0,
    retries: Retries = RETRIES,
    jitter: float = 0.5,
) -> Verdict:
    """Return the verdict on this outcome, by default without jitter."""
    return decide(outcome, retry_after=retry_after, budget_spent=budget_spent, retries=retries, now=NOW, jitter=jitter)


def scheduled(*schedule: int) -> Retries:
    """Return retry settings with this schedule."""
    return replace(RETRIES, attempts_allowed=len(schedule) + 1, schedule=schedule)


@pytest.mark.req("DEL-03")
@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize("outcome", list(Outcome))
def test_each_outcome_has_its_verdict(outcome: Outcome) -> None:
    """`delivered` ends a delivery, `gone` disables, `invalid_url` fails, and the others are due after the back-off."""
    expected = {
        Outcome.DELIVERED: Verdict(state=State.DELIVERED),
        Outcome.GONE: Verdict(state=State.FAILED, disable="the receiver answered 410 Gone"),
        Outcome.INVALID_URL: Verdict(state=State.FAILED),
    }.get(outcome, Verdict(state=State.PENDING, retry_in_seconds=30.0))

    assert expected == verdict(outcome)


@pytest.mark.req("DEL-06")
@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("outcome", RETRIED)
def test_the_last_attempt_makes_a_dead_letter(outcome: Outcome) -> None:
    """So does a failure after more attempts than the endpoint allows now."""
    assert Verdict(state=State.DEAD_LETTER) == verdict(outcome, budget_spent=9, retry_after=("60",))
    assert State.PENDING is verdict(outcome, budget_spent=8).state
    assert Verdict(state=State.DEAD_LETTER) == verdict(outcome, budget_spent=10)
    assert Verdict(state=State.DEAD_LETTER) == verdict(outcome, retries=replace(RETRIES, attempts_allowed=1))


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("spent", [9, 10, 1_000])
@pytest.mark.parametrize("outcome", sorted(SPARE))
def test_a_final_outcome_of_the_last_attempt_counts(outcome: Outcome, spent: int) -> None:
    """An outcome that ends a delivery also does so on the last attempt: it never makes a dead letter."""
    assert verdict(outcome) == verdict(outcome, budget_spent=spent)


@pytest.mark.req("DEL-06")
def test_back_off_doubles() -> None:
    """Without a schedule the delay doubles: those between ten attempts add up to 4 h 15 min 30 s without jitter."""
    delays = [verdict(budget_spent=spent).retry_in_seconds for spent in range(9)]

    assert [30, 60, 120, 240, 480, 960, 1_920, 3_840, 7_680] == delays
    assert 15_330 == sum(delays)


@pytest.mark.req("DEL-06")
def test_no_delay_exceeds_the_cap() -> None:
    endless = replace(RETRIES, attempts_allowed=10**30)

    assert [30_720, 43_200, 43_200] == [
        verdict(budget_spent=spent, retries=endless).retry_in_seconds for spent in (10, 11, 12)
    ]
    assert 43_200 == verdict(budget_spent=10**20, retries=endless).retry_in_seconds
    assert 5 == verdict(retries=replace(RETRIES, backoff_cap_seconds=5)).retry_in_seconds, (
        "a cap below the base is not applied"
    )


@pytest.mark.req("DEL-06")
def test_the_largest_cap_is_reached() -> None:
    widest = replace(RETRIES, attempts_allowed=10**6, backoff_base_seconds=1, backoff_cap_seconds=2**31 - 1)

    assert 2**31 - 1 == verdict(budget_spent=31, retries=widest).retry_in_seconds


@pytest.mark.req("DEL-06")
@given(st.integers(1, 86_400), st.integers(1, 604_800), st.integers(1, 10**9), JITTER)
def test_back_off_is_bounded(base: int, cap: int, made: int, jitter: float) -> None:
    """Back-off is the doubled base, at most the cap, plus or minus a quarter; more attempts never shorten it."""
    retries = Retries(attempts_allowed=10, backoff_base_seconds=base, backoff_cap_seconds=cap, schedule=None)
    middle = min(base * 2 ** min(made - 1, 40), cap)

    assert 0.75 * middle <= back_off(retries, made, jitter) <= 1.25 * middle
    assert back_off(retries, made, jitter) <= back_off(retries, made + 1, jitter)


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 22.5), (0.25, 26.25), (0.5, 30.0), (0.75, 33.75)])
def test_jitter_is_a_quarter_either_way(jitter: float, seconds: float) -> None:
    """Jitter spreads a delay evenly, from a quarter below to a quarter above."""
    assert seconds == verdict(jitter=jitter).retry_in_seconds


@pytest.mark.req("DEL-06")
def test_a_schedule_replaces_base_and_cap() -> None:
    days = scheduled(5, 300, 604_800)
    found = [verdict(budget_spent=spent, retries=days) for spent in range(4)]

    assert [5, 300, 604_800] == [each.retry_in_seconds for each in found[:3]]
    assert Verdict(state=State.DEAD_LETTER) == found[3]
    assert 453_600 == verdict(budget_spent=2, retries=days, jitter=0.0).retry_in_seconds


@pytest.mark.req("DEL-06")
def test_a_schedules_last_entry_is_repeated() -> None:
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
    """A reply that is tried again waits for the back-off or for `Retry-After`, whichever is longer, at most a day;
    an unreadable value or a date in the past adds nothing.
    """
    assert Verdict(state=State.PENDING, retry_in_seconds=seconds) == verdict(outcome, retry_after=retry_after)


@pytest.mark.req("DEL-06")
def test_retry_after_shortens_nothing() -> None:
    """A delay of a schedule that is longer than a day is not reduced by the limit of `Retry-After`."""
    assert 604_800 == verdict(retry_after=("60",), retries=scheduled(604_800)).retry_in_seconds


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize("outcome", sorted(SPARE))
def test_retry_after_needs_a_retry(outcome: Outcome) -> None:
    assert verdict(outcome) == verdict(outcome, retry_after=("60",))


@pytest.mark.req("DEL-06")
@given(st.sampled_from(Outcome), st.lists(st.text() | st.integers().map(str)), st.integers(0, 10**6), JITTER)
def test_every_verdict_is_within_its_bounds(outcome: Outcome, values: list[str], spent: int, jitter: float) -> None:
    found = verdict(outcome, retry_after=tuple(values), budget_spent=spent, jitter=jitter)

    assert 0 <= found.retry_in_seconds <= 86_400
    assert found.state is State.PENDING or 0 == found.retry_in_seconds
    assert (outcome is Outcome.GONE) is (found.disable is not None)


@pytest.mark.req("DEL-03")
@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize(
    ("outcome", "statuses"),
    [
        (Outcome.DELIVERED, [200, 204, 299]),
        (Outcome.REDIRECT, [300, 304, 308, 399]),
        (Outcome.CLIENT_ERROR, [400, 401, 404, 409, 411, 428, 430, 499]),
        (Outcome.GONE, [410]),
        (Outcome.THROTTLED, [429, 502, 503, 504]),
        (Outcome.SERVER_ERROR, [500, 501, 505, 599]),
        (Outcome.UNEXPECTED_STATUS, [0, 100, 199, 600, 999]),
    ],
)
def test_each_status_has_its_outcome(outcome: Outcome, statuses: list[int]) -> None:
    for status in statuses:
        assert outcome is classify(Reply(status=status, snippet="")), status


@pytest.mark.req("DEL-05", part="each-delivery")
@given(st.integers())
def test_only_2xx_is_delivered(status: int) -> None:
    """Every number has an outcome, which is `delivered` exactly from 200 to 299."""
    outcome = classify(Reply(status=status, snippet=""))

    assert (200 <= status <= 299) is (outcome is Outcome.DELIVERED)


@pytest.mark.req("DEL-03")
@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize("kind", list(FailureKind))
def test_each_failure_has_its_outcome(kind: FailureKind) -> None:
    failure = Failure(kind=kind, detail="how")

    assert kind.value == classify(failure).value
    assert "how" == explain(failure)


@pytest.mark.req("DEL-05", part="each-delivery")
def test_a_cancelled_request_is_unknown() -> None:
    assert Outcome.UNKNOWN is classify(None)
    assert "the worker was stopped before the answer came" == explain(None)


@pytest.mark.req("DEL-05", part="each-delivery")
def test_every_outcome_has_one_rule() -> None:
    """The table has one row for each outcome, and each failure and each other case is in exactly one row."""
    assert Counter(Outcome) == Counter(rule.outcome for rule in RULES)
    assert Counter([*FailureKind, *OtherCondition]) == Counter(
        rule.when for rule in RULES if not isinstance(rule.when, frozenset)
    )


@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize("outcome", list(Outcome))
def test_each_outcome_has_its_consequence(outcome: Outcome) -> None:
    """`gone` disables the endpoint, `throttled` throttles, `invalid_url` fails, and the others are tried again."""
    expected = {
        Outcome.DELIVERED: Consequence.DELIVERED,
        Outcome.GONE: Consequence.DISABLE,
        Outcome.THROTTLED: Consequence.THROTTLE,
        Outcome.INVALID_URL: Consequence.FAIL,
        **dict.fromkeys(TRIED_AGAIN, Consequence.RETRY),
    }

    assert expected[outcome] is consequence(outcome)


def test_hundred_returns_a_class_of_statuses() -> None:
    assert (100, 400, 499) == (len(hundred(4)), min(hundred(4)), max(hundred(4)))


def test_a_reply_is_explained_by_its_status() -> None:
    assert explain(Reply(status=204, snippet="")) is None
    assert "the receiver answered 503" == explain(Reply(status=503, snippet="secret words"))
