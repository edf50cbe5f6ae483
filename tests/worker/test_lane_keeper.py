"""What one turn of the lane keeper fetches, on a real PostgreSQL."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import NO_PACE, Outcome, Ring, WaitingFor
from hookseal.dispatcher.lanes.crowded import CALM_SECONDS, MOST_EMPTY_ASKED, Asked
from hookseal.dispatcher.lanes.lane import LEAST_MAY_WAIT, LOCKED_SECONDS, Fleet, Parked
from hookseal.dispatcher.lanes.round_robin import Key
from hookseal.dispatcher.lanes.worker_lanes import MOST_ASKED, Lanes
from hookseal.dispatcher.store.lanes import BEGINNING, PAGE, CrowdedLane, PostgresLanes
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Unavailable
from hookseal.ground.ids import DeliveryId
from hookseal.postgres.pool import Pool
from hookseal.postgres.statements import statements
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.inflight import InFlight
from hookseal.worker.lane_keeper import (
    BUSY_LOOK_SECONDS,
    FEW_AT_ONCE,
    LOOK_SECONDS,
    MANY_TO_PARK,
    MOST_AT_ONCE,
    LaneKeeper,
)
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.run import cancelled
from tests.doubles.claims import CLAIM, TARGET
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin_with_two_tenants
from tests.doubles.transport import ScriptedTransport
from tests.doubles.virtual_clock import VirtualClock
from tests.servers import WithoutReset
from tests.worker.test_ring_handler import OK, Scene

_LANES = 2 * MOST_ASKED
PARKING_SECONDS: Final = 0.01
# So many crowded lanes, of which only the last has deliveries that wait.
_STORE = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', lpad(n::text, 32, '0')::uuid, 'https://a.example/' || n, '{*}' FROM generate_series(1, $1::integer) AS n;
INSERT INTO hookseal.lanes (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
VALUES ('acme', 'e', 'a', now(), '', '');
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, waiting_for, held_at)
SELECT tenant_id, hookseal.uuid7(), id, 'e', 'concurrency', now() FROM hookseal.endpoints ORDER BY id DESC LIMIT 1;
"""


class Counting(PostgresLanes):
    """Counts the statements that ask for what is next, the lanes that they ask for, and those to delete."""

    statements = lanes = deleted = 0

    async def next(self, asked: Sequence[Asked]) -> list[Ring]:
        self.statements += 1
        self.lanes += len(asked)
        return await super().next(asked)

    async def delete(self, keys: Sequence[Key]) -> dict[Key, bool]:
        self.deleted += len(keys)
        return await super().delete(keys)


def keeper_of(
    store: PostgresLanes,
    lanes: Lanes,
    clock: FakeClock,
    turns: BacklogTurns | None = None,
    *,
    in_flight: InFlight | None = None,
) -> LaneKeeper:
    """Return a keeper of these lanes, with 500 free slots unless others are given."""
    parts = SimpleNamespace(clock=clock, jitter=lambda: 0.5, log=structlog.get_logger())
    slots = InFlight(500) if in_flight is None else in_flight
    return LaneKeeper(store, lanes, slots, _any(parts), meter=WorkerMeter(), turns=turns or BacklogTurns(clock))


async def full_lane(pool: Pool) -> tuple[Lanes, Ring]:
    """Return lanes with the only delivery of the database, whose ring has no room and no place here, and that ring."""
    stored = await pool.fetchrow(
        "SELECT tenant_id, endpoint_id::text, id::text AS delivery_id FROM hookseal.deliveries"
    )
    ring, lanes = Ring(**dict(stored or {})), Lanes(1)
    lanes.claimed(replace(CLAIM, ring=ring, target=replace(TARGET, pace=NO_PACE)), 0.0)
    lanes.begin(replace(ring, delivery_id=DeliveryId("in flight")), 0.0)
    lanes.add([*(replace(ring, delivery_id=DeliveryId(str(each))) for each in range(LEAST_MAY_WAIT)), ring], 0.0)
    assert lanes.needs_database
    return lanes, ring


