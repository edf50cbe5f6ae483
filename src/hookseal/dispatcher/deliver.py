"""One delivery, in ten steps, top to bottom; steps 2 to 5 are those of `prepare`.

Steps 1, 3, 6 and 9 await something outside; the others are pure. Every end after a claim passes
through the ledger, so that no lease is left behind while PostgreSQL answers. What signs is let go before
anything is sent; only the values of the endpoint's own headers, masked, and what it is dialled with are held while
the request is.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime, timedelta
from typing import assert_never
from urllib.parse import urlsplit

from hookseal.dispatcher.model import (
    Attempt,
    Claim,
    Claimed,
    Failure,
    NotBegun,
    Reply,
    Ring,
    State,
    Verdict,
)
from hookseal.dispatcher.outcome import classify, explain
from hookseal.dispatcher.policy import End, Wait, await_mending, decide
from hookseal.dispatcher.ports import Parts
from hookseal.dispatcher.prepare import (
    START_WITHIN_SECONDS,
    Faulty,
    Held,
    Prepared,
    Signed,
    prepared,
    unsigned,
    with_own,
)
from hookseal.ground.errors import CannotSign, Defect, Exhausted


async def claim(rings: Sequence[Ring], parts: Parts, *, most_bytes: int) -> tuple[Claimed, float]:
    """Step 1, claim: return what was claimed, and the monotonic time just before it."""
    asked_at = parts.clock.monotonic()
    return await parts.ledger.claim_all(rings, None, most_bytes=most_bytes), asked_at


async def prepare(claims: Sequence[Claim], asked_at: float, parts: Parts) -> list[Prepared]:
    """Steps 2 to 5 of claims of one endpoint that one statement read: return each of them, ready for `finish`.

    Raises nothing but a cancellation, which gives every claim back first.
    """
    try:
        return await prepared(claims, asked_at, parts)
    except BaseException:  # cut off
        await _shielded(_give_all_back(claims, parts))
        raise


async def finish(attempt: Prepared, parts: Parts) -> None:
    """Steps 6 to 10: afterwards the delivery is delivered, due again, over, held back, or given back.

    Raises `Unavailable` if PostgreSQL could not be told; the lease then runs out and the sweep acts. Raises a fault of
    ours that befell its preparation, too, and `Exhausted` once it is given back for want of what this machine lacks:
    then less should begin for a while.
    """
    match attempt:
        case Signed():
            await _sent(attempt, parts)
        case Held(claim=held, verdict=verdict):
            await _shielded(_hold(held, verdict, parts))
        case Faulty(claim=faulty, error=error):
            await _shielded(_hold(faulty, await_mending(parts.jitter()), parts))
            raise error
        case _:
            assert_never(attempt)


async def _sent(signed: Signed, parts: Parts) -> None:
    """Send it, with the endpoint's own headers and TLS identity if it has any."""
    pointer = signed.target.pointer
    if pointer.headers_ref is None and pointer.tls_ref is None:
        await _send(signed, nullcontext(), parts)  # 6 to 10
        return
    try:
        signed, held = await with_own(signed, parts)
    except CannotSign as error:
        await _shielded(_hold(signed.claim, unsigned(error, parts), parts))
    except Exception:  # a fault of ours
        await _shielded(_hold(signed.claim, await_mending(parts.jitter()), parts))
        raise
    except BaseException:  # cut off
        await _shielded(_give_back(signed.claim, parts))
        raise
    else:
        await _send(signed, held, parts)


async def _send(signed: Signed, held: AbstractAsyncContextManager[object], parts: Parts) -> None:
    started = parts.clock.monotonic()
    try:
        async with held:
            answer = await parts.transport.send(signed.request)  # 6
    except Defect:  # nothing was begun
        await _shielded(_hold(signed.claim, await_mending(parts.jitter()), parts))
        raise
    except BaseException:  # cut off: what became of the request is unknown, and on record
        await _settle(signed, None, parts.clock.monotonic() - started, parts)
        raise
    if isinstance(answer, NotBegun):
        await _shielded(_not_begun(signed.claim, answer, parts))
        if answer.lack is not None:
            raise Exhausted(f"this machine has none left of what a connection takes ({answer.lack})")
    else:
        await _settle(signed, answer, parts.clock.monotonic() - started, parts)


