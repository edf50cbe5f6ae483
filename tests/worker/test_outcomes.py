"""The recording of outcomes in a real ledger: batches that form by themselves, and failures within a batch."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import (
    Attempt,
    Claim,
    Claimed,
    FinishedAttempt,
    Outcome,
    Recorded,
    Ring,
    State,
    Verdict,
)
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.postgres.pool import ANSWER_SECONDS, Pool
from hookseal.worker.claims import LostClaims
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import WorkerLedger
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin
from tests.worker.waiting import PATIENCE_SECONDS, eventually

ROW = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=12, snippet="ok", signed_by=("db:acme:n:1",))
DELIVERED = Verdict(state=State.DELIVERED)
GONE = Verdict(state=State.FAILED, disable="the receiver answered 410 Gone")


async def ended(outcomes: Sequence[Awaitable[Verdict | None]]) -> None:
    """Return once all outcomes are recorded, or fail: no cancellation ends what waits for one of them."""
    _, waiting = await asyncio.wait([asyncio.ensure_future(each) for each in outcomes], timeout=PATIENCE_SECONDS)
    assert not waiting


@dataclass
class Scene:
    """A real ledger whose batches can be made to fail, and claimed deliveries."""

    installation: Installation
    ledger: WorkerLedger
    claims: list[Claim]

    async def record(self, change: Callable[[int], tuple[Attempt, Verdict]]) -> list[Verdict | BaseException | None]:
        """Record an outcome of each claim in one turn of the loop; return the result of each."""
        futures = [self.ledger.record(each, *change(number), None) for number, each in enumerate(self.claims)]
        await ended(futures)
        return list(await asyncio.gather(*futures, return_exceptions=True))

    async def states(self) -> list[str]:
        """Return the states of the deliveries, in the order of the claims."""
        rows = [await self.installation.delivery(each.ring) for each in self.claims]
        return [row["state"] for row in rows]


class Batching(PostgresLedger):
    """The real ledger; `after` is called when a batch is recorded, before its answer is returned."""

    after: Callable[[], None] = staticmethod(lambda: None)
    batches: list[int]

    async def record_all(self, made: Sequence[FinishedAttempt], *, again: bool = False) -> list[Recorded]:
        self.batches.append(len(made))
        found = await super().record_all(made, again=again)
        self.after()
        return found


async def scene(pool: Pool, number: int, batching: Pool | None = None) -> tuple[Scene, Batching]:
    """Return a scene with that many claimed deliveries of one endpoint."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(number)]
    real = Batching(pool, worker="w1", lease_seconds=45, batching=batching)
    real.batches = []
    ledger = WorkerLedger(real, SystemClock(), new_token=lambda: "01900000-0000-4000-8000-00000000000f")
    found = await ledger.claim_all(rings, most_bytes=number * MAX_BODY_BYTES)
    by_id = {each.ring.delivery_id: each for each in found.claims}
    return Scene(installation, ledger, [by_id[each.delivery_id] for each in rings]), real


@pytest.mark.req("DEL-15")
async def test_a_refused_outcome_costs_no_other(pool: Pool) -> None:
    """If PostgreSQL rejects one outcome of eight, the other seven are recorded, and only its caller gets the error."""
    made, real = await scene(pool, 8)
    poisoned = replace(ROW, snippet="a\x00b")  # PostgreSQL does not allow this character
    results = await made.record(lambda number: (poisoned if number == 5 else ROW, DELIVERED))

    assert [DELIVERED] * 5 == results[:5]
    assert isinstance(results[5], asyncpg.PostgresError)
    assert [DELIVERED] * 2 == results[6:]
    assert ["delivered"] * 5 + ["sending"] + ["delivered"] * 2 == await made.states()
    assert 8 == real.batches[0]


