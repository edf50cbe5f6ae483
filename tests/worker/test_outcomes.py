"""Outcomes on their way into a real ledger: batches that form by themselves, and outcomes that go wrong in one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import asyncpg
import pytest

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Attempt, Claim, Made, Outcome, Recorded, State, Verdict
from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import Unavailable
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.worker.ledger import PersistentLedger
from hookseal.worker.outcomes import MOST_AT_ONCE, STATEMENTS_AT_ONCE, Outcomes
from hookseal.worker.outcomes import Outcome as Waiting
from tests.doubles.claims import CLAIM
from tests.doubles.stored import Installation, begin

Pool = asyncpg.Pool
ROW = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=12, snippet="ok", signed_by=("db:acme:n:1",))
DELIVERED = Verdict(state=State.DELIVERED)
GONE = Verdict(state=State.FAILED, disable="the receiver answered 410 Gone")
MADE = Made(claim=CLAIM, attempt=ROW, verdict=DELIVERED, error=None)


@dataclass
class Writer:
    """Writes a batch once it is let, and remembers how many were in it."""

    batches: list[int] = field(default_factory=list)
    let: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, outcomes: list[Waiting]) -> None:
        """Settle the outcomes of a batch."""
        self.batches.append(len(outcomes))
        await self.let.wait()
        for _, future in outcomes:
            future.set_result(DELIVERED)


@pytest.mark.req("DUR-03")
async def test_batches_form_by_themselves() -> None:
    """What comes in one turn goes together, and what comes while every statement runs goes with the next one."""
    writer = Writer()
    outcomes = Outcomes(writer.write)
    futures = [outcomes.add(MADE)]
    await asyncio.sleep(0)
    futures += [outcomes.add(MADE) for _ in range(3)]
    await asyncio.sleep(0)
    futures += [outcomes.add(MADE) for _ in range(MOST_AT_ONCE + 2)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert STATEMENTS_AT_ONCE == len(writer.batches)
    writer.let.set()

    assert all(await asyncio.gather(*futures))
    assert [1, 3, MOST_AT_ONCE, 2] == writer.batches


@dataclass
class Scene:
    """A real ledger whose batches can be made to fail, with deliveries that are claimed."""

    installation: Installation
    ledger: PersistentLedger
    claims: list[Claim]

    async def record(self, change: Callable[[int], tuple[Attempt, Verdict]]) -> list[Verdict | BaseException | None]:
        """Record an outcome of each claim, all in one turn; return what became of each."""
        futures = [self.ledger.record(each, *change(number), None) for number, each in enumerate(self.claims)]
        return list(await asyncio.gather(*futures, return_exceptions=True))

    async def states(self) -> list[str]:
        """Return the states of the deliveries, in order of the claims."""
        rows = [await self.installation.delivery(each.ring) for each in self.claims]
        return [row["state"] for row in rows]


class Batching(PostgresLedger):
    """The real ledger; `after` is called once a batch is recorded, and before its answer is given."""

    after: Callable[[], None] = staticmethod(lambda: None)
    batches: list[int]

    async def record_all(self, made: Sequence[Made]) -> list[Recorded]:
        """Record a batch, and then do what was asked for."""
        self.batches.append(len(made))
        found = await super().record_all(made)
        self.after()
        return found


async def scene(pool: "Pool[asyncpg.Record]", number: int) -> tuple[Scene, Batching]:
    """Return a scene with so many claimed deliveries of one endpoint."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(number)]
    real = Batching(pool, worker="w1", lease_seconds=45)
    real.batches = []
    ledger = PersistentLedger(
        real, seconds=5, clock=SystemClock(), new_token=lambda: "01900000-0000-4000-8000-00000000000f", lost=print
    )
    found = await ledger.claim_all(rings, most_bytes=number * MAX_BODY_BYTES)
    by_id = {each.ring.delivery_id: each for each in found.claims}
    return Scene(installation, ledger, [by_id[each.delivery_id] for each in rings]), real


@pytest.mark.req("DEL-15")
async def test_a_row_that_is_refused_costs_one_outcome(pool: "Pool[asyncpg.Record]") -> None:
    """PostgreSQL refuses one outcome of eight: the other seven are recorded, and who made it gets the error."""
    made, real = await scene(pool, 8)
    poisoned = replace(ROW, snippet="a\x00b")  # PostgreSQL has no such text
    results = await made.record(lambda number: (poisoned if number == 5 else ROW, DELIVERED))

    assert [DELIVERED] * 5 == results[:5]
    assert isinstance(results[5], asyncpg.PostgresError)
    assert [DELIVERED] * 2 == results[6:]
    assert ["delivered"] * 5 + ["sending"] + ["delivered"] * 2 == await made.states()
    assert 8 == real.batches[0]


@pytest.mark.req("DUR-02")
async def test_a_locked_row_holds_up_no_other(pool: "Pool[asyncpg.Record]") -> None:
    """Somebody holds the row of one of eight: seven are recorded at once, and the eighth once it is let go."""
    made, _ = await scene(pool, 8)
    async with pool.acquire() as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", made.claims[3].ring.delivery_id
        )
        futures = [made.ledger.record(each, ROW, DELIVERED, None) for each in made.claims]
        others = [each for number, each in enumerate(futures) if number != 3]
        assert all(await asyncio.gather(*others))
        assert ["delivered"] * 3 + ["sending"] + ["delivered"] * 4 == await made.states()
        await transaction.rollback()
    assert await futures[3]
    assert ["delivered"] * 8 == await made.states()


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_locked_endpoint_holds_up_what_disables_it_alone(pool: "Pool[asyncpg.Record]") -> None:
    """An operator holds the endpoint: a 410 waits to disable it, and no other outcome waits with it."""
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


@pytest.mark.req("DEL-15", "DUR-04")
@pytest.mark.parametrize("lost", [0, 1])
async def test_a_lost_answer_is_looked_up_for_the_whole_batch(pool: "Pool[asyncpg.Record]", lost: int) -> None:
    """A batch whose answer was lost was written: its repeat finds all of it. What lost its lease before is told."""
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
async def test_an_attempt_of_another_outcome_is_not_this_one(pool: "Pool[asyncpg.Record]") -> None:
    """What is on record under the same number with another outcome, or by another worker, is not the attempt sought."""
    made, real = await scene(pool, 2)
    assert [DELIVERED, DELIVERED] == await made.record(lambda _: (ROW, DELIVERED))
    same = [replace(MADE, claim=each) for each in made.claims]
    other = replace(same[0], attempt=replace(ROW, outcome=Outcome.UNKNOWN))

    assert {each.ring.delivery_id for each in made.claims} == await real.recorded(same)
    assert set() == await real.recorded([other])
    assert set() == await PostgresLedger(pool, worker="w2", lease_seconds=45).recorded(same)


async def test_an_outcome_is_written_although_its_attempt_was_cut_off(pool: "Pool[asyncpg.Record]") -> None:
    """Once it is in the batch nothing that befalls the attempt keeps it from its record."""
    made, _ = await scene(pool, 1)
    waiting = asyncio.ensure_future(made.ledger.record(made.claims[0], ROW, DELIVERED, None))
    shielded = asyncio.shield(waiting)
    shielded.cancel()
    await asyncio.wait({waiting})

    assert ["delivered"] == await made.states()
