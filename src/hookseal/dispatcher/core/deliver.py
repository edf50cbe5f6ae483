"""One delivery, in ten steps, top to bottom. Step 1, the claim, is the caller's; steps 2 to 5 are those of `prepare`.

Steps 1, 3, 6 and 9 wait for something outside; the others are pure. After a claim, every path ends with a write to the
ledger, so that no lease remains while PostgreSQL answers. The signers are released before anything is sent. Only the
masked values of the endpoint's own headers and its TLS identity stay available while the request is in flight.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, assert_never
from urllib.parse import urlsplit

from hookseal.dispatcher.core.model import (
    Answer,
    Attempt,
    Claim,
    Failure,
    NotBegun,
    Reply,
    State,
    Verdict,
)
from hookseal.dispatcher.core.outcome import classify, explain
from hookseal.dispatcher.core.policy import End, Wait, await_repair, decide
from hookseal.dispatcher.core.ports import Parts
from hookseal.dispatcher.core.prepare import (
    START_WITHIN_SECONDS,
    Faulty,
    NotAdmitted,
    Prepared,
    Signed,
    prepared,
    wait_after,
    with_headers_and_tls,
)
from hookseal.errors import CannotSign, Defect, Exhausted, LocalFailure, OutcomeKept, with_advice
from hookseal.ground.ids import uuid7_made_at

_URLS_REMEMBERED: Final = 1_024


def by_endpoint(claims: Iterable[Claim]) -> list[list[Claim]]:
    """Return the claims of each endpoint together."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for each in claims:
        groups.setdefault((each.ring.tenant_id, each.ring.endpoint_id), []).append(each)
    return list(groups.values())


async def prepare(claims: Sequence[Claim], asked_at: float, parts: Parts) -> list[Prepared]:
    """Steps 2 to 5: return these claims of one endpoint, from one statement, each ready for `finish`.

    Raises nothing but a cancellation. Every claim is given back before; a claim that could not be given back is logged.
    """
    try:
        return await prepared(claims, asked_at, parts)
    except BaseException:  # cancelled
        await _shielded(_give_all_back(claims, parts))
        raise


async def give_back(claim: Claim, parts: Parts) -> None:
    """Give back a claim that the limits it has read do not allow: its delivery is due now, with no attempt spent."""
    await _shielded(_give_all_back([claim], parts, reason="the limits of the endpoint do not allow it now"))


async def finish(attempt: Prepared, parts: Parts) -> None:
    """Steps 6 to 10: afterwards the delivery is in a final state, due again, held, or given back.

    Raises `Unavailable` if PostgreSQL did not answer: the lease then expires, and the sweep ends it. Raises the error
    of a preparation that failed. Raises `Exhausted` after the delivery was given back because this machine has no file
    descriptor or memory left: the caller should then begin less for a while.
    """
    match attempt:
        case Signed():
            await _finish_signed(attempt, parts)
        case NotAdmitted(claim=refused, verdict=verdict):
            await _shielded(_wait_or_end(refused, verdict, parts))
        case Faulty(claim=faulty, error=error):
            await _postpone(faulty, error, parts)
            raise error
        case _:
            assert_never(attempt)


async def _finish_signed(signed: Signed, parts: Parts) -> None:
    """Send the request, with the endpoint's own headers and TLS identity if there are any."""
    pointer = signed.target.pointer
    if pointer.headers_ref is None and pointer.tls_ref is None:
        await _send(signed, _sent(signed, parts), parts)  # 6 to 10
        return
    try:
        signed, block = await with_headers_and_tls(signed, parts)
    except (CannotSign, LocalFailure) as error:
        await _shielded(_wait_or_end(signed.claim, wait_after(error, parts), parts))
    except Exception as error:  # an error in hookseal, or of this machine
        await _postpone(signed.claim, error, parts)
        raise
    except BaseException:  # cancelled
        await _shielded(_give_back(signed.claim, parts))
        raise
    else:
        await _send(signed, _sent_within(block, signed, parts), parts)


async def _sent(signed: Signed, parts: Parts) -> Answer:
    if not parts.may_begin():
        return NotBegun(is_unrecordable=True)
    if parts.tracing is not None:
        return await parts.tracing.send(parts.transport, signed.claim, signed.request)
    return await parts.transport.send(signed.request)


async def _sent_within(block: AsyncExitStack, signed: Signed, parts: Parts) -> Answer:
    async with block:
        return await _sent(signed, parts)


