"""Every answer has one outcome."""

import pytest

from hookseal.dispatcher.model import Failure, FailureKind, Outcome, Reply
from hookseal.dispatcher.outcome import classify, explain


@pytest.mark.req("DEL-03")
@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (100, Outcome.UNEXPECTED_STATUS),
        (199, Outcome.UNEXPECTED_STATUS),
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (300, Outcome.REDIRECT),
        (308, Outcome.REDIRECT),
        (400, Outcome.CLIENT_ERROR),
        (410, Outcome.CLIENT_ERROR),
        (429, Outcome.CLIENT_ERROR),
        (500, Outcome.SERVER_ERROR),
        (599, Outcome.SERVER_ERROR),
        (600, Outcome.UNEXPECTED_STATUS),
        (999, Outcome.UNEXPECTED_STATUS),
        (0, Outcome.UNEXPECTED_STATUS),
    ],
)
def test_statuses(status: int, outcome: Outcome) -> None:
    """Only 2xx is delivered; a redirect is not."""
    assert outcome is classify(Reply(status=status, snippet=""))


@pytest.mark.req("DEL-03")
@pytest.mark.parametrize("kind", list(FailureKind))
def test_failures(kind: FailureKind) -> None:
    """Every kind of failure has its own outcome, of the same name, and tells its detail."""
    failure = Failure(kind=kind, detail="how")

    assert kind.value == classify(failure).value
    assert "how" == explain(failure)


def test_explain() -> None:
    """What did not deliver is told by its status, what did needs no word."""
    assert explain(Reply(status=204, snippet="")) is None
    assert "the receiver answered 503" == explain(Reply(status=503, snippet="secret words"))