@pytest.mark.req("DUR-02")
async def test_a_locked_row_delays_no_other(pool: Pool) -> None:
    """If one of eight rows is locked, seven outcomes are recorded at once, and the eighth after the lock ends."""
    made, _ = await scene(pool, 8)
    async with pool.acquire() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", made.claims[3].ring.delivery_id
        )
        futures = [made.ledger.record(each, ROW, DELIVERED, None) for each in made.claims]
        others = [each for number, each in enumerate(futures) if number != 3]
        await ended(others)
        assert all(await asyncio.gather(*others))
        assert ["delivered"] * 3 + ["sending"] + ["delivered"] * 4 == await made.states()
        await transaction.rollback()
    assert await futures[3]
    assert ["delivered"] * 8 == await made.states()


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_locked_endpoint_delays_only_its_410(pool: Pool) -> None:
    """While the endpoint is locked, only the 410 that disables it waits; the other outcomes are recorded."""
    made, _ = await scene(pool, 3)
    async with pool.acquire() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
        gone = made.ledger.record(made.claims[0], replace(ROW, outcome=Outcome.GONE, status=410), GONE, "410")
        others = [made.ledger.record(each, ROW, DELIVERED, None) for each in made.claims[1:]]
        assert all(await asyncio.gather(*others))
        await transaction.rollback()
    assert await gone
    assert not await pool.fetchval("SELECT enabled FROM hookseal.endpoints")


LOCKED = "SELECT FROM hookseal.deliveries WHERE id = ANY ($1::text[]::uuid[]) FOR UPDATE"
ENDPOINT_LOCKED = "SELECT FROM hookseal.endpoints AS e, unnest($1::text[]) FOR UPDATE OF e"


@pytest.mark.req("DUR-02")
@pytest.mark.req("DEL-05", part="each-delivery")
@pytest.mark.parametrize(
    ("locking", "row", "verdict"),
    [(LOCKED, ROW, DELIVERED), (ENDPOINT_LOCKED, replace(ROW, outcome=Outcome.GONE, status=410), GONE)],
    ids=["deliveries", "endpoint"],
)
async def test_waiting_outcomes_leave_connections_to_others(
    database_url: str, pool: Pool, locking: str, row: Attempt, verdict: Verdict
) -> None:
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=7) as own,
        asyncpg.create_pool(database_url, min_size=1, max_size=3) as batching,
    ):
        made, _ = await scene(own, 16, batching)
        waiting, others = made.claims[:12], made.claims[12:]
        async with pool.acquire() as holder:
            transaction = holder.transaction()
            await transaction.start()
            await holder.execute(locking, [claim.ring.delivery_id for claim in waiting])
            late = [made.ledger.record(claim, row, verdict, None) for claim in waiting]
            for _ in range(100):  # enough time for them to take their connections
                await holder.execute("SELECT")
            prompt = [made.ledger.record(claim, ROW, DELIVERED, None) for claim in others]
            async with asyncio.timeout(ANSWER_SECONDS - 1):  # a statement that waits for a lock gives up later
                assert all(await asyncio.gather(*prompt))
            await transaction.rollback()
        assert all(await asyncio.gather(*late))
        assert [verdict.state.value] * 12 + ["delivered"] * 4 == await made.states()


