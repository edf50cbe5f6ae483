"""The two requests of a probe, and what their answers prove."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.core import prepare, probe
from hookseal.dispatcher.core.model import Answer, Failure, FailureKind, NotBegun, Reply, Request, Target
from hookseal.dispatcher.core.probe import (
    CanaryVerdict,
    Ping,
    Reaction,
    compose_ping,
    judge,
    needs_control,
    reaction_to,
)
from hookseal.errors import Refused
from hookseal.ground.wire import Scheme
from tests.doubles.claims import DELIVERY, ENDPOINT, POINTER, TARGET, overlapping, target
from tests.doubles.signers import EchoSigner

TIMEOUT = Failure(kind=FailureKind.TIMEOUT, detail="no answer within 5 s")
ANSWERS = st.one_of(
    st.builds(Reply, status=st.integers(100, 999), snippet=st.just("as it likes"), retry_after=st.just(())),
    st.builds(Failure, kind=st.sampled_from(FailureKind), detail=st.just("it failed")),
    st.just(NotBegun()),
)
ACCEPTED, REFUSED, UNKNOWN = Reaction.ACCEPTED, Reaction.REFUSED, Reaction.UNKNOWN
pytestmark = pytest.mark.req("OPS-12")


def reply(status: int) -> Reply:
    return Reply(status=status, snippet="as it likes")


def composed(found: Target) -> Request:
    """Return the ping request to this endpoint."""
    ping = Ping(id=DELIVERY, at=POINTER.read_at, target=found)
    given: dict[str, Any] = {"allow_http": False, "user_agent": "hookseal/1", "start_by": 1.5}
    scheme = Scheme.X_WEBHOOK if found.pointer.scheme == "x-webhook" else Scheme.STANDARD
    return compose_ping(ping, (EchoSigner("db:acme:x:2", scheme),), **given)


def test_a_ping_has_the_form_of_a_delivery() -> None:
    """A ping has the form of a delivery: its id, the time of the reading, one signature, and our headers."""
    request = composed(TARGET)
    body = json.loads(request.body)

    assert {
        "type": "hookseal.ping",
        "timestamp": "2026-01-02T03:04:05.600Z",
        "data": {"id": DELIVERY, "endpoint_id": ENDPOINT},
    } == body
    assert b" " not in request.body
    assert (POINTER.url, "acme", 1.5, 5.0) == (
        request.url,
        request.tenant_id,
        request.start_by,
        request.timeout_seconds,
    )
    length = len(f"{DELIVERY}.1767323045.") + len(request.body)
    assert {
        "webhook-id": DELIVERY,
        "webhook-timestamp": "1767323045",
        "webhook-signature": f"v1,db:acme:x:2/{length}",
        "content-type": "application/json",
        "user-agent": "hookseal/1",
        "accept-encoding": "identity",
        "x-hookseal-attempt": "1",
        "x-hookseal-event-id": DELIVERY,
    } == request.headers


@pytest.mark.parametrize("lead", ["previous", "current"])
def test_only_the_current_secret_signs(lead: str) -> None:
    """In an overlap a ping has only the signature of the current secret, in its scheme, whatever `lead` is."""
    request = composed(overlapping("x-webhook", "standard", lead=lead))

    assert ["x-webhook-signature"] == [name for name in request.headers if "signature" in name]
    assert request.headers["x-webhook-signature"].startswith("sha256=db:acme:x:2/")
    assert ("hookseal.ping", DELIVERY) == (request.headers["x-webhook-event"], request.headers["x-webhook-delivery-id"])


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (target(enabled=False), "disabled"),
        (target(url="http://receiver.example/"), "is http"),
    ],
)
def test_an_endpoint_without_deliveries_gets_no_ping(found: Target, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        composed(found)


def test_a_ping_has_a_deliverys_time_to_begin() -> None:
    assert prepare.START_WITHIN_SECONDS == probe.START_WITHIN_SECONDS


@pytest.mark.parametrize(
    ("status", "reaction"),
    [
        (199, UNKNOWN), (200, ACCEPTED), (204, ACCEPTED), (299, ACCEPTED), (300, UNKNOWN),
        (302, UNKNOWN), (399, UNKNOWN), (400, REFUSED), (401, REFUSED), (403, REFUSED),
        (404, REFUSED), (408, UNKNOWN), (410, REFUSED), (422, REFUSED), (425, UNKNOWN),
        (429, UNKNOWN), (499, REFUSED), (500, UNKNOWN), (503, UNKNOWN), (700, UNKNOWN),
    ],
)  # fmt: skip
def test_a_status_means_accepted_refused_or_neither(status: int, reaction: Reaction) -> None:
    assert reaction is reaction_to(reply(status))


@pytest.mark.parametrize(
    ("first", "second", "verdict", "detail"),
    [
        (reply(204), reply(401), "switched", "refused an invalid signature"),
        (reply(200), reply(200), "does_not_verify", "it verifies none"),
        (reply(200), reply(503), "no_answer", "is not known: it answered 503"),
        (reply(200), TIMEOUT, "no_answer", "is not known: no answer within 5 s"),
        (reply(200), None, "no_answer", "is not known: it was not sent"),
        (reply(200), NotBegun(), "no_answer", "is not known: it could not begin within 2 s"),
        (reply(401), None, "not_switched", "refused what only the current secret signed: it answered 401"),
        (
            reply(429),
            None,
            "no_answer",
            "neither accepted nor refused what only the current secret signed: it answered 429",
        ),
        (
            reply(302),
            None,
            "no_answer",
            "neither accepted nor refused what only the current secret signed: it answered 302",
        ),
        (
            TIMEOUT,
            None,
            "no_answer",
            "neither accepted nor refused what only the current secret signed: no answer within 5 s",
        ),
        (
            NotBegun(),
            None,
            "no_answer",
            "neither accepted nor refused what only the current secret signed: it could not begin within 2 s",
        ),
        (NotBegun(missing_resource="EMFILE"), None, "no_answer", "signed: this machine had no socket for it"),
    ],
)
def test_each_pair_of_answers_has_its_verdict(first: Answer, second: Answer | None, verdict: str, detail: str) -> None:
    judged = judge(first, second)

    assert verdict == judged.verdict.value
    assert detail in judged.detail
    assert (getattr(first, "status", None), getattr(second, "status", None)) == (judged.status, judged.control_status)


@given(ANSWERS, st.one_of(st.none(), ANSWERS))
def test_switched_needs_a_2xx_and_a_4xx(first: Answer, second: Answer | None) -> None:
    """Any pair of answers has a verdict; "switched" needs a 2xx to the canary and a definite 4xx to the control."""
    judged = judge(first, second)
    taken = isinstance(first, Reply) and 200 <= first.status < 300
    refused = isinstance(second, Reply) and 400 <= second.status < 500 and second.status not in {408, 425, 429}

    assert (judged.verdict is CanaryVerdict.SWITCHED) is (taken and refused)
    assert taken is needs_control(first)
    assert "{" not in judged.detail
    assert "as it likes" not in judged.detail


@given(ANSWERS.filter(lambda answer: not needs_control(answer)), ANSWERS)
def test_the_control_counts_after_an_accepted_canary_only(first: Answer, second: Answer) -> None:
    assert judge(first, None).verdict is judge(first, second).verdict
