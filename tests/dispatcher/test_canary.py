"""What the two requests of a probe are, and what their answers prove."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher import canary, prepare
from hookseal.dispatcher.canary import CanaryVerdict, Heard, Ping, compose_ping, heard, judge, needs_control
from hookseal.dispatcher.model import Answer, Failure, FailureKind, NotBegun, Reply, Request, Target
from hookseal.ground.errors import Refused
from hookseal.ground.wire import Scheme
from tests.doubles.claims import DELIVERY, ENDPOINT, POINTER, TARGET, overlapping, target
from tests.doubles.signers import EchoSigner

TIMEOUT = Failure(kind=FailureKind.TIMEOUT, detail="no answer within 5 s")
ANSWERS = st.one_of(
    st.builds(Reply, status=st.integers(100, 999), snippet=st.just("as it likes"), retry_after=st.just(())),
    st.builds(Failure, kind=st.sampled_from(FailureKind), detail=st.just("it failed")),
    st.just(NotBegun()),
)
pytestmark = pytest.mark.req("OPS-12", part="rotate-verify")


def reply(status: int) -> Reply:
    """Return an answer with that status."""
    return Reply(status=status, snippet="as it likes")


def composed(found: Target) -> Request:
    """Return the request of a ping to that endpoint."""
    ping = Ping(id=DELIVERY, at=POINTER.read_at, target=found)
    given: dict[str, Any] = {"allow_http": False, "user_agent": "hookseal/1", "start_by": 1.5}
    scheme = Scheme.X_WEBHOOK if found.pointer.scheme == "x-webhook" else Scheme.STANDARD
    return compose_ping(ping, (EchoSigner("db:acme:x:2", scheme),), **given)


def test_the_request() -> None:
    """It is what a delivery of that ping would be: its id, the time of the reading, one signature, our headers."""
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
    } == request.headers


@pytest.mark.parametrize("lead", ["previous", "current"])
def test_only_the_current_secret_signs(lead: str) -> None:
    """In an overlap there is one signature all the same, in the scheme of the current secret, whoever leads."""
    request = composed(overlapping("x-webhook", "standard", lead=lead))

    assert ["x-webhook-signature"] == [name for name in request.headers if "signature" in name]
    assert request.headers["x-webhook-signature"].startswith("sha256=db:acme:x:2/")
    assert ("hookseal.ping", DELIVERY) == (
        request.headers["x-webhook-event"],
        request.headers["x-webhook-delivery-id"],
    )


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (target(enabled=False), "disabled"),
        (target(url="http://receiver.example/"), "is http"),
        (target(scheme="none"), "does not sign"),
    ],
)
def test_what_is_not_sent(found: Target, reason: str) -> None:
    """To whom no delivery may be sent nothing else is either, and that says why."""
    with pytest.raises(Refused, match=reason):
        composed(found)


def test_it_begins_as_soon_as_a_delivery_does() -> None:
    """A ping may begin as long after the reading of its pointer as a delivery after its claim, and no later."""
    assert prepare.START_WITHIN_SECONDS == canary.START_WITHIN_SECONDS


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (199, Heard.NOTHING), (200, Heard.TAKEN), (204, Heard.TAKEN), (299, Heard.TAKEN), (300, Heard.NOTHING),
        (302, Heard.NOTHING), (399, Heard.NOTHING), (400, Heard.REFUSED), (401, Heard.REFUSED), (403, Heard.REFUSED),
        (404, Heard.REFUSED), (408, Heard.NOTHING), (410, Heard.REFUSED), (422, Heard.REFUSED), (425, Heard.NOTHING),
        (429, Heard.NOTHING), (499, Heard.REFUSED), (500, Heard.NOTHING), (503, Heard.NOTHING), (700, Heard.NOTHING),
    ],
)  # fmt: skip
def test_what_a_status_says(status: int, says: Heard) -> None:
    """A 2xx takes the signature, a 4xx refuses it, unless that means "not now"; nothing else says anything of it."""
    assert says is heard(reply(status))


@pytest.mark.parametrize(
    ("first", "second", "verdict", "detail"),
    [
        (reply(204), reply(401), "switched", "refused a signature of nobody"),
        (reply(200), reply(200), "does_not_verify", "it checks none"),
        (reply(200), reply(503), "no_answer", "is not known: it answered 503"),
        (reply(200), TIMEOUT, "no_answer", "is not known: no answer within 5 s"),
        (reply(200), None, "no_answer", "is not known: it was not sent"),
        (reply(200), NotBegun(), "no_answer", "is not known: it could not begin within 2 s"),
        (reply(401), None, "not_switched", "refused what only the current secret signed: it answered 401"),
        (reply(429), None, "no_answer", "neither taken nor refused: it answered 429"),
        (reply(302), None, "no_answer", "neither taken nor refused: it answered 302"),
        (TIMEOUT, None, "no_answer", "neither taken nor refused: no answer within 5 s"),
        (NotBegun(), None, "no_answer", "neither taken nor refused: it could not begin within 2 s"),
        (NotBegun(lack="EMFILE"), None, "no_answer", "neither taken nor refused: this machine had no socket for it"),
    ],
)
def test_what_is_proven(first: Answer, second: Answer | None, verdict: str, detail: str) -> None:
    """Each pair of answers has its verdict, its statuses and a sentence in our words."""
    judged = judge(first, second)

    assert verdict == judged.verdict.value
    assert detail in judged.detail
    assert (getattr(first, "status", None), getattr(second, "status", None)) == (judged.status, judged.control_status)


@given(ANSWERS, st.one_of(st.none(), ANSWERS))
def test_switched_is_proven_or_not_said(first: Answer, second: Answer | None) -> None:
    """Whatever comes back is judged; "switched" takes a 2xx to the canary and a definite 4xx to the control."""
    judged = judge(first, second)
    taken = isinstance(first, Reply) and 200 <= first.status < 300
    refused = isinstance(second, Reply) and 400 <= second.status < 500 and second.status not in {408, 425, 429}

    assert (judged.verdict is CanaryVerdict.SWITCHED) is (taken and refused)
    assert taken is needs_control(first)
    assert "{" not in judged.detail
    assert "as it likes" not in judged.detail


@given(ANSWERS.filter(lambda answer: not needs_control(answer)), ANSWERS)
def test_a_control_that_is_not_needed(first: Answer, second: Answer) -> None:
    """If the canary was not taken, no answer to a control changes what is proven."""
    assert judge(first, None).verdict is judge(first, second).verdict
