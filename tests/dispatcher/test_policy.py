"""What happens next is decided without I/O."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.model import Outcome, State, Target, WaitingFor
from hookseal.dispatcher.policy import End, Wait, admit, again, await_secret, decide
from tests.doubles.claims import CLAIM, TARGET, claim, target


def admitted(given_target: Target | None) -> Target | Wait | End:
    """Return what becomes of a claim with this target."""
    return admit(claim(target=given_target), allow_http=False, jitter=0.5)


@pytest.mark.req("DEL-03")
def test_admits() -> None:
    """A claim of an enabled endpoint with a usable row may be sent to its target."""
    assert TARGET is admit(CLAIM, allow_http=False, jitter=0.5)


def test_endpoint_gone() -> None:
    """Without an endpoint the delivery is cancelled."""
    assert End(state=State.CANCELLED, reason="the endpoint is gone") == admitted(None)


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


@pytest.mark.req("DEL-03")
@pytest.mark.parametrize("outcome", list(Outcome))
def test_decide(outcome: Outcome) -> None:
    """What is delivered is over, what is unknown is due again, everything else failed."""
    expected = {Outcome.DELIVERED: State.DELIVERED, Outcome.UNKNOWN: State.PENDING}.get(outcome, State.FAILED)

    assert expected is decide(outcome)
