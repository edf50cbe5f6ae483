"""Steps 2 to 5 of a delivery: turn the claims of one endpoint into requests that are ready to be sent.

The signers are fetched once for all claims, and released before anything is sent.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from hookseal.dispatcher.core.model import Claim, Request, Target
from hookseal.dispatcher.core.policy import End, Wait, admit, await_other_worker, await_secret
from hookseal.dispatcher.core.ports import Parts, Signer, tls_identity
from hookseal.errors import CannotSign, Defect, LocalFailure, Unavailable, with_advice
from hookseal.ground.wire import (
    Scheme,
    signed_content,
    standard_headers,
    svix_headers,
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

    Each scheme has its own headers. While an endpoint changes from one scheme to another, the headers of both are
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
        if claim.tracestate is not None:
            headers["tracestate"] = claim.tracestate
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
        case Scheme.STANDARD | Scheme.SVIX:
            content = signed_content(delivery_id, timestamp, claim.body)
            named = standard_headers if scheme is Scheme.STANDARD else svix_headers
            return named(delivery_id, timestamp, tuple(signer.sign(content) for signer in signers))
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


START_WITHIN_SECONDS: Final = 2.0  # no request starts later than this after its claim
SIGNED_AT_ONCE: Final = 64  # the secret stays open only while this many requests are composed


class Signed(msgspec.Struct, frozen=True):
    """A request that is ready to be sent, with the references of the secrets that signed it, the current one first."""

    claim: Claim
    target: Target
    request: Request
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    """A delivery that must not be sent now, or not at all."""

    claim: Claim
    verdict: Wait | End


@dataclass(frozen=True, slots=True)
class Faulty:
    """A delivery that could not be prepared, because of an error in hookseal or a used-up resource (`Exhausted`)."""

    claim: Claim
    error: Exception


Prepared = Signed | NotAdmitted | Faulty


async def prepared(claims: Sequence[Claim], asked_at: float, parts: Parts) -> list[Prepared]:
    """Return these claims of one endpoint, each prepared for `finish`. One statement has claimed all of them.

    `asked_at` is the monotonic time just before that statement.
    """
    results: list[Prepared] = []
    admitted: list[tuple[Claim, Target]] = []
    for each in claims:
        target = admit(each, allow_http=parts.allow_http, jitter=parts.jitter())  # 2
        if isinstance(target, Target):
            admitted.append((each, target))
        else:
            results.append(NotAdmitted(each, target))
    for start in range(0, len(admitted), SIGNED_AT_ONCE):
        some = admitted[start : start + SIGNED_AT_ONCE]
        try:
            results += await _sign(some, asked_at, parts)  # 3, 4, 5
        except (CannotSign, LocalFailure) as error:
            results += [NotAdmitted(each, wait_after(error, parts)) for each, _ in some]
        except Exception as error:  # noqa: BLE001 -- it is raised for each of them
            results += [Faulty(each, error) for each, _ in some]
    return results


def wait_after(error: CannotSign | LocalFailure, parts: Parts) -> Wait:
    """Return the wait of a delivery that could not be signed, or that this process alone cannot send now."""
    if isinstance(error, CannotSign):
        return await_secret(with_advice(error), parts.jitter(), is_transient=isinstance(error, Unavailable))
    return await_other_worker(
        with_advice(error), parts.jitter()
    )  # the endpoint is not held: another worker may succeed


async def _sign(admitted: Sequence[tuple[Claim, Target]], asked_at: float, parts: Parts) -> list[Signed]:
    async with parts.signers.signers(admitted[0][1].pointer) as signers:
        if not signers:
            raise Defect("a request would have been sent unsigned")
        refs = tuple(signer.ref for signer in signers)
        composed = partial(
            compose,
            signers=signers,
            user_agent=parts.user_agent,
            longest_seconds=parts.longest_seconds,
            start_by=asked_at + START_WITHIN_SECONDS,
        )
        return [Signed(each, target, composed(each, target), refs) for each, target in admitted]


async def with_headers_and_tls(signed: Signed, parts: Parts) -> tuple[Signed, AsyncExitStack]:
    """Return the attempt with the headers and TLS identity of its endpoint, and the block that discards them."""
    pointer = signed.target.pointer
    async with AsyncExitStack() as block:
        values = await block.enter_async_context(parts.signers.headers(pointer))
        tls = await block.enter_async_context(parts.signers.tls(pointer))
        request = replace(signed.request, sealed_headers=values, tls=tls_identity(tls))
        return replace(signed, request=request), block.pop_all()
