"""One delivery, in ten steps, top to bottom.

Steps 1, 3, 6 and 9 await something outside; the others are pure. Every end after a claim passes
through the ledger, so that no lease is left behind while PostgreSQL answers.
"""

import asyncio
from collections.abc import Coroutine
from typing import Final, TypeVar, assert_never
from urllib.parse import urlsplit

from hookseal.dispatcher.compose import compose
from hookseal.dispatcher.model import (
    Answer,
    Attempt,
    Claim,
    Failure,
    NotBegun,
    Outcome,
    Reply,
    Request,
    Ring,
    State,
    Target,
)
from hookseal.dispatcher.outcome import classify, explain
from hookseal.dispatcher.policy import End, Wait, admit, await_secret, decide
from hookseal.dispatcher.ports import Parts
from hookseal.ground.errors import CannotSign, Defect

START_WITHIN_SECONDS: Final = 2.0  # no request starts later than this after its claim (design, law 4)
_CUT_OFF: Final = "the worker was stopped before the answer came"
_T = TypeVar("_T")


async def take(ring: Ring, parts: Parts) -> tuple[Claim, float] | None:
    """Step 1, claim: return the claim and the monotonic time just before it, None if there is nothing to do."""
    asked_at = parts.clock.monotonic()
    claim = await parts.ledger.claim(ring)
    return None if claim is None else (claim, asked_at)


async def attempt(claim: Claim, asked_at: float, parts: Parts) -> None:
    """Steps 2 to 10: afterwards the delivery is delivered, over, held back, or given back.

    Raises `Unavailable` if PostgreSQL could not be told; the lease then runs out and the sweep acts.
    """
    target = admit(claim, allow_http=parts.allow_http, jitter=parts.jitter())  # 2
    if not isinstance(target, Target):
        await _hold(claim, target, parts)
        return
    try:
        request, signed_by = await _sign(claim, target, asked_at, parts)  # 3, 4, 5
    except CannotSign as error:
        await _hold(claim, await_secret(str(error), parts.jitter()), parts)
    except BaseException:  # cut off, or a fault of ours: it is told by whoever runs us
        await _shielded(parts.ledger.release(claim, None))
        raise
    else:
        await _send(claim, request, signed_by, parts)  # 6 to 10


async def _sign(claim: Claim, target: Target, asked_at: float, parts: Parts) -> tuple[Request, tuple[str, ...]]:
    async with parts.signers.signers(target.pointer) as signers:
        if not signers:
            raise Defect("a request would have left unsigned")
        request = compose(
            claim,
            target,
            signers,
            user_agent=parts.user_agent,
            longest_seconds=parts.longest_seconds,
            start_within_seconds=START_WITHIN_SECONDS - (parts.clock.monotonic() - asked_at),
        )
        return request, tuple(signer.ref for signer in signers)


async def _send(claim: Claim, request: Request, signed_by: tuple[str, ...], parts: Parts) -> None:
    started = parts.clock.monotonic()
    answer: Answer | None = None
    try:
        answer = await parts.transport.send(request)  # 6
    finally:  # also when we are cut off: what became of the request is then unknown, and on record
        if isinstance(answer, NotBegun):
            await _shielded(parts.ledger.release(claim, None))
            parts.log.warning("delivery.given_back", **_identity(claim), reason="the claim was too old to dial")
        else:
            row = _row(answer, signed_by, round((parts.clock.monotonic() - started) * 1000))  # 7
            error = _CUT_OFF if answer is None else explain(answer)
            await _record(claim, request, row, parts, error=error)  # 8, 9, 10


def _row(answer: Reply | Failure | None, signed_by: tuple[str, ...], duration_ms: int) -> Attempt:
    return Attempt(
        outcome=Outcome.UNKNOWN if answer is None else classify(answer),
        status=answer.status if isinstance(answer, Reply) else None,
        duration_ms=duration_ms,
        snippet=answer.snippet if isinstance(answer, Reply) else None,
        signed_by=signed_by,
    )


async def _record(claim: Claim, request: Request, row: Attempt, parts: Parts, *, error: str | None) -> None:
    state = decide(row.outcome)  # 8
    kept = await _shielded(parts.ledger.record(claim, row, state, error))  # 9
    write = parts.log.info if kept and state is State.DELIVERED else parts.log.warning
    write("delivery.attempted", **_told(claim, request, row), state=state.value, detail=error, recorded=kept)  # 10


def _told(claim: Claim, request: Request, row: Attempt) -> dict[str, object]:
    """Return the one wide event of an attempt. Of the url only the host is told: a path may hold a token."""
    return {
        **_identity(claim),
        "outcome": row.outcome.value,
        "status": row.status,
        "duration_ms": row.duration_ms,
        "signed_by": list(row.signed_by),
        "host": urlsplit(request.url).hostname,
        "bytes": len(request.body),
    }


async def _hold(claim: Claim, verdict: Wait | End, parts: Parts) -> None:
    match verdict:
        case Wait(waiting_for=waiting_for, reason=reason):
            await _shielded(parts.ledger.release(claim, verdict))
            parts.log.warning("delivery.waiting", **_identity(claim), waiting_for=waiting_for.value, reason=reason)
        case End(state=state, reason=reason):
            await _shielded(parts.ledger.end(claim, state, reason))
            parts.log.warning("delivery.ended", **_identity(claim), state=state.value, reason=reason)
        case _:
            assert_never(verdict)


def _identity(claim: Claim) -> dict[str, object]:
    return {
        "tenant_id": claim.ring.tenant_id,
        "delivery_id": claim.ring.delivery_id,
        "endpoint_id": claim.ring.endpoint_id,
        "event_id": claim.event_id,
        "event_type": claim.event_type,
        "correlation_id": claim.correlation_id,
        "attempt": claim.number,
    }


async def _shielded(writing: Coroutine[object, object, _T]) -> _T:
    """Return what the write returned; a cancellation waits for it and is raised afterwards."""
    task = asyncio.ensure_future(writing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