async def crowded_lanes(pool: Pool) -> Lanes:
    """Return lanes that look after those of all endpoints."""
    lanes = Lanes(32)
    for key in await pool.fetch("SELECT tenant_id, id::text FROM hookseal.endpoints ORDER BY id"):
        lanes.crowded.learn((key[0], key[1]))
    return lanes


@pytest.mark.req("DEL-09")
async def test_a_turn_asks_every_crowded_lane(pool: Pool) -> None:
    """A delivery in one of many crowded lanes is fetched in the turn that sees them, though all others are empty."""
    await pool.execute(_STORE.replace("$1", str(_LANES)))
    lanes = Lanes(32)
    await keeper_of(PostgresLanes(pool), lanes, FakeClock()).once(_HANDLER)

    assert _LANES == len(lanes.crowded)
    waiting = await pool.fetchval("SELECT id::text FROM hookseal.deliveries")
    assert [waiting] == [ring.delivery_id for ring in lanes.pick(10, 0.0)]


class AnsweringOnce(PostgresLanes):
    """Says once what is next; then PostgreSQL does not answer."""

    has_answered = False

    async def next(self, asked: Sequence[Asked]) -> list[Ring]:
        if self.has_answered:
            raise Unavailable("PostgreSQL does not answer (TimeoutError)")
        self.has_answered = True
        return await super().next(asked)


@pytest.mark.req("DEL-09")
async def test_what_was_fetched_does_not_wait_for_the_next_statement(pool: Pool) -> None:
    """The handler is woken after each statement, so that the deliveries begin before all crowded lanes were asked."""
    await pool.execute(_STORE.replace("$1", str(_LANES)).replace("DESC", "ASC"))
    lanes, woken = Lanes(32), list[bool]()
    handler = _any(SimpleNamespace(is_down=False, wake=lambda: woken.append(lanes.ready)))
    with pytest.raises(Unavailable):
        await keeper_of(AnsweringOnce(pool), lanes, FakeClock()).once(handler)

    assert [False, True] == woken


async def test_the_ring_of_a_delivery_that_waits_already_is_dropped(pool: Pool) -> None:
    """A ring without room is not tried if its delivery waits in PostgreSQL already: the outbox may have parked it."""
    await pool.execute(_STORE.replace("$1", "1"))
    lanes, _ = await full_lane(pool)
    await keeper_of(PostgresLanes(pool), lanes, FakeClock()).once(_HANDLER)

    assert not lanes.ready


@pytest.mark.req("DEL-09")
async def test_a_locked_delivery_does_not_begin_in_a_full_lane(pool: Pool) -> None:
    """A ring without room is tried again later if its delivery is locked: the lane stays at its limit."""
    await pool.execute(_STORE.replace("$1", "1"))
    await pool.execute("UPDATE hookseal.deliveries SET waiting_for = NULL, held_at = NULL")
    (lanes, ring), kept = await full_lane(pool), list[Ring]()
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries FOR UPDATE")
        handler = _any(SimpleNamespace(is_down=False, wake=lambda: None, keep_busy=kept.extend))
        await keeper_of(PostgresLanes(pool), lanes, FakeClock()).once(handler)

    assert [] == lanes.pick(10, 0.0)
    assert [ring] == kept


class Parking(PostgresLanes):
    """Counts the rings of each statement that parks, and parks none."""

    def __init__(self, clock: FakeClock, seconds: float = 0.0) -> None:
        self.rings: list[int] = []
        self._clock = clock
        self._seconds = seconds
        self.has_parked_few = asyncio.Event()

    async def park(self, parked: Sequence[Parked]) -> dict[str, WaitingFor | None]:
        self._clock.elapsed += self._seconds
        self.rings.append(len(parked))
        if len(parked) < FEW_AT_ONCE:
            self.has_parked_few.set()
        return {each.ring.delivery_id: None for each in parked}

    async def page(self, after: Key = BEGINNING) -> list[CrowdedLane]:
        del after
        return []

    async def has_one_tenant(self) -> bool:
        return False

    async def next(self, asked: Sequence[Asked]) -> list[Ring]:
        del asked
        return []


