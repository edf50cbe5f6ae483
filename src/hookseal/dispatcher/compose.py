"""Composes the request of one attempt from a claim and its signers. Pure."""

from collections.abc import Sequence
from typing import Final, assert_never

from hookseal.dispatcher.model import Claim, Request, Target
from hookseal.dispatcher.ports import Signer
from hookseal.ground.wire import (
    Scheme,
    signed_content,
    standard_headers,
    x_webhook_content,
    x_webhook_headers,
    x_webhook_signatures,
)

_SCHEMES: Final = tuple(Scheme)  # an enum is slow to iterate
CONTENT_TYPE: Final = "application/json"


def compose(
    claim: Claim,
    target: Target,
    signers: Sequence[Signer],
    *,
    user_agent: str,
    start_by: float,
    longest_seconds: float,
) -> Request:
    """Return the POST of this attempt: the body as it was published, signed now by every signer in order.

    Each scheme has its own headers. While an endpoint changes from one scheme to the other, the headers of both are
    sent, each signed by the secret of that scheme.
    """
    headers = {
        **_signed(claim, target, signers),
        "content-type": CONTENT_TYPE,
        "user-agent": user_agent,
        "accept-encoding": "identity",
        "x-hookseal-attempt": str(claim.number),
        "x-hookseal-event-id": claim.event_id,
    }
    if claim.correlation_id is not None:
        headers["x-correlation-id"] = claim.correlation_id
    if claim.traceparent is not None:
        headers["traceparent"] = claim.traceparent
    return Request(
        tenant_id=claim.ring.tenant_id,
        url=target.pointer.url,
        headers=headers,
        body=claim.body,
        start_by=start_by,
        timeout_seconds=min(target.timeout_ms / 1000, longest_seconds),
    )


def _signed(claim: Claim, target: Target, signers: Sequence[Signer]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for scheme in _SCHEMES:
        of_scheme = [signer for signer in signers if signer.scheme is scheme]
        if of_scheme:
            headers |= _signed_by(scheme, claim, target, of_scheme)
    return headers


def _signed_by(scheme: Scheme, claim: Claim, target: Target, signers: Sequence[Signer]) -> dict[str, str]:
    timestamp = int(claim.claimed_at.timestamp())
    delivery_id = claim.ring.delivery_id
    match scheme:
        case Scheme.STANDARD:
            content = signed_content(delivery_id, timestamp, claim.body)
            return standard_headers(delivery_id, timestamp, tuple(signer.sign(content) for signer in signers))
        case Scheme.X_WEBHOOK:
            content = x_webhook_content(timestamp, claim.body)
            signatures = tuple(signer.sign(content) for signer in signers)
            fields = x_webhook_headers(
                tenant_id=claim.ring.tenant_id,
                delivery_id=delivery_id,
                event_type=claim.event_type,
                timestamp=timestamp,
            )
            return fields | x_webhook_signatures(signatures, lead=target.pointer.lead)
        case _:
            assert_never(scheme)
