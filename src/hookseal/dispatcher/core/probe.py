"""Tests whether a receiver uses its new secret: the requests that are sent, and what the answers prove. Pure.

Two requests are sent, composed like those of a delivery. The canary is signed with the current secret only. It is sent
first, because a receiver may block a sender after an invalid signature. The control is signed with a random secret, so
that its signature is invalid. It is sent only if the canary was accepted; otherwise it would prove nothing. Each has
its own id, time and body, so that a receiver that ignores duplicates checks both.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, assert_never

from hookseal.dispatcher.core.model import Answer, Claim, Failure, NotBegun, Reply, Request, Ring, Target
from hookseal.dispatcher.core.outcome import hundred
from hookseal.dispatcher.core.policy import admit
from hookseal.dispatcher.core.ports import Signer
from hookseal.dispatcher.core.prepare import compose
from hookseal.errors import Refused
from hookseal.ground.ids import DeliveryId, EventId

EVENT_TYPE: Final = "hookseal.ping"
START_WITHIN_SECONDS: Final = 2.0  # after the pointer was read; later it is not sent


class CanaryVerdict(StrEnum):
    """What the two answers prove."""

    SWITCHED = "switched"
    NOT_SWITCHED = "not_switched"
    DOES_NOT_VERIFY = "does_not_verify"
    NO_ANSWER = "no_answer"


class Reaction(StrEnum):
    """What one answer says about the signature."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row: the reactions to the canary and to the control (None: not used), and what they prove."""

    canary: Reaction
    control: Reaction | None
    verdict: CanaryVerdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was proven, the statuses of both answers, and an explanation without any text from the receiver."""

    verdict: CanaryVerdict
    status: int | None
    control_status: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """One of the two requests before it is signed. `at` is when `target` was read, by the clock of the database."""

    id: DeliveryId
    at: datetime
    target: Target


# If two rows have the same status, the first one counts. Receivers refuse a signature with 400, 401, 403, 404 or 422.
# So any 4xx is a refusal, except those that mean "not now" (RFC 9110, 15.5.9; RFC 8470, 5.2; RFC 6585, 4).
REACTIONS: Final = (
    (hundred(2), Reaction.ACCEPTED),
    (frozenset({408, 425, 429}), Reaction.UNKNOWN),
    (hundred(4), Reaction.REFUSED),
)
RULES: Final = (
    Rule(
        canary=Reaction.ACCEPTED,
        control=Reaction.REFUSED,
        verdict=CanaryVerdict.SWITCHED,
        detail="the receiver accepted what only the current secret signed, and refused an invalid signature",
    ),
    Rule(
        canary=Reaction.ACCEPTED,
        control=Reaction.ACCEPTED,
        verdict=CanaryVerdict.DOES_NOT_VERIFY,
        detail="the receiver accepted an invalid signature as well: it verifies none, so nothing is proven",
    ),
    Rule(
        canary=Reaction.ACCEPTED,
        control=Reaction.UNKNOWN,
        verdict=CanaryVerdict.NO_ANSWER,
        detail="the receiver accepted what only the current secret signed, but how it answers an invalid "
        "signature is not known: {control}",
    ),
    Rule(
        canary=Reaction.REFUSED,
        control=None,
        verdict=CanaryVerdict.NOT_SWITCHED,
        detail="the receiver refused what only the current secret signed: {canary}",
    ),
    Rule(
        canary=Reaction.UNKNOWN,
        control=None,
        verdict=CanaryVerdict.NO_ANSWER,
        detail="the receiver neither accepted nor refused what only the current secret signed: {canary}",
    ),
)
_BY_STATUS: Final = {status: reaction for statuses, reaction in reversed(REACTIONS) for status in statuses}
_BY_REACTION: Final = {(rule.canary, rule.control): rule for rule in RULES}


def compose_ping(
    ping: Ping, signers: Sequence[Signer], *, allow_http: bool, user_agent: str, start_by: float
) -> Request:
    """Return the request that delivers this ping to the endpoint, signed only by these signers, in order.

    Raises `Refused` if the endpoint is disabled, or if its row does not allow anything to be sent.
    """
    claim = _claim_of(ping)
    target = admit(claim, allow_http=allow_http, jitter=0.0)
    if not isinstance(target, Target):
        raise Refused(f"nothing is sent: {target.reason}", field="endpoint_id")
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
    return reaction_to(canary) is Reaction.ACCEPTED


def judge(canary: Answer, control: Answer | None) -> Judgement:
    """Return what the answers prove. A control that was not sent (None) proves nothing."""
    of_canary = reaction_to(canary)
    of_control = reaction_to(control) if of_canary is Reaction.ACCEPTED else None
    rule = _BY_REACTION[of_canary, of_control]
    return Judgement(
        verdict=rule.verdict,
        status=_status(canary),
        control_status=_status(control),
        detail=rule.detail.format(canary=_explained(canary), control=_explained(control)),
    )


def reaction_to(answer: Answer | None) -> Reaction:
    """Return what an answer says about the signature; None means that the request was not sent."""
    return _BY_STATUS.get(answer.status, Reaction.UNKNOWN) if isinstance(answer, Reply) else Reaction.UNKNOWN


def _status(answer: Answer | None) -> int | None:
    return answer.status if isinstance(answer, Reply) else None


def _explained(answer: Answer | None) -> str:
    match answer:
        case Reply(status=status):
            return f"it answered {status}"
        case Failure(detail=detail):
            return detail
        case NotBegun(missing_resource=str(resource)):
            return f"this machine had no socket for it ({resource})"
        case NotBegun():
            return f"it could not begin within {START_WITHIN_SECONDS:g} s"
        case None:
            return "it was not sent"
        case _:
            assert_never(answer)


def _claim_of(ping: Ping) -> Claim:
    """Return the claim of a first attempt of this ping. It has no lease, and nothing is recorded with it."""
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
        created_at=ping.at,
        claimed_at=ping.at,
        lease_token="",
        target=ping.target,
    )


def _body(ping: Ping) -> bytes:
    at = ping.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = {"id": ping.id, "endpoint_id": ping.target.pointer.endpoint_id}
    return json.dumps({"type": EVENT_TYPE, "timestamp": at, "data": data}, separators=(",", ":")).encode()