class Asking(BacklogTurns):
    """Says when someone asks for a turn."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        self.asked.set()
        async with super().turn():
            yield


def to_park(number: int) -> Lanes:
    lanes, rings = Lanes(1), number + 1 + LEAST_MAY_WAIT
    lanes.claimed(replace(CLAIM, target=replace(TARGET, pace=NO_PACE)), 0.0)
    lanes.add((replace(CLAIM.ring, delivery_id=DeliveryId(str(each))) for each in range(rings)), 0.0)
    assert number == len(lanes.to_park)
    return lanes


@pytest.mark.req("DEL-09")
async def test_rings_are_parked_with_pauses() -> None:
    """Each turn of the keeper parks some rings, more of many, no sooner after those before than these took."""
    lanes, clock = to_park(MANY_TO_PARK + 1), FakeClock()
    keeper = keeper_of(store := Parking(clock, PARKING_SECONDS), lanes, clock)
    await keeper.once(_HANDLER)
    await keeper.once(_HANDLER)

    assert [MOST_AT_ONCE, FEW_AT_ONCE] == store.rings
    assert [PARKING_SECONDS] == pytest.approx(clock.slept)


@pytest.mark.req("DEL-09")
async def test_a_worker_that_stops_parks_nothing() -> None:
    """If the rings were put back into Redis while the keeper waited for its turn, it does not ask PostgreSQL."""
    lanes, clock = to_park(1), FakeClock()
    turns = Asking(clock)
    keeper = keeper_of(store := Parking(clock), lanes, clock, turns)
    async with turns.turn():
        turns.asked.clear()
        turn = asyncio.create_task(keeper.once(_HANDLER))
        await turns.asked.wait()
        lanes.leave()
    await turn

    assert [] == store.rings


@pytest.mark.req("DEL-09")
async def test_further_rings_are_parked_at_once() -> None:
    """While rings are to be parked, the next turn does not wait for the next look."""
    lanes, clock = to_park(2 * FEW_AT_ONCE + 1), VirtualClock()
    running = asyncio.create_task(keeper_of(store := Parking(clock), lanes, clock).loop(_HANDLER).run())
    async with asyncio.timeout(10):
        await store.has_parked_few.wait()
    await cancelled([running])

    assert [FEW_AT_ONCE, FEW_AT_ONCE, 1] == store.rings


@pytest.mark.req("DEL-09")
async def test_a_turn_follows_the_fleet(pool: Pool) -> None:
    """A worker that had no share of an endpoint's limit takes its deliveries once the worker that had it has ended."""
    await pool.execute(_STORE.replace("$1", "2"))
    fleet, clock = Fleet(rank=1, workers=2), FakeClock()
    lanes = Lanes(1, lambda: fleet)
    keeper = keeper_of(PostgresLanes(pool), lanes, clock)
    await keeper.once(_HANDLER)
    assert [] == lanes.pick(10, 0.0)
    fleet = Fleet(rank=0, workers=1)
    clock.elapsed = LOOK_SECONDS
    await keeper.once(_HANDLER)

    assert 1 == len(lanes.pick(10, LOOK_SECONDS))


@pytest.mark.req("DEL-09")
async def test_a_turn_reads_a_raised_limit(pool: Pool) -> None:
    """A worker that had no share of an endpoint's limit takes its deliveries once the limit was raised."""
    await pool.execute(_STORE.replace("$1", "2"))
    lanes, clock = Lanes(1, lambda: Fleet(rank=1, workers=2)), FakeClock()
    keeper = keeper_of(PostgresLanes(pool), lanes, clock)
    await keeper.once(_HANDLER)
    assert [] == lanes.pick(10, 0.0)
    await pool.execute("UPDATE hookseal.endpoints SET concurrency = 2")
    clock.elapsed = LOOK_SECONDS
    await keeper.once(_HANDLER)

    assert 1 == len(lanes.pick(10, LOOK_SECONDS))


