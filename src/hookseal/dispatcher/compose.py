"""Composes the request of one attempt from a claim and its signers. Pure."""

from collections.abc import Sequence
from typing import Final

from hookseal.dispatcher.model import Claim, Request, Target
from hookseal.dispatcher.ports import Signer
from hookseal.ground.wire import signed_content, standard_headers

CONTENT_TYPE: Final = "application/json"


def compose(
    claim: Claim,
    target: Target,
    signers: Sequence[Signer],
    *,
    user_agent: str,
    start_within_seconds: float,
    longest_seconds: float,
) -> Request:
    """Return the POST of this attempt: the bytes frozen at publish, signed now by every signer in order."""
    timestamp = int(claim.claimed_at.timestamp())
    content = signed_content(claim.ring.delivery_id, timestamp, claim.body)
    headers = {
        **standard_headers(claim.ring.delivery_id, timestamp, tuple(signer.sign(content) for signer in signers)),
        "content-type": CONTENT_TYPE,
        "user-agent": user_agent,
        "accept-encoding": "identity",
        "x-hookseal-attempt": str(claim.number),
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
        start_within_seconds=start_within_seconds,
        timeout_seconds=min(target.timeout_ms / 1000, longest_seconds),
    )
