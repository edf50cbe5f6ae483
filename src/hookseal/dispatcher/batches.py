"""Claims and outcomes of many deliveries, one statement for each batch. No statement waits for a lock."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.model import Claim, Claimed, Made, Recorded, Retries, Ring, Target
from hookseal.ground.ids import EventId
from hookseal.ground.pointer import Pointer
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Executor, connected

_SQL: Final = statements("hookseal.dispatcher", "batches.sql")


async def claim_all(
    executor: Executor, rings: Sequence[Ring], *, worker: str, lease_seconds: float, token: str | None, most_bytes: int
) -> Claimed:
    """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies.

    `token`, a UUID, names the lease of all of them; without one each has its own. The claims of one endpoint share
    one `Target`. Raises `Unavailable`: then all or none of them may be taken.
    """
    by_id = {str(ring.delivery_id): ring for ring in rings}  # of two rings for one delivery the later counts
    rows = await _rows(executor, "claim_all", *_ids(by_id.values()), worker, lease_seconds, token, most_bytes)
    targets: dict[tuple[str, str], Target] = {}
    claims = [_claim(by_id.pop(row[0]), row, targets) for row in rows]
    if not by_id:
        return Claimed(claims=claims, busy=[])
    left = await _rows(executor, "due_still", *_ids(by_id.values()))
    return Claimed(claims=claims, busy=[by_id[row[0]] for row in left])


async def record_all(executor: Executor, made: Sequence[Made], *, worker: str) -> list[Recorded]:
    """Write these attempts and do what their verdicts say; return what became of each, in order.

    No verdict may disable an endpoint, and no claim may be the probe of one that is held. Raises `Unavailable`: then
    all or none of them may be recorded. What PostgreSQL refuses of one of them (an `asyncpg.PostgresError`) keeps all
    of them from being recorded.
    """
    rows = await _rows(executor, "record_all", *_columns([_made(each) for each in made]), worker)
    kept = {row[0] for row in rows}
    left = [each for each in made if each.claim.ring.delivery_id not in kept]
    busy = {row[0] for row in await _rows(executor, "leased_still", *_fences(left))} if left else set()
    return [_recorded(each.claim.ring.delivery_id, kept, busy) for each in made]


async def recorded(executor: Executor, made: Sequence[Made], *, worker: str) -> set[str]:
    """Return the delivery ids of those attempts that are on record as they were made. Raises `Unavailable`."""
    asked = _columns([
        (each.claim.ring.tenant_id, each.claim.ring.delivery_id, each.claim.number, each.attempt.outcome.value)
        for each in made
    ])  # fmt: skip
    return {row[0] for row in await _rows(executor, "recorded_of", *asked, worker)}


def _recorded(delivery_id: str, kept: set[str], busy: set[str]) -> Recorded:
    if delivery_id in kept:
        return Recorded.KEPT
    return Recorded.BUSY if delivery_id in busy else Recorded.LEASE_LOST


async def _rows(executor: Executor, name: str, *arguments: Any) -> list[Any]:
    with translated():
        async with connected(executor) as connection:
            return await connection.fetch(_SQL[name], *arguments, timeout=ANSWER_SECONDS)


def _ids(rings: Iterable[Ring]) -> list[list[Any]]:
    return _columns([(ring.tenant_id, ring.endpoint_id, ring.delivery_id) for ring in rings])


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _fences(made: Sequence[Made]) -> list[list[Any]]:
    return _columns([
        (each.claim.ring.tenant_id, each.claim.ring.delivery_id, each.claim.lease_token) for each in made
    ])  # fmt: skip


def _made(made: Made) -> tuple[Any, ...]:
    claim, attempt, verdict = made.claim, made.attempt, made.verdict
    return (
        claim.ring.tenant_id,
        claim.ring.delivery_id,
        claim.lease_token,
        verdict.state.value,
        made.error,
        verdict.retry_in_seconds,
        attempt.duration_ms,
        attempt.status,
        attempt.outcome.value,
        attempt.snippet,
        " ".join(attempt.signed_by),  # no reference has a space, and PostgreSQL takes no array of arrays of any length
    )


def _claim(ring: Ring, row: Any, targets: dict[tuple[str, str], Target]) -> Claim:
    """Return the claim of a row, read by position: names cost twice as much."""
    _, event_id, event_type, correlation_id, traceparent, body, *rest = row[:13]
    number, budget_spent, made_at, claimed_at, token, lost, found = rest
    return Claim(
        ring=ring,
        event_id=EventId(event_id),
        event_type=event_type,
        correlation_id=correlation_id,
        traceparent=traceparent,
        body=body,
        number=number,
        budget_spent=budget_spent,
        made_at=made_at,
        claimed_at=claimed_at,
        lease_token=token,
        target=_target(ring, row, targets) if found else None,
        endpoint_lost=lost,
        is_probe=row["is_probe"],
    )


def _target(ring: Ring, row: Any, targets: dict[tuple[str, str], Target]) -> Target:
    key = (ring.tenant_id, ring.endpoint_id)
    target = targets.get(key)
    if target is None:
        target = targets[key] = _read(ring, row)
    return target


def _read(ring: Ring, row: Any) -> Target:
    pointer = Pointer(
        tenant_id=ring.tenant_id,
        endpoint_id=ring.endpoint_id,
        url=row["url"],
        scheme=row["scheme"],
        algorithm=row["algorithm"],
        secret_ref=row["secret_ref"],
        previous_secret_ref=row["previous_secret_ref"],
        previous_secret_expires_at=row["previous_secret_expires_at"],
        previous_scheme=row["previous_scheme"],
        previous_algorithm=row["previous_algorithm"],
        previous_due=row["previous_due"],
        headers_ref=row["headers_ref"],
        tls_ref=row["tls_ref"],
        lead=row["lead"],
        generation=row["generation"],
        mac=row["mac"],
        mac_key_id=row["mac_key_id"],
        cache_epoch=row["cache_epoch"],
        restore_epoch=row["restore_epoch"],
        read_at=row["claimed_at"],
        audited_generation=row["audited_generation"],
        database=row["database"],
    )
    retries = Retries(
        attempts_allowed=row["attempts_allowed"],
        backoff_base_seconds=row["backoff_base_seconds"],
        backoff_cap_seconds=row["backoff_cap_seconds"],
        schedule=None if row["retry_schedule"] is None else tuple(row["retry_schedule"]),
    )
    return Target(pointer=pointer, enabled=row["enabled"], timeout_ms=row["timeout_ms"], retries=retries)