@pytest.mark.req("DEL-09")
async def test_a_lane_that_reopened_waits_for_its_endpoint(pool: Pool) -> None:
    """A worker keeps no state for it while its endpoint is disabled; once that is enabled, the lane begins slowly."""
    await pool.execute(_STORE.replace("$1", "1"))
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false; UPDATE hookseal.lanes SET reopened_at = now()")
    lanes, clock = Lanes(32), FakeClock()
    keeper = keeper_of(PostgresLanes(pool), lanes, clock)
    await keeper.once(_HANDLER)
    assert 0 == len(lanes._lanes)
    await pool.execute("UPDATE hookseal.endpoints SET enabled = true")
    clock.elapsed = LOOK_SECONDS
    await keeper.once(_HANDLER)

    assert 1 == lanes._lanes["acme", "00000000-0000-0000-0000-000000000001"].limit


@pytest.mark.req("DEL-09")
async def test_empty_lanes_cost_few_statements(pool: Pool) -> None:
    """After 5,000 crowded lanes were found empty, a worker asks 2,560 of them a second, in twenty statements."""
    await pool.execute(_STORE.replace("$1", "5000"))
    store, lanes, clock = Counting(pool), await crowded_lanes(pool), FakeClock()
    keeper = keeper_of(store, lanes, clock)
    await keeper.once(_HANDLER)
    first = (store.statements, store.lanes)
    for _ in range(10):
        clock.elapsed += BUSY_LOOK_SECONDS
        await keeper.once(_HANDLER)
        await keeper.once(_HANDLER)  # something else has woken it

    assert (40, 5_000) == first
    assert (20, 10 * MOST_EMPTY_ASKED) == (store.statements - first[0], store.lanes - first[1])
    assert 0 == store.deleted
    clock.elapsed += CALM_SECONDS
    await keeper.once(_HANDLER)
    assert (PAGE, 5_000 - PAGE) == (store.deleted, await pool.fetchval("SELECT count(*) FROM hookseal.lanes"))
    assert 5_000 == len(lanes.crowded)


@pytest.mark.req("DEL-09")
async def test_a_deleted_lane_is_looked_after_for_a_while(pool: Pool) -> None:
    """A publisher that read a lane before it was deleted may let a delivery wait: it is fetched. Then all is over."""
    await pool.execute(_STORE.replace("$1", "2"))
    lanes, clock = await crowded_lanes(pool), FakeClock()
    keeper = keeper_of(PostgresLanes(pool), lanes, clock)
    await pool.execute("UPDATE hookseal.deliveries SET waiting_for = NULL, held_at = NULL")
    await keeper.once(_HANDLER)
    clock.elapsed += CALM_SECONDS
    await keeper.once(_HANDLER)
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.lanes")

    await pool.execute("UPDATE hookseal.deliveries SET waiting_for = 'concurrency', held_at = now()")
    clock.elapsed += BUSY_LOOK_SECONDS
    await keeper.once(_HANDLER)
    [ring] = lanes.pick(10, clock.elapsed)
    lanes.unclaimed(ring, clock.elapsed)
    await pool.execute("UPDATE hookseal.deliveries SET waiting_for = NULL, held_at = NULL")
    for _ in range(2):
        clock.elapsed += CALM_SECONDS
        await keeper.once(_HANDLER)
    assert 0 == len(lanes.crowded)


@pytest.mark.req("DEL-17")
async def test_what_is_expected_meanwhile_is_fetched(pool: Pool) -> None:
    """If more of a lane is expected while PostgreSQL deletes it, the next look asks for it."""
    await pool.execute(_STORE.replace("$1", "1"))
    await pool.execute("DELETE FROM hookseal.lanes")
    await pool.execute("UPDATE hookseal.deliveries SET waiting_for = NULL, held_at = NULL")
    lanes, clock, asked = await crowded_lanes(pool), FakeClock(), list[Asked]()

    class Expecting(PostgresLanes):
        async def delete(self, keys: Sequence[Key]) -> dict[Key, bool]:
            left = await super().delete(keys)
            lanes.crowded.expect(keys[0])
            return left

        async def next(self, wanted: Sequence[Asked]) -> list[Ring]:
            asked.extend(wanted)
            return await super().next(wanted)

    keeper = keeper_of(Expecting(pool), lanes, clock)
    await keeper.once(_HANDLER)
    asked.clear()
    clock.elapsed += CALM_SECONDS
    await keeper.once(_HANDLER)

    assert 1 == len(asked)


