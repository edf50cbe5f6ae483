"""Claims many deliveries, and records many outcomes, in one statement for each batch. None waits for a lock."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from hookseal.dispatcher.model import (
    Claim,
    Claimed,
    FinishedAttempt,
    Pace,
    Recorded,
    Retries,
    Ring,
    Target,
    WaitingFor,
)
from hookseal.ground.ids import EventId
from hookseal.ground.pointer import Pointer
from hookseal.postgres.handles import Connection, Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher", "batches.sql")
_NO_RINGS: Final = (None,) * 4
_NO_OUTCOMES: Final[tuple[str | list[str], ...]] = (*("",) * 9, [], [])


async def claim_all(
    executor: Executor, rings: Sequence[Ring], *, worker: str, lease_seconds: float, token: str | None, most_bytes: int
) -> Claimed:
    """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies.

    `token`, a UUID, becomes the token of every lease; without one each lease has its own. The claims of one endpoint
    share one `Target`. Raises `Unavailable`: all or none of the deliveries may then be claimed.
    """
    by_id = {str(ring.delivery_id): ring for ring in rings}  # if two rings name one delivery, the later one is used
    arguments = (*_ids(by_id.values()), worker, lease_seconds, token, most_bytes)
    is_alone = len(by_id) == 1 and not rings[-1].is_parked  # one that was parked is more often locked
    rows = await _rows(executor, "claim_one", *arguments) if is_alone else []  # rare cases are left to the other
    rows = rows or await _rows(executor, "claim_all", *arguments)
    targets = {_endpoint(by_id[row[0]]): _target(by_id[row[0]], row) for row in rows if row["has_endpoint"]}
    left: dict[str, list[Ring]] = {"delivery": [], "endpoint": [], "order": []}
    claims = []
    for row in rows:
        if row[-1] is None:
            claims.append(_claim(by_id[row[0]], row, targets))
        else:
            left[row[-1]].append(by_id[row[0]])
    return Claimed(claims=claims, busy=left["delivery"], locked=left["endpoint"], behind=left["order"])


async def record_all(executor: Executor, made: Sequence[FinishedAttempt], *, worker: str) -> list[Recorded]:
    """Record these attempts and apply their verdicts; return the result of each, in order.

    No verdict may disable an endpoint, and no claim may be the probe of a held endpoint. Raises `Unavailable`: all or
    none of them may then be recorded. If PostgreSQL refuses one of them (`asyncpg.PostgresError`), none is recorded.
    """
    rows = await _rows(executor, "record_all", *_outcomes(made), worker)
    stored = {row[0] for row in rows}
    left = [each for each in made if each.claim.ring.delivery_id not in stored]
    busy = {row[0] for row in await _rows(executor, "leased_still", *_fences(left))} if left else set()
    return [_recorded(each.claim.ring.delivery_id, stored, busy) for each in made]


async def recorded(executor: Executor, made: Sequence[FinishedAttempt], *, worker: str) -> set[str]:
    """Return the delivery ids of those attempts that are recorded with this outcome. Raises `Unavailable`."""
    columns = _lines([
        (each.claim.ring.tenant_id, each.claim.ring.delivery_id, str(each.claim.number), each.attempt.outcome.value)
        for each in made
    ])  # fmt: skip
    return {row[0] for row in await _rows(executor, "recorded_of", *columns, worker)}


async def plan(connection: Connection) -> None:
    """Have PostgreSQL plan the statements that claim and record, on this connection. Nothing is changed.

    Raises `Unavailable`.
    """
    for name in ("claim_one", "claim_all"):
        await _rows(connection, name, *_NO_RINGS, "", 0.0, None, 0)
    await _rows(connection, "record_all", *_NO_OUTCOMES, "")


def _recorded(delivery_id: str, stored: set[str], busy: set[str]) -> Recorded:
    if delivery_id in stored:
        return Recorded.STORED
    return Recorded.BUSY if delivery_id in busy else Recorded.LEASE_LOST


async def _rows(executor: Executor, name: str, *arguments: Any) -> list[Any]:
    return await _SQL.rows(executor, name, *arguments)


def _ids(rings: Iterable[Ring]) -> list[str]:
    return _lines([(ring.tenant_id, ring.endpoint_id, ring.delivery_id, "ft"[ring.is_parked]) for ring in rings])


def _lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return each column as the lines of one text. The values are ids, numbers and fixed words, without line breaks."""
    return ["\n".join(column) for column in zip(*rows, strict=True)]


def _fences(made: Sequence[FinishedAttempt]) -> list[str]:
    return _lines([
        (each.claim.ring.tenant_id, each.claim.ring.delivery_id, each.claim.lease_token) for each in made
    ])  # fmt: skip


def _outcomes(made: Sequence[FinishedAttempt]) -> list[str | list[str | None]]:
    texts = [[each.error for each in made], [each.attempt.snippet for each in made]]
    return [*_lines([_outcome(each) for each in made]), *texts]


def _outcome(made: FinishedAttempt) -> tuple[str, ...]:
    claim, attempt, verdict = made.claim, made.attempt, made.verdict
    return (
        claim.ring.tenant_id,
        claim.ring.delivery_id,
        claim.lease_token,
        verdict.state.value,
        str(verdict.retry_in_seconds),
        "" if attempt.duration_ms is None else str(attempt.duration_ms),
        "" if attempt.status is None else str(attempt.status),
        attempt.outcome.value,
        # References have no space. PostgreSQL has no arrays of arrays with different lengths.
        " ".join(attempt.signed_by),
    )


def _endpoint(ring: Ring) -> tuple[str, str]:
    return ring.tenant_id, ring.endpoint_id


def _claim(ring: Ring, row: Any, targets: Mapping[tuple[str, str], Target]) -> Claim:
    """Return the claim of a row. Columns are read by position, which takes half the time of reading by name."""
    _, event_id, event_type, correlation_id, traceparent, body, *rest = row[:15]
    number, budget_spent, created_at, claimed_at, token, lost, endpoint_found, is_probe, held_for = rest
    return Claim(
        ring=ring,
        event_id=EventId(event_id),
        event_type=event_type,
        correlation_id=correlation_id,
        traceparent=traceparent,
        body=body,
        number=number,
        budget_spent=budget_spent,
        created_at=created_at,
        claimed_at=claimed_at,
        lease_token=token,
        target=targets[_endpoint(ring)] if endpoint_found else None,
        endpoint_lost=lost,
        is_probe=is_probe,
        held_for=None if held_for is None else WaitingFor(held_for),
    )


def _target(ring: Ring, row: Any) -> Target:
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
        schedule=None if row["retry_schedule"] is None else tuple(map(int, row["retry_schedule"])),
    )
    return Target(
        pointer=pointer,
        enabled=row["enabled"],
        is_failing=row["is_failing"],
        timeout_ms=row["timeout_ms"],
        retries=retries,
        pace=Pace(concurrency=row["concurrency"], rate=row["rate"], ordered=row["ordered"]),
    )