async def _settle(signed: Signed, answer: Reply | Failure | None, seconds: float, parts: Parts) -> None:
    """Record what became of the request, then report it; a cancellation waits for both and is raised afterwards.

    Nothing is awaited between the answer and its entry into the ledger.
    """
    row = _row(answer, signed.refs, seconds)  # 7
    verdict = decide(  # 8
        row.outcome,
        retry_after=answer.retry_after if isinstance(answer, Reply) else (),
        budget_spent=signed.claim.budget_spent,
        retries=signed.target.retries,
        now=_now(signed, parts),
        jitter=parts.jitter(),
    )
    error = explain(answer)
    recording = asyncio.ensure_future(parts.ledger.record(signed.claim, row, verdict, error))  # 9
    try:
        await asyncio.shield(recording)
    except asyncio.CancelledError:
        await asyncio.wait({recording})
        raise
    finally:
        if recording.done() and not recording.cancelled() and recording.exception() is None:
            done = recording.result()
            _count(signed.claim, row, done, seconds=seconds, parts=parts)  # 10
            write = parts.log.info if done is not None and done.state is State.DELIVERED else parts.log.warning
            write("delivery.attempted", **_told(signed, row, done or verdict), detail=error, recorded=done is not None)
            if done is not None and done.disable is not None:
                parts.log.warning("endpoint.disabled", **_identity(signed.claim), reason=done.disable)


def _count(claim: Claim, row: Attempt, done: Verdict | None, *, seconds: float, parts: Parts) -> None:
    """Count an attempt, and what was done of it, None if its lease had moved on."""
    parts.meter.attempted(row.outcome, seconds, first_after=_first_after(claim))
    if done is None:
        parts.meter.lease_lost()
    else:
        parts.meter.decided(done)


def _now(signed: Signed, parts: Parts) -> datetime:
    """Return the time of the ledger: the wall clock of this machine may be hours off."""
    asked_at = signed.request.start_by - START_WITHIN_SECONDS
    return signed.claim.claimed_at + timedelta(seconds=parts.clock.monotonic() - asked_at)


def _row(answer: Reply | Failure | None, refs: tuple[str, ...], seconds: float) -> Attempt:
    return Attempt(
        outcome=classify(answer),
        status=answer.status if isinstance(answer, Reply) else None,
        duration_ms=round(seconds * 1000),
        snippet=answer.snippet if isinstance(answer, Reply) else None,
        signed_by=refs,
    )


def _first_after(claim: Claim) -> float | None:
    """Return how old the delivery was when its first attempt began, None if this is a later one."""
    return (claim.claimed_at - claim.made_at).total_seconds() if claim.number == 1 else None


def _told(signed: Signed, row: Attempt, verdict: Verdict) -> dict[str, object]:
    """Return the one wide event of an attempt. Of the url only the host is told: a path may hold a token."""
    return {
        **_identity(signed.claim),
        "outcome": row.outcome.value,
        "status": row.status,
        "duration_ms": row.duration_ms,
        "signed_by": list(row.signed_by),
        "host": urlsplit(signed.request.url).hostname,
        "bytes": len(signed.request.body),
        "state": verdict.state.value,
        "retry_in_seconds": verdict.retry_in_seconds if verdict.state is State.PENDING else None,
    }


async def _hold(claim: Claim, verdict: Wait | End, parts: Parts) -> None:
    match verdict:
        case Wait(waiting_for=waiting_for, reason=reason):
            if await _counted(parts.ledger.release(claim, verdict), parts) and waiting_for is not None:
                parts.meter.held(waiting_for)
            parts.log.warning("delivery.waiting", **_identity(claim), waiting_for=waiting_for, reason=reason)
        case End(state=state, reason=reason):
            await _counted(parts.ledger.end(claim, state, reason), parts)
            parts.log.warning("delivery.ended", **_identity(claim), state=state.value, reason=reason)
        case _:
            assert_never(verdict)


async def _give_all_back(claims: Sequence[Claim], parts: Parts) -> None:
    for each in claims:
        await _give_back(each, parts)


async def _give_back(claim: Claim, parts: Parts) -> None:
    await _counted(parts.ledger.release(claim, None), parts)


async def _not_begun(claim: Claim, answer: NotBegun, parts: Parts) -> None:
    await _give_back(claim, parts)
    if answer.lack is None:
        parts.meter.given_back()
        reason = "the claim was too old to dial"
    else:
        parts.meter.exhausted()
        reason = f"no socket could be made ({answer.lack})"
    parts.log.warning("delivery.given_back", **_identity(claim), reason=reason)


async def _counted(writing: Awaitable[bool], parts: Parts) -> bool:
    """Return what the write returned. That its lease had moved on is counted."""
    kept = await writing
    if not kept:
        parts.meter.lease_lost()
    return kept


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


async def _shielded(writing: Coroutine[object, object, None]) -> None:
    """Return once the writing is done; a cancellation waits for it and is raised afterwards."""
    task = asyncio.ensure_future(writing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