async def _send(signed: Signed, sending: Coroutine[object, object, Answer], parts: Parts) -> None:
    started = parts.clock.monotonic()
    try:
        answer = await sending  # 6
    except Defect:  # nothing was begun
        await _shielded(_wait_or_end(signed.claim, await_repair(parts.jitter()), parts))
        raise
    except BaseException:  # cancelled: the receiver may have the request, so the outcome is recorded as unknown
        await _record(signed, None, parts.clock.monotonic() - started, parts)
        raise
    if isinstance(answer, NotBegun):
        await _shielded(_give_back_unbegun(signed.claim, answer, parts))
        if answer.missing_resource is not None:
            raise Exhausted(f"this machine has none left of what a connection takes ({answer.missing_resource})")
    else:
        await _record(signed, answer, parts.clock.monotonic() - started, parts)


async def _record(signed: Signed, answer: Reply | Failure | None, seconds: float, parts: Parts) -> None:
    """Record the outcome of the request, then count and log it. A cancellation is raised after both are done.

    One that PostgreSQL refuses is counted and logged, too.

    Nothing is awaited between the answer and the call of the ledger.
    """
    row = _attempt(answer, signed.refs, seconds)  # 7
    parts.answered(signed.claim.ring, row.outcome)
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
        await recording
    except OutcomeKept as kept:
        _meter_attempt(signed.claim, row, seconds=seconds, parts=parts)
        parts.log.error(  # noqa: TRY400 -- the error of PostgreSQL is the reason
            "delivery.outcome_refused",
            **_attempt_fields(signed, row, verdict),
            reason=str(kept),
        )
    except asyncio.CancelledError:
        if recording.done() and not recording.cancelled() and (lost := recording.exception()) is not None:
            parts.log.error(  # noqa: TRY400 -- the cancellation would not help
                "delivery.unrecorded", **_identity(signed.claim), reason=str(lost)
            )
        raise
    finally:
        if recording.done() and not recording.cancelled() and recording.exception() is None:
            applied = recording.result()
            _count(signed.claim, row, applied, seconds=seconds, parts=parts)  # 10
            if applied is not None:
                parts.health.attempted(signed.target, row.outcome)
            if applied is None or applied.state is not State.DELIVERED:
                parts.log.warning(
                    "delivery.attempted",
                    **_attempt_fields(signed, row, applied or verdict),
                    detail=error,
                    recorded=applied is not None,
                )
            elif is_logged(signed.claim.ring.delivery_id, parts.successes_per_line):
                parts.success_log.info("delivery.attempted", **_success_fields(signed.claim, row))
            if applied is not None and applied.disable is not None:
                parts.log.warning("endpoint.disabled", **_identity(signed.claim), reason=applied.disable)
            elif applied is not None and applied.state is verdict.state and verdict.disable is not None:
                parts.log.error("endpoint.not_disabled", **_identity(signed.claim), reason="it could not be audited")


def is_logged(delivery_id: str, successes_per_line: int) -> bool:
    """Return whether the success of this delivery is logged: about one in so many, always the same ones; 0: none."""
    return successes_per_line > 0 and int(delivery_id[-8:], 16) % successes_per_line == 0


def _count(claim: Claim, row: Attempt, applied: Verdict | None, *, seconds: float, parts: Parts) -> None:
    """Count an attempt and the verdict that was applied; `applied` is None if its lease was lost."""
    _meter_attempt(claim, row, seconds=seconds, parts=parts)
    if applied is None:
        parts.meter.lease_lost()
    else:
        parts.meter.decided(applied)


def _meter_attempt(claim: Claim, row: Attempt, *, seconds: float, parts: Parts) -> None:
    first_after = _first_after(claim) if claim.number == 1 else None
    parts.meter.attempted(row.outcome, seconds, first_after=first_after, was_held=claim.was_held)


def _first_after(claim: Claim) -> float:
    """Return the seconds from the call that published the delivery to its claim.

    Its id has the time of the call. `created_at` is that of the call's transaction, which may have begun long before.
    """
    called_at = uuid7_made_at(claim.ring.delivery_id)
    published_at = claim.created_at if called_at is None else max(called_at, claim.created_at)
    return max((claim.claimed_at - published_at).total_seconds(), 0.0)


def _now(signed: Signed, parts: Parts) -> datetime:
    """Return the time by the clock of the database: the clock of this machine may be wrong by hours."""
    asked_at = signed.request.start_by - START_WITHIN_SECONDS
    return signed.claim.claimed_at + timedelta(seconds=parts.clock.monotonic() - asked_at)


def _attempt(answer: Reply | Failure | None, refs: tuple[str, ...], seconds: float) -> Attempt:
    return Attempt(
        outcome=classify(answer),
        status=answer.status if isinstance(answer, Reply) else None,
        duration_ms=round(seconds * 1000),
        snippet=answer.snippet if isinstance(answer, Reply) else None,
        signed_by=refs,
    )


