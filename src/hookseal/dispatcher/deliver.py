"""One delivery, in ten steps, top to bottom.

Steps 1, 3, 6 and 9 await something outside; the others are pure. Every end after a claim passes
through the ledger, so that no lease is left behind while PostgreSQL answers. What signs is let go before
anything is sent; only the values of the endpoint's own headers, masked, and what it is dialled with are held while
the request is.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar, assert_never
from urllib.parse import urlsplit

from hookseal.dispatcher.compose import compose
from hookseal.dispatcher.model import (
    Attempt,
    Claim,
    Failure,
    NotBegun,
    Reply,
    Request,
    Ring,
    State,
    Target,
    Verdict,
)
from hookseal.dispatcher.outcome import classify, explain
from hookseal.dispatcher.policy import End, Wait, admit, await_mending, await_secret, await_turn, decide
from hookseal.dispatcher.ports import Parts, dialled_with
from hookseal.ground.errors import CannotSign, Defect, Exhausted, LocalFailure, Unavailable

_Written = TypeVar("_Written", bool, Verdict | None)

START_WITHIN_SECONDS: Final = 2.0  # no request starts later than this after its claim (design, law 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """An attempt that is ready to be sent, and the refs of what signed it, current first."""

    claim: Claim
    target: Target
    request: Request
    refs: tuple[str, ...]


async def take(ring: Ring, parts: Parts) -> tuple[Claim, float] | None:
    """Step 1, claim: return the claim and the monotonic time just before it, None if there is nothing to do."""
    asked_at = parts.clock.monotonic()
    claim = await parts.ledger.claim(ring)
    return None if claim is None else (claim, asked_at)


async def attempt(claim: Claim, asked_at: float, parts: Parts) -> None:
    """Steps 2 to 10: afterwards the delivery is delivered, due again, over, held back, or given back.

    Raises `Unavailable` if PostgreSQL could not be told; the lease then runs out and the sweep acts. Raises `Exhausted`
    once it is given back for want of what this machine lacks: whoever runs us should begin less for a while.
    """
    target = admit(claim, allow_http=parts.allow_http, jitter=parts.jitter())  # 2
    if not isinstance(target, Target):
        await _shielded(_hold(claim, target, parts))
        return
    held: AbstractAsyncContextManager[object] = nullcontext()
    try:
        signed = await _sign(claim, target, asked_at, parts)  # 3, 4, 5
        if target.pointer.headers_ref is not None or target.pointer.tls_ref is not None:
            signed, held = await _with_own(signed, parts)
    except (CannotSign, LocalFailure) as error:
        await _shielded(_cannot(claim, error, parts))
    except Exhausted as error:
        await _shielded(_exhausted(claim, str(error), parts))
        raise
    except Exception:  # a fault of ours: it is told by whoever runs us
        await _shielded(_hold(claim, await_mending(parts.jitter()), parts))
        raise
    except BaseException:  # cut off
        await _shielded(_give_back(claim, parts))
        raise
    else:
        await _send(signed, held, parts)  # 6 to 10


async def _sign(claim: Claim, target: Target, asked_at: float, parts: Parts) -> _Signed:
    async with parts.signers.signers(target.pointer) as signers:
        if not signers:
            raise Defect("a request would have left unsigned")
        request = compose(
            claim,
            target,
            signers,
            user_agent=parts.user_agent,
            longest_seconds=parts.longest_seconds,
            start_by=asked_at + START_WITHIN_SECONDS,
        )
        return _Signed(claim=claim, target=target, request=request, refs=tuple(signer.ref for signer in signers))


async def _with_own(signed: _Signed, parts: Parts) -> tuple[_Signed, AsyncExitStack]:
    """Return the attempt with the endpoint's own headers and TLS identity, and the block at whose end they are gone."""
    pointer = signed.target.pointer
    async with AsyncExitStack() as block:
        values = await block.enter_async_context(parts.signers.headers(pointer))
        tls = await block.enter_async_context(parts.signers.tls(pointer))
        request = replace(signed.request, sealed_headers=values, tls=dialled_with(tls))
        return replace(signed, request=request), block.pop_all()


async def _send(signed: _Signed, held: AbstractAsyncContextManager[object], parts: Parts) -> None:
    started = parts.clock.monotonic()
    try:
        async with held:
            answer = await parts.transport.send(signed.request)  # 6
    except Defect:  # nothing was begun
        await _shielded(_hold(signed.claim, await_mending(parts.jitter()), parts))
        raise
    except BaseException:  # cut off: what became of the request is unknown, and on record
        await _shielded(_settle(signed, None, parts.clock.monotonic() - started, parts))
        raise
    if isinstance(answer, NotBegun):
        await _shielded(_not_begun(signed.claim, answer, parts))
        if answer.lack is not None:
            raise Exhausted(f"this machine has none left of what a connection takes ({answer.lack})")
    else:
        await _shielded(_settle(signed, answer, parts.clock.monotonic() - started, parts))


async def _settle(signed: _Signed, answer: Reply | Failure | None, seconds: float, parts: Parts) -> None:
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
    done = await _counted(parts.ledger.record(signed.claim, row, verdict, error), parts)  # 9
    parts.meter.attempted(row.outcome, seconds, first_after=_first_after(signed.claim))  # 10
    if done is not None:
        parts.meter.decided(done)
    write = parts.log.info if done is not None and done.state is State.DELIVERED else parts.log.warning
    write("delivery.attempted", **_told(signed, row, done or verdict), detail=error, recorded=done is not None)
    if done is not None and done.disable is not None:
        parts.log.warning("endpoint.disabled", **_identity(signed.claim), reason=done.disable)


def _now(signed: _Signed, parts: Parts) -> datetime:
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


def _told(signed: _Signed, row: Attempt, verdict: Verdict) -> dict[str, object]:
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


async def _cannot(claim: Claim, error: CannotSign | LocalFailure, parts: Parts) -> None:
    if isinstance(error, CannotSign):
        is_transient = isinstance(error, Unavailable)
        await _hold(claim, await_secret(str(error), parts.jitter(), is_transient=is_transient), parts)
    else:  # another worker may have what it takes: no endpoint is held
        parts.meter.given_back()
        await _hold(claim, await_turn(str(error), parts.jitter()), parts)


async def _give_back(claim: Claim, parts: Parts) -> None:
    await _counted(parts.ledger.release(claim, None), parts)


async def _not_begun(claim: Claim, answer: NotBegun, parts: Parts) -> None:
    if answer.lack is not None:
        await _exhausted(claim, f"no socket could be made ({answer.lack})", parts)
        return
    await _give_back(claim, parts)
    parts.meter.given_back()
    parts.log.warning("delivery.given_back", **_identity(claim), reason="the claim was too old to dial")


async def _exhausted(claim: Claim, reason: str, parts: Parts) -> None:
    await _give_back(claim, parts)
    parts.meter.exhausted()
    parts.log.warning("delivery.given_back", **_identity(claim), reason=reason)


async def _counted(writing: Awaitable[_Written], parts: Parts) -> _Written:
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
