"""The ledger in PostgreSQL: claims under a fenced lease, outcomes, and the reads and writes of the sweep."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

import asyncpg
from msgspec.structs import replace

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.dispatcher.core.looks import LookStart
from hookseal.dispatcher.core.model import (
    Attempt,
    Claim,
    Claimed,
    FinishedAttempt,
    Pace,
    Recorded,
    Retries,
    Ring,
    State,
    Target,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import NOT_SENT, Wait
from hookseal.dispatcher.lanes.lane import TROUBLE
from hookseal.errors import Busy
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.postgres.pool import Connection, Executor, connected
from hookseal.postgres.statements import Statements, lines
from hookseal.postgres.translate import translated

_BATCHES: Final = Statements("hookseal.dispatcher.store", "batches.sql")
_NO_RINGS: Final = (None,) * 4
_NO_OUTCOMES: Final[tuple[str | list[str], ...]] = (*("",) * 10, [], [])


async def plan_batches(connection: Connection) -> None:
    """Have PostgreSQL plan the statements that claim and record, on this connection. Nothing is changed.

    Raises `Unavailable`.
    """
    for name in ("claim_one", "claim_all"):
        await _BATCHES.rows(connection, name, *_NO_RINGS, "", 0.0, None, 0, NOT_SENT)
    await _BATCHES.rows(connection, "record_all", *_NO_OUTCOMES, "")


def _recorded(delivery_id: str, stored: set[str], busy: set[str]) -> Recorded:
    if delivery_id in stored:
        return Recorded.STORED
    return Recorded.BUSY if delivery_id in busy else Recorded.LEASE_LOST


def _ids(rings: Iterable[Ring]) -> list[str]:
    return lines([(ring.tenant_id, ring.endpoint_id, ring.delivery_id, "ft"[ring.is_parked]) for ring in rings])


def _fences(finished: Sequence[FinishedAttempt]) -> list[str]:
    return lines([
        (each.claim.ring.tenant_id, each.claim.ring.delivery_id, each.claim.lease_token) for each in finished
    ])  # fmt: skip


def _outcomes(finished: Sequence[FinishedAttempt]) -> list[str | list[str | None]]:
    texts = [[each.error for each in finished], [each.attempt.snippet for each in finished]]
    return [*lines([_outcome(each) for each in finished]), *texts]


def _outcome(finished: FinishedAttempt) -> tuple[str, ...]:
    claim, attempt, verdict = finished.claim, finished.attempt, finished.verdict
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
        "ft"[claim.was_held],
    )


def _endpoint(ring: Ring) -> tuple[str, str]:
    return ring.tenant_id, ring.endpoint_id


def _claim(ring: Ring, row: Any, targets: Mapping[tuple[str, str], Target]) -> Claim:
    """Return the claim of a row. Columns are read by position, which takes half the time of reading by name."""
    _, event_id, event_type, correlation_id, traceparent, tracestate, body, *rest = row[:17]
    number, budget_spent, created_at, claimed_at, token, was_held, lost, endpoint_found, is_probe, held_for = rest
    return Claim(
        ring=ring,
        event_id=EventId(event_id),
        event_type=event_type,
        correlation_id=correlation_id,
        traceparent=traceparent,
        tracestate=tracestate,
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
        was_held=was_held or is_probe is not None,
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


_SQL: Final = Statements("hookseal.dispatcher.store", "ledger.sql")
SWEEP_BATCH: Final = 1_000
MOST_REFUSED: Final = 100  # outcomes that were refused and are tried again in one batch
_BATCHES_OF_REFUSED: Final = 10  # of one look, so that it leaves time for what else the sweep does
# A missing right or column, a damaged table: no outcome is at fault.
_FAULTS_OF_ALL: Final = (asyncpg.SyntaxOrAccessError, asyncpg.InternalServerError)
_FUNCTION: Final = re.compile(r"PL/pgSQL function ([\w.]+)\(")
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_MAY_DISABLE: Final = True
_MUST_NOT_DISABLE: Final = False
_NO_FENCE: Final = ("", _NOBODY, _NOBODY)
MOST_WALKED: Final = 100_000  # rung deliveries that one look for lost rings reads: about 50 ms in PostgreSQL


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the order in which deliveries became due, given by the last delivery before it."""

    due_at: datetime
    delivery_id: DeliveryId

    @classmethod
    def at(cls, since: datetime | None) -> "Cursor":
        """Return the place before everything that is due since then; None: before everything."""
        return cls(datetime.min.replace(tzinfo=UTC) if since is None else since, DeliveryId(_NOBODY))


