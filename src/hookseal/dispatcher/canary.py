"""Has a receiver switched to its new secret? What is sent to find out, and what the answers prove. Pure.

Two requests are sent, each made as a delivery's is. The canary is signed with the current secret only. It goes
first: were it second, a receiver that locks a sender out after a bad signature would refuse it whatever it knows.
The control is signed with a secret that nobody has; it is sent only if the canary was taken, so that nobody gets a
bad signature that would prove nothing. Each has an id, a time and a body of its own: a receiver that drops what it
has seen before judges both.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, assert_never

from hookseal.dispatcher.compose import compose
from hookseal.dispatcher.model import Answer, Claim, Failure, NotBegun, Reply, Request, Ring, Target
from hookseal.dispatcher.outcome import hundred
from hookseal.dispatcher.policy import admit
from hookseal.dispatcher.ports import Signer
from hookseal.ground.errors import Refused
from hookseal.ground.ids import DeliveryId, EventId

EVENT_TYPE: Final = "hookseal.ping"
START_WITHIN_SECONDS: Final = 2.0  # of the reading of the pointer, or it is not sent (design, law 4)


class CanaryVerdict(StrEnum):
    """What two answers prove."""

    SWITCHED = "switched"
    NOT_SWITCHED = "not_switched"
    DOES_NOT_VERIFY = "does_not_verify"
    NO_ANSWER = "no_answer"


class Heard(StrEnum):
    """What one answer says of the signature."""

    TAKEN = "taken"
    REFUSED = "refused"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: what was heard of the canary and of the control (None: whatever it is), and what that proves."""

    canary: Heard
    control: Heard | None
    verdict: CanaryVerdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was proven, the statuses it was proven by, and a sentence for people, in our words."""

    verdict: CanaryVerdict
    status: int | None
    control_status: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """One of the two requests, before it is signed: its own id, and the database's time at which `target` was read."""

    id: DeliveryId
    at: datetime
    target: Target


# Of two rows with the same status the first counts. Receivers refuse a signature with 400, 401, 403, 404 or 422:
# any 4xx will do, but for those that say "not now" (RFC 9110, 15.5.9; RFC 8470, 5.2; RFC 6585, 4).
HEARD: Final = (
    (hundred(2), Heard.TAKEN),
    (frozenset({408, 425, 429}), Heard.NOTHING),
    (hundred(4), Heard.REFUSED),
)
RULES: Final = (
    Rule(
        canary=Heard.TAKEN,
        control=Heard.REFUSED,
        verdict=CanaryVerdict.SWITCHED,
        detail="the receiver took what only the current secret signed, and refused a signature of nobody",
    ),
    Rule(
        canary=Heard.TAKEN,
        control=Heard.TAKEN,
        verdict=CanaryVerdict.DOES_NOT_VERIFY,
        detail="the receiver took a signature of nobody, too: it checks none, so that it took the other proves nothing",
    ),
    Rule(
        canary=Heard.TAKEN,
        control=Heard.NOTHING,
        verdict=CanaryVerdict.NO_ANSWER,
        detail="the receiver took what only the current secret signed, but what it does with a signature of nobody "
        "is not known: {control}",
    ),
    Rule(
        canary=Heard.REFUSED,
        control=None,
        verdict=CanaryVerdict.NOT_SWITCHED,
        detail="the receiver refused what only the current secret signed: {canary}",
    ),
    Rule(
        canary=Heard.NOTHING,
        control=None,
        verdict=CanaryVerdict.NO_ANSWER,
        detail="what only the current secret signed was neither taken nor refused: {canary}",
    ),
)
_BY_STATUS: Final = {status: heard for statuses, heard in reversed(HEARD) for status in statuses}
_BY_HEARD: Final = {(rule.canary, rule.control): rule for rule in RULES}


def compose_ping(
    ping: Ping, signers: Sequence[Signer], *, allow_http: bool, user_agent: str, start_by: float
) -> Request:
    """Return the request that a delivery of this ping to the endpoint would be, signed by these alone, in order.

    Raises `Refused` if the endpoint is disabled, or its row such that nothing may be sent.
    """
    claim = _as_claimed(ping)
    target = admit(claim, allow_http=allow_http, jitter=0.0)
    if not isinstance(target, Target):
        raise Refused(f"nothing is sent: {target.reason}", field="endpoint")
    return compose(
        claim,
        target,
        signers,
        user_agent=user_agent,
        start_by=start_by,
        longest_seconds=target.timeout_ms / 1000,
    )


def needs_control(canary: Answer) -> bool:
    """Return whether the answer to the control would prove anything."""
    return heard(canary) is Heard.TAKEN


def judge(canary: Answer, control: Answer | None) -> Judgement:
    """Return what the answers prove. A control that was not sent (None), or was not needed, proves nothing."""
    of_canary = heard(canary)
    of_control = heard(control) if of_canary is Heard.TAKEN else None
    rule = _BY_HEARD[of_canary, of_control]
    return Judgement(
        verdict=rule.verdict,
        status=_status(canary),
        control_status=_status(control),
        detail=rule.detail.format(canary=_said(canary), control=_said(control)),
    )


def heard(answer: Answer | None) -> Heard:
    """Return what an answer says of the signature; None is the answer of a request that was not sent."""
    return _BY_STATUS.get(answer.status, Heard.NOTHING) if isinstance(answer, Reply) else Heard.NOTHING


def _status(answer: Answer | None) -> int | None:
    return answer.status if isinstance(answer, Reply) else None


def _said(answer: Answer | None) -> str:
    match answer:
        case Reply(status=status):
            return f"it answered {status}"
        case Failure(detail=detail):
            return detail
        case NotBegun(lack=str(lack)):
            return f"this machine had no socket for it ({lack})"
        case NotBegun():
            return f"it could not begin within {START_WITHIN_SECONDS:g} s"
        case None:
            return "it was not sent"
        case _:
            assert_never(answer)


def _as_claimed(ping: Ping) -> Claim:
    """Return the claim that a first attempt of this ping would have. It holds no lease: nothing is recorded by it."""
    pointer = ping.target.pointer
    return Claim(
        ring=Ring(tenant_id=pointer.tenant_id, endpoint_id=pointer.endpoint_id, delivery_id=ping.id),
        event_id=EventId(ping.id),
        event_type=EVENT_TYPE,
        correlation_id=None,
        traceparent=None,
        body=_body(ping),
        number=1,
        budget_spent=0,
        made_at=ping.at,
        claimed_at=ping.at,
        lease_token="",
        target=ping.target,
    )


def _body(ping: Ping) -> bytes:
    at = ping.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = {"id": ping.id, "endpoint_id": ping.target.pointer.endpoint_id}
    return json.dumps({"type": EVENT_TYPE, "timestamp": at, "data": data}, separators=(",", ":")).encode()