def _success_fields(claim: Claim, row: Attempt) -> dict[str, object]:
    """Return the fields of the log event of an attempt that delivered. Nearly every line is one: so these are few."""
    correlated: dict[str, object] = {} if claim.correlation_id is None else {"correlation_id": claim.correlation_id}
    return {
        "tenant_id": claim.ring.tenant_id,
        "endpoint_id": claim.ring.endpoint_id,
        "delivery_id": claim.ring.delivery_id,
        "event_id": claim.event_id,
        **correlated,
        **_trace(claim),
        "attempt": claim.number,
        "status": row.status,
        "duration_ms": row.duration_ms,
    }


def _attempt_fields(signed: Signed, row: Attempt, verdict: Verdict) -> dict[str, object]:
    """Return the fields of the log event of an attempt that did not deliver, or is not on record.

    It has only the host of the url: a path may contain a token.
    """
    return {
        **_identity(signed.claim),
        **_trace(signed.claim),
        "outcome": row.outcome.value,
        "status": row.status,
        "duration_ms": row.duration_ms,
        "signed_by": list(row.signed_by),
        "host": _host(signed.request.url),
        "bytes": len(signed.request.body),
        "state": verdict.state.value,
        "retry_in_seconds": verdict.retry_in_seconds if verdict.state is State.PENDING else None,
    }


def _trace(claim: Claim) -> dict[str, object]:
    """Return the trace that the producer gave with the event, by which its spans are found."""
    # A traceparent has a version, this id, the id of a span and flags.
    return {} if claim.traceparent is None else {"trace_id": claim.traceparent.split("-")[1]}


@lru_cache(maxsize=_URLS_REMEMBERED)
def _host(url: str) -> str | None:
    return urlsplit(url).hostname


async def _wait_or_end(claim: Claim, verdict: Wait | End, parts: Parts) -> None:
    match verdict:
        case Wait(waiting_for=waiting_for, reason=reason):
            if await _count_lost_lease(parts.ledger.release(claim, verdict), parts):
                if waiting_for is not None:
                    parts.meter.held(waiting_for)
                elif verdict.for_other_worker:
                    parts.meter.given_back()
                parts.log.warning("delivery.waiting", **_identity(claim), waiting_for=waiting_for, reason=reason)
        case End(state=state, reason=reason):
            if await _count_lost_lease(parts.ledger.end(claim, state, reason), parts):
                parts.log.warning("delivery.ended", **_identity(claim), state=state.value, reason=reason)
        case _:
            assert_never(verdict)


async def _give_all_back(claims: Sequence[Claim], parts: Parts, *, reason: str | None = None) -> None:
    """Give these claims back concurrently: each retries while PostgreSQL is down, and a stop waits for all of them."""
    results = await asyncio.gather(*(_give_back(each, parts) for each in claims), return_exceptions=True)
    for each, result in zip(claims, results, strict=True):
        if isinstance(result, BaseException):
            parts.log.error("delivery.unrecorded", **_identity(each), reason=str(result))
        elif result and reason is not None:
            parts.meter.given_back()
            parts.log.info("delivery.given_back", **_identity(each), reason=reason)


async def _postpone(claim: Claim, error: Exception, parts: Parts) -> None:
    """Give back a delivery that could not be prepared, to be tried again later. The caller logs the error."""
    if isinstance(error, Exhausted):
        await _shielded(_give_back_exhausted(claim, with_advice(error), parts))
    else:
        await _shielded(_wait_or_end(claim, await_repair(parts.jitter()), parts))


async def _give_back(claim: Claim, parts: Parts) -> bool:
    return await _count_lost_lease(parts.ledger.release(claim, None), parts)


async def _give_back_unbegun(claim: Claim, answer: NotBegun, parts: Parts) -> None:
    if answer.missing_resource is not None:
        await _give_back_exhausted(claim, f"no socket could be made ({answer.missing_resource})", parts)
    elif await _give_back(claim, parts):
        parts.meter.given_back()
        if not answer.is_unrecordable:  # else the worker logs the outage, once
            parts.log.warning("delivery.given_back", **_identity(claim), reason="the claim was too old to dial")


async def _give_back_exhausted(claim: Claim, reason: str, parts: Parts) -> None:
    if await _give_back(claim, parts):
        parts.meter.exhausted()
        parts.log.warning("delivery.given_back", **_identity(claim), reason=reason)


async def _count_lost_lease(writing: Awaitable[bool], parts: Parts) -> bool:
    """Return the result of the write: False if the lease was lost, which is counted."""
    had_lease = await writing
    if not had_lease:
        parts.meter.lease_lost()
    return had_lease


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


async def _shielded(writing: Coroutine[object, object, object]) -> None:
    """Return once the write has ended. A cancellation is raised only after that, and not if the write failed."""
    task = asyncio.ensure_future(writing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        task.result()  # an error of the write is raised in place of the cancellation, so that the caller logs it
        raise