@pytest.mark.req("DEL-09")
async def test_a_worker_without_free_slots_deletes_no_lane(pool: Pool) -> None:
    """While all slots are taken no lane is asked, so that what waits in it is not known."""
    await pool.execute(_STORE.replace("$1", "2"))
    lanes, clock, slots = await crowded_lanes(pool), FakeClock(), InFlight(1)
    keeper = keeper_of(PostgresLanes(pool), lanes, clock, in_flight=slots)
    await keeper.once(_HANDLER)
    slots.take(1)
    clock.elapsed += CALM_SECONDS
    await keeper.once(_HANDLER)

    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.lanes")


@pytest.mark.req("DEL-09")
async def test_a_draining_worker_deletes_no_lane(pool: Pool) -> None:
    """A worker that drains begins nothing of what waits in a lane: it fetches nothing, and judges no lane calm."""
    await pool.execute(_STORE.replace("$1", "2"))
    store, lanes, clock, slots = Counting(pool), await crowded_lanes(pool), FakeClock(), InFlight(1)
    keeper = keeper_of(store, lanes, clock, in_flight=slots)
    await keeper.once(_HANDLER)
    slots.close()
    asked = store.lanes
    for _ in range(2):
        clock.elapsed += CALM_SECONDS
        await keeper.once(_HANDLER)

    assert (asked, 0) == (store.lanes, store.deleted)
    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.lanes")


@pytest.mark.req("DEL-09")
async def test_a_lane_in_which_something_waits_is_looked_after(pool: Pool) -> None:
    """A lane that has become calm is no longer crowded, but what waits in it by then is fetched at once."""
    await pool.execute(_STORE.replace("$1", "2500"))
    store, lanes, clock = Counting(pool), await crowded_lanes(pool), FakeClock()
    keeper = keeper_of(store, lanes, clock)
    await keeper.once(_HANDLER)
    assert 1 == len(lanes.pick(10, 0.0))
    await pool.execute(
        "INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, waiting_for, held_at)"
        " SELECT tenant_id, hookseal.uuid7(), id, 'e', 'concurrency', now()"
        " FROM hookseal.endpoints ORDER BY id LIMIT 1"
    )
    clock.elapsed += CALM_SECONDS
    await keeper.once(_HANDLER)

    assert PAGE == store.deleted
    assert 2500 - PAGE == await pool.fetchval("SELECT count(*) FROM hookseal.lanes")
    assert 1 == len(lanes.pick(10, CALM_SECONDS))


@pytest.mark.req("DEL-09")
async def test_steady_traffic_does_not_keep_a_lane_crowded(pool: Pool) -> None:
    """Once all that waits has found room for a while, a lane is no longer crowded, though something always waits."""
    await pool.execute(_STORE.replace("$1", "1"))
    lanes, clock = Lanes(32), FakeClock()
    keeper = keeper_of(PostgresLanes(pool), lanes, clock)
    while clock.elapsed <= CALM_SECONDS + LOOK_SECONDS:
        await keeper.once(_HANDLER)
        for ring in lanes.pick(10, clock.elapsed):
            lanes.claimed(replace(CLAIM, ring=ring, target=replace(TARGET, pace=NO_PACE)), clock.elapsed)
            lanes.answered(ring, Outcome.DELIVERED, clock.elapsed)
        clock.elapsed += BUSY_LOOK_SECONDS
        await pool.execute("UPDATE hookseal.deliveries SET id = hookseal.uuid7() WHERE waiting_for = 'concurrency'")

    assert (1, 0) == tuple(await pool.fetchrow(
        "SELECT (SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'concurrency'),"
        " (SELECT count(*) FROM hookseal.lanes)"
    ) or ())  # fmt: skip


def _any(value: object) -> Any:
    return value


_HANDLER: Final = _any(SimpleNamespace(is_down=False, wake=lambda: None, keep_busy=lambda _: None))


# What a worker does while another transaction holds the row of an endpoint with a backlog, counted in statements.


