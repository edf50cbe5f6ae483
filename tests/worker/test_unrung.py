"""How many rings are in Redis, of which tenants, and in which order they are taken, on a real PostgreSQL and Valkey."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.ledger import Chore, PostgresLedger
from hookseal.ground.ids import TenantId
from hookseal.queue.bell import Bell, bell
from hookseal.queue.intake import Intake
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.unrung import FEW_AT_ONCE, FULL_SECONDS, MOST_AT_ONCE, Rung, UnrungRings
from tests.doubles.clock import FakeClock

Pool = asyncpg.Pool
pytestmark = [pytest.mark.usefixtures("begun_pool"), pytest.mark.req("DEL-09")]

NONE: frozenset[Chore] = frozenset()
LATER_OF_MANY_TENANTS = """
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT 't' || n, 'e', 'a.b', now(), '', '' FROM generate_series(1, 600) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at)
SELECT tenant_id, hookseal.uuid7(), hookseal.uuid7(), id, now() + interval '1 h' FROM hookseal.events WHERE id = 'e'
"""


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[Bell]:
    """Yield a bell on the queue of this test."""
    made = bell(redis_url)
    yield made
    await made.close()


async def publish(pool: "Pool[asyncpg.Record]", tenant: str, number: int) -> None:
    """Publish that many events of a tenant, without a ring."""
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
        " VALUES ($1, hookseal.uuid7(), 'https://receiver.example/hook', '{*}') ON CONFLICT DO NOTHING",
        tenant,
    )
    await pool.execute(
        "SELECT hookseal.publish($1, 'invoice.paid', '{}'::json) FROM generate_series(1, $2::int)", tenant, number
    )


class Unrung(UnrungRings):
    """At most ten rings are in Redis at once."""

    most_standing = 10

    def __init__(self, pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
        self.clock = FakeClock()
        self.ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
        super().__init__(self.ledger, ringing, clock=self.clock, turns=BacklogTurns(self.clock))
        self._intake = Intake(ringing)

    async def look(self) -> Rung:
        """Ring what is due now."""
        return await self.ring(None, waited_seconds=0)

    async def take(self, number: int) -> list[Ring]:
        """Take and claim that many, as a worker does."""
        taken = (await self._intake.take(number, 0.01)).rings
        claimed = await self.ledger.claim_all(taken, None, most_bytes=2**25)
        assert len(taken) == len(claimed.claims)
        return taken


async def test_a_backlog_waits_in_postgresql(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """No more rings of a backlog are in Redis than allowed, until workers take some; then as many are added."""
    await publish(pool, "ant", 100)
    unrung = Unrung(pool, ringing)

    assert [Rung(10, has_more=True, chores=NONE), Rung(0, has_more=False)] == [await unrung.look() for _ in range(2)]
    await unrung.take(3)
    assert [Rung(3, has_more=True, chores=NONE), Rung(0, has_more=False)] == [await unrung.look() for _ in range(2)]
    assert 10 == await ringing.depth() == await unrung.ledger.standing(100)


async def test_one_look_rings_few(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """A worker rings a backlog in steps, the first of them small; each says that more is left."""
    await publish(pool, "ant", 3 * MOST_AT_ONCE)
    ledger, clock = PostgresLedger(pool, worker="w1", lease_seconds=45), FakeClock()
    unrung = UnrungRings(ledger, ringing, clock=clock, turns=BacklogTurns(clock))
    looks = [await unrung.ring(None, waited_seconds=0) for _ in range(5)]

    assert [50, 100, 200, MOST_AT_ONCE, 3 * MOST_AT_ONCE - 600] == [look.rings for look in looks]
    assert [*[True] * 4, False] == [look.has_more for look in looks]


async def test_a_look_rings_few_while_lanes_are_full(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """So long as a worker parks what the outbox rings, each look rings few, and not more and more."""
    await publish(pool, "ant", 3 * FEW_AT_ONCE)
    ledger, clock = PostgresLedger(pool, worker="w1", lease_seconds=45), FakeClock()
    turns = BacklogTurns(clock)
    unrung = UnrungRings(ledger, ringing, clock=clock, turns=turns)
    turns.parked()
    looks = [await unrung.ring(None, waited_seconds=0) for _ in range(3)]

    assert [FEW_AT_ONCE] * 3 == [look.rings for look in looks]


async def test_a_look_waits_for_its_turn(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """Its statement runs in a turn of its own, so that it does not run beside another one over a backlog."""
    clock = FakeClock()
    turns = BacklogTurns(clock)
    async with turns.turn():
        clock.elapsed += 0.04
    unrung = UnrungRings(PostgresLedger(pool, worker="w1", lease_seconds=45), ringing, clock=clock, turns=turns)
    await unrung.ring(None, waited_seconds=0)

    assert [0.04] == pytest.approx(clock.slept)


async def test_untaken_rings_delay_another_tenant_for_a_second(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """While the rings of one tenant reach the limit in Redis, each tenant gets one more ring a second."""
    await publish(pool, "ant", 100)
    unrung = Unrung(pool, ringing)
    await unrung.look()
    await publish(pool, "bee", 100)

    assert 0 == (await unrung.look()).rings
    for _ in range(3):
        unrung.clock.elapsed += FULL_SECONDS
        assert [Rung(2, has_more=False, chores=NONE), Rung(0, has_more=False)] == [
            await unrung.look() for _ in range(2)
        ]
    assert 16 == await ringing.depth()


async def test_unknown_rings_in_redis_stop_no_backlog(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """Rings that PostgreSQL does not know take no place of those that it knows."""
    await publish(pool, "ant", 100)
    await ringing.redis.zadd(ringing.queue, {f"other-{number}": 1 for number in range(1_000)})
    unrung = Unrung(pool, ringing)

    assert [10, 0] == [(await unrung.look()).rings for _ in range(2)]


async def test_what_producers_ring_takes_no_place(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """Deliveries whose producer rings them are not rung, and do not count among those that are in Redis."""
    await publish(pool, "ant", 1)
    await pool.execute("SELECT hookseal.publish('ant', 'a.b', '{}'::json, rings => true) FROM generate_series(1, 30)")
    await publish(pool, "bee", 100)
    rows = await pool.fetch("SELECT endpoint_id::text, id::text FROM hookseal.deliveries WHERE rung_at IS NOT NULL")
    rings = [Ring(tenant_id=TenantId("ant"), endpoint_id=row[0], delivery_id=row[1]) for row in rows]
    await ringing.ring(rings)
    unrung = Unrung(pool, ringing)

    assert [6, 4, 0] == [(await unrung.look()).rings for _ in range(3)]
    assert (40, 10) == (await ringing.depth(), await unrung.ledger.standing(100))


async def test_a_locked_backlog_is_left_to_the_next_look(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """While another transaction has locked all that is due, the looks end after a round or two of many tenants."""
    await publish(pool, "ant", 10)
    await publish(pool, "bee", 1)
    await pool.execute(LATER_OF_MANY_TENANTS)
    unrung = Unrung(pool, ringing)
    unrung.clock.elapsed += FULL_SECONDS
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries WHERE tenant_id IN ('ant', 'bee') FOR UPDATE")
        looks = [await unrung.look() for _ in range(7)]

    assert 0 == sum(look.rings for look in looks)
    assert False in {look.has_more for look in looks}
    assert 10 == sum([(await unrung.look()).rings for _ in range(4)])


async def test_an_emptied_redis_stops_no_backlog(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """Rings that Redis has lost take no place of those that it gets now."""
    await publish(pool, "ant", 100)
    unrung = Unrung(pool, ringing)
    await unrung.look()
    await ringing.redis.flushdb()

    assert 10 == (await unrung.look()).rings


async def test_a_tenant_with_few_rings_goes_before_a_backlog(pool: "Pool[asyncpg.Record]", ringing: Bell) -> None:
    """The rings of a tenant with few deliveries are taken before a backlog that is in Redis already."""
    await publish(pool, "ant", 100)
    unrung = Unrung(pool, ringing)
    await unrung.look()
    await unrung.take(5)
    await publish(pool, "bee", 1)
    assert 3 == (await unrung.look()).rings

    assert ["bee", *["ant"] * 7] == [ring.tenant_id for ring in await unrung.take(8)]
