"""The ledger in PostgreSQL: claims under a fenced lease, outcomes, and what the sweep needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from hookseal.dispatcher import batches
from hookseal.dispatcher.database import translated
from hookseal.dispatcher.model import Attempt, Claim, Claimed, Made, Recorded, Ring, State, Verdict
from hookseal.dispatcher.policy import Wait
from hookseal.ground.errors import Busy
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.schema.database import ANSWER_SECONDS, Executor, connected

_SQL: Final = statements("hookseal.dispatcher", "ledger.sql")
SWEEP_BATCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """A place among the due deliveries in the order in which they came due: the last one before it."""

    due_at: datetime
    delivery_id: DeliveryId


BEGINNING: Final = Place(datetime.min.replace(tzinfo=UTC), DeliveryId("00000000-0000-0000-0000-000000000000"))


class PostgresLedger:
    """A `Ledger` on a pool; `worker` names the owner of the leases it takes."""

    def __init__(self, executor: Executor, *, worker: str, lease_seconds: float) -> None:
        self._executor = executor
        self._worker = worker
        self._lease_seconds = lease_seconds

    async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
        """Take a due, pending delivery under a new lease; None if none matches all three ids.

        Raises `Busy`, and has taken nothing, while somebody else changes the delivery or its endpoint.
        """
        claimed = await self.claim_all([ring], token, most_bytes=MAX_BODY_BYTES)
        if claimed.busy:
            raise Busy("the delivery or its endpoint is being changed")
        return claimed.claims[0] if claimed.claims else None

    async def claim_all(self, rings: Sequence[Ring], token: str | None, *, most_bytes: int) -> Claimed:
        """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies."""
        return await batches.claim_all(
            self._executor,
            rings,
            worker=self._worker,
            lease_seconds=self._lease_seconds,
            token=token,
            most_bytes=most_bytes,
        )

    async def record_all(self, made: Sequence[Made]) -> list[Recorded]:
        """Write these attempts in one statement; return what became of each, in order.

        None of them disables an endpoint, and none is the probe of one that is held.
        """
        return await batches.record_all(self._executor, made, worker=self._worker)

    async def recorded(self, made: Sequence[Made]) -> set[str]:
        """Return the delivery ids of those attempts that are on record as they were made."""
        return await batches.recorded(self._executor, made, worker=self._worker)

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        """Write the attempt and do what the verdict says in one statement; return what was done, None without a lease.

        A verdict that disables an endpoint which has moved since the claim disables nothing: the delivery is due again.
        """
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
            claim.is_probe is True,
        )
        if row is None:
            return None
        return Verdict(state=State.PENDING) if row["moved"] else verdict

    async def give_back(self, tokens: list[str]) -> list[str]:
        """Make what is held under these lease tokens due at once, without an attempt; return those that were found."""
        return [row["token"] for row in await self._rows("give_back", tokens)]

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt: due at once, after the wait, or once its endpoint is released.

        If what it would wait for is over already it is due at once. False if the lease was lost.
        """
        if wait is None:
            return await self._row("release", *_fence(claim), 0.0, None) is not None
        if wait.waiting_for is None:
            return await self._row("release", *_fence(claim), wait.seconds, wait.reason) is not None
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

    async def rung_before(
        self, now: datetime, moment: datetime, after: Place = BEGINNING
    ) -> tuple[list[Ring], Place | None]:
        """Return what is due `now` and was last rung before that moment, oldest first, and where the next begin.

        The place is None once no more are left. Nothing is changed.
        """
        rows = await self._rows("rung_before", SWEEP_BATCH, moment, after.due_at, after.delivery_id, now)
        return _rings(rows), _place(rows, SWEEP_BATCH)

    async def ring_again(self, lost: Sequence[Ring], moment: datetime) -> list[Ring]:
        """Return those of them that nobody has rung since that moment; they count as rung now."""
        return _rings(await self._rows("ring_again", [ring.delivery_id for ring in lost], moment))

    async def ring_due(
        self, now: datetime, rung_before: datetime, after: Place = BEGINNING, *, at_most: int = SWEEP_BATCH
    ) -> tuple[list[Ring], Place | None]:
        """Return what was due `now` behind that place, oldest first, which counts as rung, and where the next begin.

        The place is None once no more are left. Left out is what was rung since it came due and not before
        `rung_before`: given the same moment again and again, every delivery is returned once. What waits is not due.
        """
        rows = await self._rows("ring_due", at_most, rung_before, after.due_at, after.delivery_id, now)
        return _rings(rows), _place(rows, at_most)

    async def ring_unrung(self, token: str, *, waited_seconds: float) -> tuple[list[Ring], bool]:
        """Return what nobody rang for so long since it came due, oldest first, and whether more may be left.

        They count as rung now. None are returned to whoever does not lead the outbox under this token.
        """
        rows = await self._rows("ring_unrung", SWEEP_BATCH, waited_seconds, token)
        return _rings(rows), len(rows) == SWEEP_BATCH

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


def _place(rows: list[Any], at_most: int) -> Place | None:
    if len(rows) < at_most:
        return None
    return Place(rows[-1]["next_attempt_at"], DeliveryId(rows[-1]["delivery_id"]))


def _rings(rows: list[Any]) -> list[Ring]:
    return [
        Ring(
            tenant_id=TenantId(row["tenant_id"]),
            endpoint_id=EndpointId(row["endpoint_id"]),
            delivery_id=DeliveryId(row["delivery_id"]),
        )
        for row in rows
    ]