STEP_SECONDS: Final = 0.02
CLAIM_ALL: Final = statements("hookseal.dispatcher.store", "batches.sql")["claim_all"]
_BACKLOG: Final = """
WITH event AS (
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    SELECT 'acme', 'e' || n, 'a', now(), '{}', '' FROM generate_series(1, $1) AS n RETURNING tenant_id, id
)
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at, rung_at)
SELECT event.tenant_id, hookseal.uuid7(), e.id, event.id, now(), now()
FROM event JOIN hookseal.endpoints AS e ON e.tenant_id = event.tenant_id
RETURNING tenant_id, endpoint_id::text, id::text AS delivery_id
"""


class Worker:
    """A ring handler and a lane keeper on a pool whose statements are counted, and the rings in its queue."""

    def __init__(self, pool: Pool, statements: Counter[str]) -> None:
        self.statements = statements
        self.scene = Scene(slots=256)
        ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
        parts = replace(
            self.scene.handler._parts,
            claims=ledger,
            ledger=ledger,
            transport=ScriptedTransport(*[OK] * 5_000, clock=self.scene.clock),
        )
        self.scene.handler._parts = parts
        store = PostgresLanes(pool)
        self.keeper = LaneKeeper(
            *(store, self.scene.lanes, self.scene.in_flight, parts),
            meter=self.scene.meter,
            turns=BacklogTurns(self.scene.clock),
        )
        self.queue: list[Ring] = []

    @property
    def claims(self) -> int:
        return self.statements[CLAIM_ALL]

    async def run(self, seconds: float) -> None:
        """Take rings, claim, send and look after the lanes as often as something can be done, for so long."""
        handler = self.scene.handler
        for _ in range(round(seconds / STEP_SECONDS)):
            for _ in range(10):
                space = handler.space
                handler.add(self.queue[:space])
                del self.queue[:space]
                await self.keeper.once(handler)
                if rings := handler._next_rings(self.scene.in_flight.room):
                    await handler.handle(rings)
                    assert 0 == await self.scene.in_flight.drain(5)
                elif not (space and self.queue):
                    break
            self.scene.clock.elapsed += STEP_SECONDS


@pytest.fixture
async def installation(begun_pool: Pool) -> Installation:
    return await begin_with_two_tenants(begun_pool)


@pytest.fixture
async def worker(installation: Installation, database_url: str) -> AsyncIterator[Worker]:
    counted: Counter[str] = Counter()

    class Counting(WithoutReset):
        async def fetch(self, query: str, *arguments: Any, **options: Any) -> Any:
            counted.update([query])
            return await super().fetch(query, *arguments, **options)

    async with asyncpg.create_pool(database_url, min_size=1, max_size=10, connection_class=Counting) as pool:
        yield Worker(pool, counted)


async def published(installation: Installation, number: int) -> list[Ring]:
    return [Ring(**dict(row)) for row in await installation.pool.fetch(_BACKLOG, number)]


async def delivered(installation: Installation, rings: Sequence[Ring]) -> int:
    found = await installation.pool.fetch(
        "SELECT FROM hookseal.deliveries WHERE id = ANY($1::text[]::uuid[]) AND state = 'delivered'",
        [each.delivery_id for each in rings],
    )
    return len(found)


@pytest.mark.req("DEL-09")
async def test_a_locked_endpoint_costs_five_claims_a_second(installation: Installation, worker: Worker) -> None:
    """While its row is locked, 1,000 deliveries cost no more claims than one would, and none of them is left behind.

    The deliveries of another endpoint are all sent at once. When the lock is gone, all of the backlog is sent.
    """
    backlog = await published(installation, 1_000)
    others = [(await installation.deliveries("globex"))[0] for _ in range(20)]
    worker.queue = [*backlog[:900], *others, *backlog[900:]]
    with structlog.testing.capture_logs() as logs:
        async with installation.pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT FROM hookseal.endpoints WHERE tenant_id = 'acme' FOR UPDATE")
            await worker.run(1.0)
            assert len(others) == await delivered(installation, others)
            worker.statements.clear()
            await worker.run(10.0)
            assert worker.claims <= 10.0 / LOCKED_SECONDS
            assert worker.statements.total() <= 120
            assert 0 == await delivered(installation, backlog)
        await worker.run(10.0)
    assert len(backlog) == await delivered(installation, backlog)
    assert [] == [line["event"] for line in logs if line["event"] == "rings.left"]