class Chore(StrEnum):
    """What the leader has to do besides ringing, if there are any of these."""

    HELD = "held"  # endpoints that are held, or being released
    LINES = "lines"  # of ordered endpoints
    REPLAYS = "replays"  # jobs that run


@dataclass(frozen=True, slots=True)
class RungBefore:
    """Deliveries whose rings may be lost. Behind the `place` there are more; it is None if none are left.

    `oldest` says since when the oldest has been due that was rung and not claimed, whenever it was rung.
    """

    rings: list[Ring]
    place: Cursor | None
    oldest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrung:
    """What the outbox rings in one look. `backlogged` are the tenants of which more is due.

    `has_backlog` says whether more was due than one look rings; the next look then begins after the tenant `place`.
    `is_empty` says that nothing was changed: the due deliveries belong to other tenants, or others have locked them.
    """

    rings: list[Ring]
    backlogged: frozenset[str]
    has_backlog: bool
    has_more: bool
    is_empty: bool
    place: str
    chores: frozenset[Chore]


BEGINNING: Final = Cursor.at(None)


# Audits, in the open transaction of the connection, that a worker has disabled the endpoint, and why.
AuditDisabled: TypeAlias = Callable[[Connection, TenantId, EndpointId, str], Awaitable[None]]


class _NotAuditedError(Exception):
    """The audit log took no row, so its transaction is undone."""


