"""A ledger in memory, under the same laws as the one in PostgreSQL."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Protocol

from hookseal.dispatcher.core.model import (
    Attempt,
    Claim,
    Claimed,
    FinishedAttempt,
    Recorded,
    Ring,
    State,
    Target,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.core.ports import BatchedLedger, Claims, ClaimStore, Ledger
from hookseal.ground.clock import Clock
from hookseal.worker.claims import KnownClaims
from hookseal.worker.recorder import PersistentLedger
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace


@dataclass(kw_only=True)
class Row:
    """One delivery in the memory ledger."""

    claim: Claim
    state: State = State.PENDING
    attempts: list[Attempt] = field(default_factory=list)
    budget_spent: int = 0
    due_at: datetime
    lease: str | None = None
    waiting_for: str | None = None
    error: str | None = None


class MemoryLedger:
    """Keeps deliveries in a dict, with `clock` in place of the database's. Each delivery waits separately."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._tokens = count(1)
        self.takes_audit_rows = True
        self.tables_locked = False
        self.rows: dict[str, Row] = {}
        self.kept: list[tuple[FinishedAttempt, str]] = []

    def add(self, claim: Claim) -> None:
        self.rows[claim.ring.delivery_id] = Row(claim=claim, due_at=self._clock.now())

    def target(self, delivery_id: str, target: Target | None) -> None:
        """Change the endpoint that the next claim reads."""
        row = self.rows[delivery_id]
        row.claim = replace(row.claim, target=target)

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Claim every due, pending delivery of these rings under a new lease, up to that many bytes of bodies."""
        claims: list[Claim] = []
        busy: list[Ring] = []
        for ring in rings:
            row = self.rows.get(ring.delivery_id)
            fits = row is None or sum(len(each.body) for each in claims) + len(row.claim.body) <= most_bytes
            claimed = await self.claim(ring, token) if fits else None
            claims += [] if claimed is None else [claimed]
            busy += [] if fits else [ring]
        return Claimed(claims=claims, busy=busy)

    async def claim(self, ring: Ring, token: str | None = None) -> Claim | None:
        """Claim a due, pending delivery under a new lease."""
        row = self.rows.get(ring.delivery_id)
        if row is None or row.claim.ring != ring or row.state is not State.PENDING or row.due_at > self._clock.now():
            return None
        if row.waiting_for is WaitingFor.ENDPOINT_DISABLED and row.claim.target and not row.claim.target.enabled:
            return None
        row.state, row.lease, row.waiting_for = State.SENDING, token or f"lease-{next(self._tokens)}", None
        return replace(
            row.claim,
            number=len(row.attempts) + 1,
            budget_spent=row.budget_spent,
            lease_token=row.lease,
            claimed_at=self._clock.now(),
        )

    async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
        row = self._fenced(claim)
        if row is None:
            return None
        row.attempts.append(attempt)
        if verdict.disable is not None and _has_moved(claim, row.claim):
            row.state, row.error, row.lease, row.due_at = State.PENDING, error, None, self._clock.now()
            return Verdict(state=State.PENDING)
        row.budget_spent += 1
        row.state, row.error, row.lease = verdict.state, error, None
        row.due_at = self._clock.now() + timedelta(seconds=verdict.retry_in_seconds)
        if verdict.disable is None:
            return verdict
        if not self.takes_audit_rows:
            return replace(verdict, disable=None)
        self._disable(claim.ring)
        return verdict

    async def record_all(self, made: Sequence[FinishedAttempt], *, again: bool = False) -> list[Recorded]:
        done = [await self.record(each.claim, each.attempt, each.verdict, each.error) for each in made]
        return [Recorded.LEASE_LOST if each is None else Recorded.STORED for each in done]

    async def keep(self, made: FinishedAttempt, reason: str) -> bool:
        """Keep a refused outcome."""
        held = self._fenced(made.claim) is not None
        if held:
            self.kept.append((made, reason))
        return held

    async def are_tables_locked(self) -> bool:
        return self.tables_locked

    async def recorded(self, made: Sequence[FinishedAttempt]) -> set[str]:
        """Return the ids of the deliveries whose attempts are on record."""
        return {each.claim.ring.delivery_id for each in made if self._is_recorded(each)}

    def _is_recorded(self, made: FinishedAttempt) -> bool:
        kept = self.rows[made.claim.ring.delivery_id].attempts
        number = made.claim.number
        return number <= len(kept) and kept[number - 1].outcome is made.attempt.outcome

    async def give_back(self, tokens: list[str]) -> list[str]:
        """Make the deliveries claimed under these tokens due at once; return the tokens found."""
        found = [row for row in self.rows.values() if row.lease in tokens]
        given_back = [str(row.lease) for row in found]
        for row in found:
            row.state, row.lease, row.due_at = State.PENDING, None, self._clock.now()
        return given_back

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt."""
        row = self._fenced(claim)
        if row is None:
            return False
        row.state, row.lease = State.PENDING, None
        row.due_at = self._clock.now() + timedelta(seconds=0 if wait is None else wait.seconds)
        if wait is not None:
            row.waiting_for, row.error = wait.waiting_for, wait.reason
        return True

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Put the delivery into that final state without an attempt."""
        row = self._fenced(claim)
        if row is None:
            return False
        row.state, row.error, row.lease = state, error, None
        return True

    def _disable(self, ring: Ring) -> None:
        for row in self.rows.values():
            if row.claim.ring.endpoint_id == ring.endpoint_id and row.claim.target is not None:
                row.claim = replace(row.claim, target=replace(row.claim.target, enabled=False))

    def _fenced(self, claim: Claim) -> Row | None:
        row = self.rows[claim.ring.delivery_id]
        return row if row.lease == claim.lease_token else None


def _has_moved(claim: Claim, now: Claim) -> bool:
    return (
        claim.target is not None
        and now.target is not None
        and claim.target.pointer.generation != now.target.pointer.generation
    )


class WholeLedger(Claims, Ledger, Protocol):
    """Claims deliveries, and stores what became of them."""


class Store(BatchedLedger, ClaimStore, Protocol):
    """The same, as the parts of a worker need it."""


class WorkerLedger(PersistentLedger):
    """What a worker makes of a store: it claims and records as a worker does."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        new_token: Callable[[], str] = lambda: "token",
        lost: Callable[[str], object] = lambda _token: None,
        stored: Callable[[FinishedAttempt], None] = lambda _made: None,
    ) -> None:
        super().__init__(store, clock=clock, stored=stored)
        self._claims = KnownClaims(store, new_token=new_token, lost=lost)

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Claim as a worker does."""
        return await self._claims.claim_all(rings, token, most_bytes=most_bytes)
