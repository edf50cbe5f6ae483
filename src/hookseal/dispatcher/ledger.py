"""The ledger in PostgreSQL: claims under a fenced lease, outcomes, and what the sweep needs."""

from datetime import datetime
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.model import Attempt, Claim, Retries, Ring, State, Target, Verdict
from hookseal.dispatcher.policy import Wait
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Executor, connected

_SQL: Final = statements("hookseal.dispatcher", "ledger.sql")
SWEEP_BATCH: Final = 1_000


class PostgresLedger:
    """A `Ledger` on a pool; `worker` names the owner of the leases it takes."""

    def __init__(self, executor: Executor, *, worker: str, lease_seconds: float) -> None:
        self._executor = executor
        self._worker = worker
        self._lease_seconds = lease_seconds

    async def claim(self, ring: Ring) -> Claim | None:
        """Take a due, pending delivery under a new lease; None if none matches all three ids."""
        row = await self._row(
            "claim", ring.tenant_id, ring.endpoint_id, ring.delivery_id, self._worker, self._lease_seconds
        )
        return None if row is None else _claim(ring, row)

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> bool:
        """Write the attempt and do what the verdict says in one statement; False if the lease was lost."""
        row = await self._row(
            "record",
            *_fence(claim),
            verdict.state.value,
            error,
            verdict.retry_in_seconds,
            verdict.disable,
            attempt.duration_ms,
            attempt.status,
            attempt.outcome.value,
            attempt.snippet,
            list(attempt.signed_by),
            self._worker,
        )
        return row is not None

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt, due at once or after the wait."""
        if wait is None:
            return await self._row("release", *_fence(claim), 0.0, None, None) is not None
        row = await self._row("release", *_fence(claim), wait.seconds, wait.waiting_for, wait.reason)
        return row is not None

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt; False if the lease was lost."""
        return await self._row("end", *_fence(claim), state.value, error) is not None

    async def end_lost_leases(self) -> list[State]:
        """End leases that ran out, each with an attempt of outcome unknown; return the state of each delivery.

        They are due again, or dead letters if that was the last attempt they were allowed.
        """
        return [State(row["state"]) for row in await self._rows("end_lost_leases", SWEEP_BATCH)]

    async def seconds_ago(self, seconds: float) -> datetime:
        """Return the database's time so many seconds ago."""
        moment: datetime = (await self._row("seconds_ago", seconds))[0]
        return moment

    async def ring_due(self, rung_before: datetime) -> list[Ring]:
        """Return up to `SWEEP_BATCH` due deliveries, oldest first, and note that they are rung now.

        Left out is what was rung since it came due and not before that moment: given the same moment
        again and again, every delivery is returned once.
        """
        return _rings(await self._rows("ring_due", SWEEP_BATCH, rung_before))

    async def ring_unrung(self, token: str, *, waited_seconds: float) -> list[Ring]:
        """Return up to `SWEEP_BATCH` deliveries that nobody rang for so long since they came due, oldest first.

        They count as rung now. None are returned to whoever does not lead the outbox under this token.
        """
        return _rings(await self._rows("ring_unrung", SWEEP_BATCH, waited_seconds, token))

    async def longest_timeout_ms(self) -> int:
        """Return the longest time-out of an enabled endpoint, 0 if there is none."""
        row = await self._row("longest_timeout_ms")
        return 0 if row is None else int(row[0])

    async def _row(self, name: str, *arguments: Any) -> Any:
        rows = await self._rows(name, *arguments)
        return rows[0] if rows else None

    async def _rows(self, name: str, *arguments: Any) -> list[Any]:
        with translated():
            async with connected(self._executor) as connection:
                return await connection.fetch(_SQL[name], *arguments, timeout=ANSWER_SECONDS)


def _fence(claim: Claim) -> tuple[str, str, str]:
    return claim.ring.tenant_id, claim.ring.delivery_id, claim.lease_token


def _rings(rows: list[Any]) -> list[Ring]:
    return [
        Ring(
            tenant_id=TenantId(row["tenant_id"]),
            endpoint_id=EndpointId(row["endpoint_id"]),
            delivery_id=DeliveryId(row["delivery_id"]),
        )
        for row in rows
    ]


def _claim(ring: Ring, row: Any) -> Claim:
    return Claim(
        ring=ring,
        event_id=EventId(row["event_id"]),
        event_type=row["event_type"],
        correlation_id=row["correlation_id"],
        traceparent=row["traceparent"],
        body=row["body"],
        number=row["claimed_number"],
        budget_spent=row["budget_spent"],
        made_at=row["created_at"],
        claimed_at=row["claimed_at"],
        lease_token=row["lease_token"],
        target=_target(ring, row) if row["endpoint_found"] else None,
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
        lead=row["lead"],
        generation=row["generation"],
        mac=row["mac"],
        mac_key_id=row["mac_key_id"],
        cache_epoch=row["cache_epoch"],
    )
    retries = Retries(
        attempts_allowed=row["attempts_allowed"],
        backoff_base_seconds=row["backoff_base_seconds"],
        backoff_cap_seconds=row["backoff_cap_seconds"],
        schedule=None if row["retry_schedule"] is None else tuple(row["retry_schedule"]),
    )
    return Target(pointer=pointer, enabled=row["enabled"], timeout_ms=row["timeout_ms"], retries=retries)