@pytest.mark.req("DEL-15")
async def test_an_outcome_whose_row_was_locked_needs_no_connection_of_batches(database_url: str, pool: Pool) -> None:
    """The batch that finds the row locked leaves it; it is recorded again over the other pool."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as batching, AsyncExitStack() as busy:
        made, real = await scene(pool, 1, batching)
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute(LOCKED, [made.claims[0].ring.delivery_id])
            outcome = made.ledger.record(made.claims[0], ROW, DELIVERED, None)
            await eventually(lambda: len(real.batches) > 1)
            await busy.enter_async_context(batching.acquire())
        async with asyncio.timeout(60):
            assert DELIVERED == await outcome

    assert ["delivered"] == await made.states()


@pytest.mark.req("SEC-08", "DUR-04")
@pytest.mark.parametrize("is_lost", [False, True], ids=["recorded", "lease ended"])
async def test_a_deleted_attempt_delays_no_other(pool: Pool, is_lost: bool) -> None:
    """A transaction that has deleted a forged attempt and stays open delays no outcome and no end of a lease."""
    made, real = await scene(pool, 4)
    forged = made.claims[1].ring
    await pool.execute(
        "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
        " VALUES ($1, $2::text::uuid, 1, now(), 'delivered', '{}', 'x')",
        *(forged.tenant_id, forged.delivery_id),
    )
    if is_lost:
        await pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now() - interval '1 s'")
    async with pool.acquire() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("DELETE FROM hookseal.attempts")
        if is_lost:
            assert [State.PENDING] * 4 == await real.end_lost_leases()
        else:
            assert [Recorded.STORED] * 4 == await real.record_all([
                FinishedAttempt(claim=each, attempt=ROW, verdict=DELIVERED, error=None) for each in made.claims
            ])  # fmt: skip
        await transaction.rollback()


@pytest.mark.req("SEC-08", "DEL-15")
@pytest.mark.parametrize("others", [0, 3])
async def test_an_attempt_that_appears_meanwhile_costs_no_outcome(pool: Pool, others: int) -> None:
    """If another program commits a forged attempt while the batch waits for it, every outcome is recorded."""
    made, _ = await scene(pool, 1 + others)
    forged = made.claims[0].ring
    async with pool.acquire() as holder, pool.acquire() as observer:
        async with holder.transaction():
            await holder.execute(
                "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
                " VALUES ($1, $2::text::uuid, 1, now(), 'delivered', '{}', 'x')",
                *(forged.tenant_id, forged.delivery_id),
            )
            recording = asyncio.create_task(made.record(lambda _: (ROW, DELIVERED)))
            await eventually(partial(_waits_for, observer, holder.get_server_pid()))
        assert [DELIVERED] * (1 + others) == await recording
    assert ["delivered"] * (1 + others) == await made.states()


async def _waits_for(observer: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", pid: int) -> bool:
    return bool(
        await observer.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))", pid
        )
    )


@pytest.mark.req("DEL-15", "DUR-04")
@pytest.mark.parametrize("lost", [0, 1])
async def test_a_lost_answer_is_looked_up_for_the_whole_batch(pool: Pool, lost: int) -> None:
    """If the answer to a written batch was lost, its repeat finds all of it; an earlier lost lease is reported."""
    made, real = await scene(pool, 4)
    losing = [True]

    def lose() -> None:
        if losing and losing.pop():
            raise Unavailable("the answer was lost")

    if lost:
        assert await made.ledger.release(made.claims[2], None)
    real.after = lose
    results = await made.record(lambda _: (ROW, DELIVERED))

    assert [DELIVERED, DELIVERED, None if lost else DELIVERED, DELIVERED] == results
    assert [4, 4] == real.batches
    assert 4 - lost == await pool.fetchval("SELECT count(*) FROM hookseal.attempts")


@pytest.mark.req("DEL-15")
async def test_a_lookup_matches_outcome_and_worker(pool: Pool) -> None:
    """An attempt of the same number with another outcome or worker does not count as the one that is looked up."""
    made, real = await scene(pool, 2)
    assert [DELIVERED, DELIVERED] == await made.record(lambda _: (ROW, DELIVERED))
    same = [FinishedAttempt(claim=each, attempt=ROW, verdict=DELIVERED, error=None) for each in made.claims]
    other = replace(same[0], attempt=replace(ROW, outcome=Outcome.UNKNOWN))

    assert {each.ring.delivery_id for each in made.claims} == await real.recorded(same)
    assert set() == await real.recorded([other])
    assert set() == await PostgresLedger(pool, worker="w2", lease_seconds=45).recorded(same)


async def test_a_cancelled_attempts_outcome_is_recorded(pool: Pool) -> None:
    made, _ = await scene(pool, 1)
    waiting = asyncio.ensure_future(made.ledger.record(made.claims[0], ROW, DELIVERED, None))
    shielded = asyncio.shield(waiting)
    shielded.cancel()
    await asyncio.wait({waiting})

    assert ["delivered"] == await made.states()


class Unreadable(PostgresLedger):
    """The real ledger, which cannot read the answer to a claim that contains one of these deliveries."""

    unreadable: frozenset[str] = frozenset()

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Claim, and fail if one cannot be read."""
        found = await super().claim_all(rings, token, most_bytes=most_bytes)
        if self.unreadable & {claim.ring.delivery_id for claim in found.claims}:
            raise OverflowError("date value out of range")
        return found