class PostgresLedger:
    """A `Ledger` on a pool; `worker` names the owner of the leases it takes.

    Batches are claimed and recorded over `batching`, another pool. By default it is the same pool. `audit` writes the
    audit row of an endpoint that a 410 disables, in the transaction of the record; without it there is no row.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        worker: str,
        lease_seconds: float,
        batching: Executor | None = None,
        audit: AuditDisabled | None = None,
    ) -> None:
        self._executor = executor
        self._batching = batching or executor
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._audit = audit

    async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
        """Take a due, pending delivery under a new lease; None if none matches all three ids.

        Raises `Busy`, and takes nothing, if another transaction has locked the delivery or its endpoint.
        """
        claimed = await self.claim_all([ring], token, most_bytes=MAX_BODY_BYTES)
        if claimed.busy or claimed.locked:
            raise Busy("the delivery or its endpoint is being changed")
        return claimed.claims[0] if claimed.claims else None

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies.

        `token`, a UUID, becomes the token of every lease; without one each lease has its own. The claims of one
        endpoint share one `Target`. Raises `Unavailable`: all or none of the deliveries may then be claimed.
        """
        by_id = {str(ring.delivery_id): ring for ring in rings}  # if two rings name one delivery, the later one is used
        arguments = (*_ids(by_id.values()), self._worker, self._lease_seconds, token, most_bytes, NOT_SENT)
        is_alone = len(by_id) == 1 and not rings[-1].is_parked  # one that was parked is more often locked
        # Rare cases are left to the second statement.
        rows = await _BATCHES.rows(self._batching, "claim_one", *arguments) if is_alone else []
        rows = rows or await _BATCHES.rows(self._batching, "claim_all", *arguments)
        targets = {_endpoint(by_id[row[0]]): _target(by_id[row[0]], row) for row in rows if row["has_endpoint"]}
        unclaimed: dict[str, list[Ring]] = {"delivery": [], "endpoint": [], "order": []}  # by what was in the way
        claims = []
        for row in rows:
            if row[-1] is None:
                claims.append(_claim(by_id[row[0]], row, targets))
            else:
                unclaimed[row[-1]].append(by_id[row[0]])
        return Claimed(
            claims=claims, busy=unclaimed["delivery"], locked=unclaimed["endpoint"], behind=unclaimed["order"]
        )

    async def record_all(self, finished: Sequence[FinishedAttempt], *, again: bool = False) -> list[Recorded]:
        """Record these attempts in one statement and apply their verdicts; return the result of each, in order.

        None of them may disable an endpoint or be the probe of a held endpoint. `again`: one whose row was busy is
        recorded over the other pool. Raises `Unavailable`: all or none of them may then be recorded. If PostgreSQL
        refuses one of them (`asyncpg.PostgresError`), none is recorded.
        """
        executor = self._executor if again else self._batching
        rows = await _BATCHES.rows(executor, "record_all", *_outcomes(finished), self._worker)
        stored = {row[0] for row in rows}
        missing = [each for each in finished if each.claim.ring.delivery_id not in stored]
        busy = set[str]()
        if missing:
            busy = {row[0] for row in await _BATCHES.rows(executor, "leased_still", *_fences(missing))}
        return [_recorded(each.claim.ring.delivery_id, stored, busy) for each in finished]

    async def recorded(self, finished: Sequence[FinishedAttempt]) -> set[str]:
        """Return the delivery ids of those attempts that are recorded with this outcome. Raises `Unavailable`."""
        columns = lines([
            (each.claim.ring.tenant_id, each.claim.ring.delivery_id, str(each.claim.number), each.attempt.outcome.value)
            for each in finished
        ])  # fmt: skip
        return {row[0] for row in await _BATCHES.rows(self._executor, "recorded_of", *columns, self._worker)}

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        """Record the attempt and apply the verdict in one statement; return the verdict that was applied.

        Returns None if the lease was lost. If the verdict disables an endpoint whose pointer has moved since the claim,
        the endpoint stays enabled and the delivery is due again. It also stays enabled if that cannot be audited: an
        outcome is never lost to the audit log, and the next 410 tries again.
        """
        finished = FinishedAttempt(claim=claim, attempt=attempt, verdict=verdict, error=error)
        return await self._record(verdict, claim.ring.endpoint_id, self._recording(finished))

    def _recording(self, finished: FinishedAttempt) -> tuple[object, ...]:
        """Return the arguments of `record`, and of `keep`."""
        claim, attempt, verdict = finished.claim, finished.attempt, finished.verdict
        return (
            *_fence(claim),
            verdict.state.value,
            finished.error,
            verdict.retry_in_seconds,
            verdict.disable,
            attempt.duration_ms,
            attempt.status,
            attempt.outcome.value,
            attempt.snippet,
            list(attempt.signed_by),
            self._worker,
            claim.is_probe is True,
            attempt.outcome not in TROUBLE,
            claim.was_held,
        )

    async def _record(self, verdict: Verdict, endpoint_id: EndpointId, recording: tuple[object, ...]) -> Verdict | None:
        if verdict.disable is None or self._audit is None:
            return _applied(verdict, await self._row("record", *recording, _MAY_DISABLE))
        try:
            tenant = TenantId(str(recording[0]))
            row = await self._record_audited(self._audit, tenant, endpoint_id, verdict.disable, recording)
            return _applied(verdict, row)
        except _NotAuditedError:
            return _applied(replace(verdict, disable=None), await self._row("record", *recording, _MUST_NOT_DISABLE))

    async def keep(self, finished: FinishedAttempt, reason: str) -> bool:
        """Keep an outcome that PostgreSQL refused, in a table of its own; False if the lease was lost.

        No sweep then ends its lease, and `record_refused` tries it again. Raises `Unavailable`.
        """
        return await self._row("keep", *self._recording(finished), reason) is not None

    async def record_refused(self) -> list[Verdict | None]:
        """Try to record the outcomes that are kept; return the verdict of each that is recorded, None for a lost lease.

        Those that were tried longest ago are tried first, at most 1,000. It ends with the batch in which one was
        refused again. Raises `Unavailable`.
        """
        ended, refused = list[Verdict | None](), 0
        for _ in range(_BATCHES_OF_REFUSED):
            if refused or not (kept := await self._rows("refused", MOST_REFUSED)):
                break
            for row in kept:
                recording = tuple(row.values())[:-1]
                verdict = Verdict(
                    state=State(row["state"]), retry_in_seconds=row["retry_in_seconds"], disable=row["disable"]
                )
                try:
                    ended.append(await self._record(verdict, EndpointId(row["endpoint_id"]), recording))
                except _FAULTS_OF_ALL:
                    raise
                except asyncpg.PostgresError as error:
                    refused += 1
                    await self._rows("refused_again", *recording[:3], refusal(error))
                else:
                    await self._rows("forget_refused", *recording[:3])
        return ended

    async def _record_audited(
        self,
        audit: AuditDisabled,
        tenant: TenantId,
        endpoint_id: EndpointId,
        reason: str,
        recording: tuple[object, ...],
    ) -> asyncpg.Record | None:
        """Record, and audit that the endpoint was disabled, if it was: both or neither. Raises `_NotAuditedError`.

        As in every change by an operator, the audit log is locked last.
        """
        with translated():
            async with connected(self._executor) as connection, connection.transaction():
                row = await _SQL.row(connection, "record", *recording, _MAY_DISABLE)
                if row is not None and row["disabled"]:
                    try:
                        await audit(connection, tenant, endpoint_id, reason)
                    except Exception as error:
                        raise _NotAuditedError from error
        return row

    async def give_back(self, tokens: list[str]) -> list[str]:
        """Make the deliveries claimed under these lease tokens due at once and unspent; return the tokens found."""
        return [row["token"] for row in await self._rows("give_back", tokens)]

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt: due at once, after the wait, or when its endpoint is released.

        If the reason to wait no longer exists, it is due at once. Returns False if the lease was lost.
        """
        if wait is None:
            return await self._row("release", *_fence(claim), 0.0, None) is not None
        if wait.waiting_for is None:
            # What was held before its first attempt stays so: the next claim reads that from the error.
            reason = f"it was held, then {wait.reason}" if claim.was_held and claim.number == 1 else wait.reason
            return await self._row("release", *_fence(claim), wait.seconds, reason) is not None
        pointer = None if claim.target is None else claim.target.pointer
        row = await self._row(
            "hold",
            *_fence(claim),
            wait.waiting_for,
            wait.reason,
            wait.seconds,
            wait.is_refusal,
            wait.is_transient,
            None if pointer is None else pointer.cache_epoch,
            None if pointer is None else pointer.restore_epoch,
        )
        return row is not None

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt; False if the lease was lost.

        If it was the probe of its endpoint, the endpoint is released: the others can be ended without a secret, too.
        """
        return await self._row("end", *_fence(claim), state.value, error, claim.is_probe is True) is not None

    async def are_tables_locked(self) -> bool:
        """Return whether a session has, or waits for, a lock of a table that records write. Raises `Unavailable`."""
        return await self._row("tables_locked") is not None

    async def prolong_leases(self) -> int:
        """Let the lease of all that this worker has claimed begin again; return how many. Raises `Unavailable`.

        Claims that have read an older pointer of their endpoint are left out: a revocation waits for their leases.
        """
        return len(await self._rows("prolong_leases", self._worker, self._lease_seconds))

    async def end_lost_leases(self, start: LookStart | None = None) -> list[State]:
        """End expired leases, each with an attempt of outcome `unknown`; return the new state of each delivery.

        It is due again, or a dead letter if this attempt was the last of its budget. Leases are left to their worker
        while it is live and says that it knows outcomes which it cannot record. Without a `start` all leases are read.
        """
        with nullcontext() if start is None else start.look() as since:
            try:
                rows = await self._rows("end_lost_leases", SWEEP_BATCH, LIVE_SECONDS, since, None)
            except _FAULTS_OF_ALL:
                raise
            except asyncpg.PostgresError:
                rows = await self._end_one_by_one(since)
            if start is not None:
                start.since = rows[0]["since"]
        return [State(row["state"]) for row in rows if row["state"] is not None]

    async def _end_one_by_one(self, since: datetime | None) -> list[Any]:
        """End as many leases as in one batch, in a statement each. An outcome that is refused is kept."""
        ended = list[Any]()
        for row in await self._rows("lost_leases", SWEEP_BATCH, LIVE_SECONDS, since):
            delivery_id = row["delivery_id"]
            try:
                ended += await self._rows("end_lost_leases", 1, LIVE_SECONDS, since, delivery_id)
            except asyncpg.PostgresError as error:
                await self._rows("keep_lost", delivery_id, LIVE_SECONDS, refusal(error))
        return ended or await self._rows("end_lost_leases", 0, LIVE_SECONDS, since, None)

    async def seconds_ago(self, seconds: float) -> datetime:
        """Return the time `seconds` ago by the clock of the database."""
        moment: datetime = (await self._row("seconds_ago", seconds))[0]
        return moment

    async def rung_before(
        self, now: datetime, moment: datetime, after: Cursor = BEGINNING, *, walked: int = MOST_WALKED
    ) -> RungBefore:
        """Return deliveries that are due `now` and were last rung before `moment`, oldest first.

        It reads the first `walked` of those that were rung, behind the place `after`. Nothing is changed.
        """
        rows = await self._rows("rung_before", SWEEP_BATCH, moment, after.due_at, after.delivery_id, now, walked)
        return RungBefore(
            rings=_rings([row for row in rows if row["is_old"]]),
            place=_place(rows, SWEEP_BATCH),
            oldest=rows[0]["next_attempt_at"] if rows else None,
        )

    async def ring_again(self, lost: Sequence[Ring], moment: datetime) -> tuple[list[Ring], int]:
        """Mark the deliveries that hookseal has not rung since `moment` as rung now, and return their rings.

        Deliveries that only their producer has marked are left to the outbox from now on, and counted in the result.
        """
        rows = await self._rows("ring_again", [ring.delivery_id for ring in lost], moment)
        rung = [row for row in rows if row["is_rung"]]
        return _rings(rung), len(rows) - len(rung)

    async def standing(self, at_most: int, since: datetime | None = None) -> tuple[int, datetime | None]:
        """Return how many deliveries hookseal itself has rung that are not claimed yet, and since when one is due.

        They are counted up to `at_most`, of those that have been due since then, or of all.
        """
        number, oldest = await self._row("standing", at_most, since)
        return number, oldest

    async def ring_unrung(
        self,
        token: str | None,
        *,
        waited_seconds: float,
        now: datetime | None = None,
        after: str = "",
        at_most: int = SWEEP_BATCH,
        each: int | None = None,
        start: LookStart | None = None,
    ) -> Unrung:
        """Mark deliveries that nobody rang for `waited_seconds` after they became due as rung, and return them.

        If at least `at_most` are due, the tenants behind `after` take turns: each gets the same share, or `each`.
        Deliveries of a held endpoint or a crowded lane are not among them: they wait from now on. A worker that does
        not lead the outbox under this token gets none; the sweep has no token. Without a `start` all that is due is
        read.
        """
        with nullcontext() if start is None else start.look() as since:
            rows = await self._rows("ring_unrung", at_most, waited_seconds, now, token, after, each, since)
            if start is not None:
                start.since = rows[0]["since"]
        has_backlog, place = rows[0]["is_backlog"], rows[0]["place"]
        changed = [row for row in rows if row["delivery_id"] is not None]
        return Unrung(
            rings=_rings([row for row in changed if not row["waits"]]),
            backlogged=frozenset(row["tenant_id"] for row in changed if row["is_backlogged"]),
            has_backlog=has_backlog,
            has_more=has_backlog and bool(changed or place or after),
            is_empty=not changed,
            place=place,
            chores=frozenset(map(Chore, rows[0]["chores"].split())),
        )

    async def longest_timeout_ms(self) -> int:
        """Return the longest time-out of an enabled endpoint, 0 if there is none."""
        row = await self._row("longest_timeout_ms")
        return 0 if row is None else int(row[0])

    async def _row(self, name: str, *arguments: Any) -> Any:
        rows = await self._rows(name, *arguments)
        return rows[0] if rows else None

    async def _rows(self, name: str, *arguments: Any) -> list[Any]:
        return await _SQL.rows(self._executor, name, *arguments)


