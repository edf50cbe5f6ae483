"""Every answer has one outcome."""

from collections import Counter
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.core.model import Failure, FailureKind, Outcome, Reply
from hookseal.dispatcher.core.outcome import RULES, Consequence, OtherCondition, classify, consequence, explain, hundred

TRIED_AGAIN: Final = {
    *(Outcome.REDIRECT, Outcome.CLIENT_ERROR, Outcome.SERVER_ERROR, Outcome.UNEXPECTED_STATUS, Outcome.TIMEOUT),
    *(Outcome.TLS, Outcome.DNS, Outcome.CONNECTION, Outcome.FORBIDDEN_ADDRESS, Outcome.PROTOCOL),
    *(Outcome.PROXY, Outcome.UNKNOWN),
}


@pytest.mark.req("DEL-03")
@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (100, Outcome.UNEXPECTED_STATUS),
        (199, Outcome.UNEXPECTED_STATUS),
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (300, Outcome.REDIRECT),
        (304, Outcome.REDIRECT),
        (308, Outcome.REDIRECT),
        (399, Outcome.REDIRECT),
        (400, Outcome.CLIENT_ERROR),
        (401, Outcome.CLIENT_ERROR),
        (404, Outcome.CLIENT_ERROR),
        (409, Outcome.CLIENT_ERROR),
        (410, Outcome.GONE),
        (411, Outcome.CLIENT_ERROR),
        (428, Outcome.CLIENT_ERROR),
        (429, Outcome.THROTTLED),
        (430, Outcome.CLIENT_ERROR),
        (499, Outcome.CLIENT_ERROR),
        (500, Outcome.SERVER_ERROR),
        (501, Outcome.SERVER_ERROR),
        (502, Outcome.THROTTLED),
        (503, Outcome.THROTTLED),
        (504, Outcome.THROTTLED),
        (505, Outcome.SERVER_ERROR),
        (599, Outcome.SERVER_ERROR),
        (600, Outcome.UNEXPECTED_STATUS),
        (999, Outcome.UNEXPECTED_STATUS),
        (0, Outcome.UNEXPECTED_STATUS),
    ],
)
def test_each_status_has_its_outcome(status: int, outcome: Outcome) -> None:
    """Only 2xx is delivered; a redirect is not; 410, 429, 502, 503 and 504 have outcomes of their own."""
    assert outcome is classify(Reply(status=status, snippet=""))


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
    """Every kind of failure has its own outcome, of the same name, and its detail is the explanation."""
    failure = Failure(kind=kind, detail="how")

    assert kind.value == classify(failure).value
    assert "how" == explain(failure)


@pytest.mark.req("DEL-05", part="each-delivery")
def test_a_cancelled_request_is_unknown() -> None:
    """A request that was cancelled has no answer; its outcome is `unknown`."""
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
    """`hundred(4)` is the statuses 400 to 499."""
    assert (100, 400, 499) == (len(hundred(4)), min(hundred(4)), max(hundred(4)))


def test_a_reply_is_explained_by_its_status() -> None:
    """The explanation of a failed reply is its status only; a delivered one has none."""
    assert explain(Reply(status=204, snippet="")) is None
    assert "the receiver answered 503" == explain(Reply(status=503, snippet="secret words"))