@pytest.mark.req("SEC-08", "DUR-04")
async def test_an_unreadable_delivery_costs_no_other_claim(pool: Pool) -> None:
    """If one of eight deliveries cannot be read, the other seven are claimed once each, and the eighth is reported."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(8)]
    real = Unreadable(pool, worker="w1", lease_seconds=45)
    real.unreadable = frozenset({rings[5].delivery_id})
    ledger = WorkerLedger(real, SystemClock(), new_token=lambda: str(uuid.uuid4()), lost=pytest.fail)
    found = await ledger.claim_all(rings, most_bytes=8 * MAX_BODY_BYTES)

    assert {each.delivery_id for each in rings} - real.unreadable == {each.ring.delivery_id for each in found.claims}
    assert ([], [rings[5]]) == (found.busy, [ring for ring, _ in found.faulty])
    tokens = {each.ring.delivery_id: each.lease_token for each in found.claims}
    for ring in rings:
        row = await installation.delivery(ring)
        assert ("sending", 0) == (row["state"], row["budget_spent"])
        assert ring in [faulty for faulty, _ in found.faulty] or tokens[ring.delivery_id] == str(row["lease_token"])


# Claims whose answer was lost are given back, unspent, however late the server made them.


LEASE_SECONDS = 45


def looking(ledger: PostgresLedger, clock: FakeClock) -> LostClaims:
    return LostClaims(ledger, lease_seconds=LEASE_SECONDS, clock=clock, log=structlog.get_logger())


@pytest.mark.req("DEL-03")
async def test_a_lost_claim_is_given_back_unspent(pool: Pool) -> None:
    """The delivery of a lost claim is due at once, unrung, without an attempt; its next claim has the same number."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    ledger, clock, token = PostgresLedger(pool, worker="w1", lease_seconds=45), FakeClock(), str(uuid.uuid4())
    lost = looking(ledger, clock)
    lost.add(token)
    await lost.once()  # the server has not made the claim yet
    assert await ledger.claim(ring, token) is not None
    await lost.once()

    row = await installation.delivery(ring)
    assert ("pending", 0, 0, None) == tuple(row[name] for name in ("state", "attempts", "budget_spent", "rung_at"))
    assert [] == await installation.attempts(ring)
    assert 0 == len(lost)
    again = await ledger.claim(ring)
    assert again is not None
    assert 1 == again.number


async def test_other_claims_are_left_alone(pool: Pool) -> None:
    """A claim with another token is not given back."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
    lost = looking(ledger, FakeClock())
    lost.add(str(uuid.uuid4()))
    await ledger.claim(ring)
    await lost.once()

    assert "sending" == (await installation.delivery(ring))["state"]


class UnreachableLedger(PostgresLedger):
    async def give_back(self, tokens: list[str]) -> list[str]:
        raise Unavailable("PostgreSQL does not answer")


async def test_tokens_are_kept_for_a_lease_after_an_outage(pool: Pool) -> None:
    """Tokens are kept during an outage, and discarded when PostgreSQL has answered for the length of a lease."""
    away = UnreachableLedger(pool, worker="w1", lease_seconds=LEASE_SECONDS)
    back = PostgresLedger(pool, worker="w1", lease_seconds=LEASE_SECONDS)
    clock = FakeClock()
    lost = looking(away, clock)
    lost.add(str(uuid.uuid4()))
    await clock.sleep(10 * LEASE_SECONDS)
    await lost.loop.one_pass()
    lost._store = back
    await clock.sleep(LEASE_SECONDS - 1)
    await lost.once()
    assert 1 == len(lost)
    await clock.sleep(2)
    await lost.once()

    assert 0 == len(lost)


async def test_the_number_of_tokens_is_bounded(pool: Pool) -> None:
    """At most ten thousand tokens are kept."""
    lost = looking(PostgresLedger(pool, worker="w1", lease_seconds=LEASE_SECONDS), FakeClock())
    for _ in range(10_001):
        lost.add(str(uuid.uuid4()))

    assert 10_000 == len(lost)