def refusal(error: asyncpg.PostgresError) -> str:
    """Return what refused an outcome, for an operator: names only, since the text of the error may contain a row."""
    names = {"table": error.table_name, "constraint": error.constraint_name}
    found = [f"{what} {name}" for what, name in names.items() if name]
    function = _FUNCTION.search(error.context or "")
    return ", ".join([type(error).__name__, *found, *([f"function {function[1]}"] if function else [])])


async def plan(connection: Connection) -> None:
    """Have PostgreSQL plan the statements for single deliveries and for the outbox, on this connection.

    Nothing is changed. Raises `Unavailable`.
    """
    await _SQL.rows(connection, "record", *_NO_FENCE, State.PENDING.value, *(None,) * 7, [], "", *(None,) * 4)
    await _SQL.rows(connection, "release", *_NO_FENCE, 0.0, None)
    await _SQL.rows(connection, "hold", *_NO_FENCE, "", "", 0.0, *(None,) * 4)
    await _SQL.rows(connection, "ring_unrung", 1, 0.0, None, _NOBODY, "", None, None)


def _applied(verdict: Verdict, row: asyncpg.Record | None) -> Verdict | None:
    if row is None:
        return None
    return Verdict(state=State.PENDING) if row["moved"] else verdict


def _fence(claim: Claim) -> tuple[str, str, str]:
    return claim.ring.tenant_id, claim.ring.delivery_id, claim.lease_token


def _place(rows: list[Any], at_most: int) -> Cursor | None:
    if len(rows) < at_most:
        return None
    return Cursor(rows[-1]["next_attempt_at"], DeliveryId(rows[-1]["delivery_id"]))


def _rings(rows: list[Any]) -> list[Ring]:
    return [
        Ring(
            tenant_id=TenantId(row["tenant_id"]),
            endpoint_id=EndpointId(row["endpoint_id"]),
            delivery_id=DeliveryId(row["delivery_id"]),
        )
        for row in rows
    ]
