"""The outbox: how one leader rings the unrung deliveries, in turns, few of a backlog at once, and when notified."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store import status
from hookseal.dispatcher.store.ledger import SWEEP_BATCH, Chore, PostgresLedger
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Pool
from hookseal.queue.bell import Bell, bell
from hookseal.queue.intake import Intake
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.chores import FRESH_SECONDS, LONGEST_PAUSE_SECONDS, BacklogTurns
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outbox import (
    FEW_AT_ONCE,
    FULL_SECONDS,
    MOST_AT_ONCE,
    NOTICE_SECONDS,
    POLL_SECONDS,
    QUIET_AFTER_SECONDS,
    QUIET_POLL_SECONDS,
    Lease,
    Listening,
    Outbox,
    Rung,
    UnrungRings,
)
from hookseal.worker.run import cancelled
from tests import rows
from tests.doubles.clock import FakeClock
from tests.doubles.virtual_clock import VirtualClock
from tests.worker.environment import settings
from tests.worker.figures import figures
from tests.worker.waiting import eventually, eventually_equals

FAR_AWAY = 3_600.0


class RecordingBell(Bell):
    """Notes every id that is rung; while `broken` is set it fails like a missing Redis."""

    def __init__(self, url: str) -> None:
        made = bell(url)
        super().__init__(made.redis, made.waiting, DEFAULT_QUEUE)
        self.rung: list[str] = []
        self.tries = 0
        self.broken = False

    async def ring(self, rings: Iterable[Ring], *, backlogged: Collection[str] = ()) -> int:
        self.tries += 1
        if self.broken:
            raise Unavailable("Redis does not answer (ConnectionError)")
        noted = list(rings)
        self.rung += [ring.delivery_id for ring in noted]
        return await super().ring(noted, backlogged=backlogged)

    async def ping(self) -> None:
        self.tries += 1
        if self.broken:
            raise Unavailable("Redis does not answer (ConnectionError)")
        await super().ping()


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[RecordingBell]:
    made = RecordingBell(redis_url)
    yield made
    await made.close()


def outbox(pool: Pool, ringing: Bell, holder: str, *, seconds: float = 10, clock: Clock | None = None) -> Outbox:
    clock = clock or SystemClock()
    return Outbox(
        Lease(pool, holder=holder, seconds=seconds),
        UnrungRings(
            PostgresLedger(pool, worker=holder, lease_seconds=45), ringing, clock=clock, turns=BacklogTurns(clock)
        ),
        ringing,
        clock=clock,
        meter=WorkerMeter(),
        log=structlog.get_logger(),
    )


async def rings(leader: Outbox, ringing: RecordingBell, *, waited_seconds: float = 0) -> int:
    """Look once; return the number of rings."""
    before = len(ringing.rung)
    assert not await leader.once(waited_seconds=waited_seconds), "more is left to ring"
    return len(ringing.rung) - before


@asynccontextmanager
async def running(*outboxes: Outbox, poll_seconds: float = 0.1) -> AsyncIterator[None]:
    for each in outboxes:
        each.poll_seconds = poll_seconds
    tasks = [asyncio.create_task(each.loop.run()) for each in outboxes]
    try:
        yield
        assert [] == [task for task in tasks if task.done()]
    finally:
        await cancelled(tasks)


@pytest.mark.req("DEL-01")
async def test_an_unrung_delivery_is_rung_once(pool: Pool, ringing: RecordingBell) -> None:
    """Deliveries of events published by SQL are put into the queue once, and are counted."""
    await rows.endpoint(pool)
    ids = set(await rows.publish(pool, 3))
    leader = outbox(pool, ringing, "w1")

    assert [3, 0] == [await rings(leader, ringing) for _ in range(2)]
    assert sorted(ids) == sorted(ringing.rung)
    assert ids == {member.decode() for member in await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)}
    assert 3.0 == figures(leader._meter)["hookseal_rings_total", "outbox"]


async def test_a_publisher_has_time_to_ring(pool: Pool, ringing: RecordingBell) -> None:
    """A delivery that has just become due is left to its publisher."""
    await rows.endpoint(pool)
    await rows.publish(pool, 1)
    leader = outbox(pool, ringing, "w1")

    assert 0 == await rings(leader, ringing, waited_seconds=60)
    assert 1 == await rings(leader, ringing)


async def test_a_look_says_for_half_a_second_what_else_there_is_to_do(pool: Pool, ringing: RecordingBell) -> None:
    """After a look the other loops know what there is to do; without one in the last half second there may be all."""
    clock = FakeClock()
    leader = outbox(pool, ringing, "w1", clock=clock)
    known = [[leader.may_have(each) for each in Chore]]
    await leader.once()
    known.append([leader.may_have(each) for each in Chore])
    await pool.execute(
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id) VALUES ('acme', gen_random_uuid())"
    )
    await leader.once()
    for _ in range(2):
        known.append([leader.may_have(each) for each in Chore])
        clock.elapsed += FRESH_SECONDS

    assert [[True] * 3, [False] * 3, [True, False, False], [True] * 3] == known


async def test_it_begins_a_moment_after_the_worker(pool: Pool, ringing: RecordingBell) -> None:
    """At the start it leaves what is due to the worker, which takes the rings that stand in Redis; then it looks."""
    await rows.endpoint(pool)
    ids = set(await rows.publish(pool, 3))
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = now() - interval '1 h'")
    clock = VirtualClock()
    task = asyncio.create_task(outbox(pool, ringing, "w1", clock=clock).loop.run())
    await clock.run(0.9 * QUIET_POLL_SECONDS, sleepers=1)
    assert [] == ringing.rung
    await clock.run(0.1 * QUIET_POLL_SECONDS, sleepers=1)
    assert ids == set(ringing.rung)
    await cancelled([task])


async def test_the_outbox_polls_slowly_without_work(pool: Pool, ringing: RecordingBell) -> None:
    """After a ring the outbox polls fast for ten seconds, and then as slowly as before."""
    await rows.endpoint(pool)
    clock = FakeClock()
    task = asyncio.create_task(outbox(pool, ringing, "w1", clock=clock).loop.run())

    async def is_busy() -> bool:
        return POLL_SECONDS in clock.slept

    try:
        await eventually(lambda: [QUIET_POLL_SECONDS] * 3 == clock.slept[-3:])
        assert not await is_busy()
        await rows.publish(pool, 1)
        await eventually(is_busy)
        await eventually(lambda: [QUIET_POLL_SECONDS] * 3 == clock.slept[-3:])
    finally:
        await cancelled([task])
    assert 1 == len(ringing.rung)
    assert QUIET_AFTER_SECONDS == pytest.approx(POLL_SECONDS * clock.slept.count(POLL_SECONDS), abs=2 * POLL_SECONDS)


async def test_one_of_two_workers_leads(pool: Pool, ringing: RecordingBell) -> None:
    """Of two workers one leads; the other rings nothing until the leader steps down, and then leads at once."""
    await rows.endpoint(pool)
    clock = FakeClock()
    first, second = (outbox(pool, ringing, name, clock=clock) for name in ("w1", "w2"))
    await rows.publish(pool, 1)

    with structlog.testing.capture_logs() as logs:
        assert [0, 0] == [await rings(second, ringing, waited_seconds=60), await rings(first, ringing)]
        assert (False, True) == (first.leads, second.leads)
        await second.step_down()
        without = await status.read(pool)  # what `hookseal status` warns of, if nobody follows
        clock.elapsed += 2
        assert 1 == await rings(first, ringing)
    assert (None, True) == (without["leader"], 0 <= without["leaderless_seconds"] < 60)
    assert (True, False) == (first.leads, second.leads)
    assert ["outbox.leads", "outbox.leads"] == [line["event"] for line in logs]
    assert "w1" == await pool.fetchval("SELECT holder FROM hookseal.control WHERE name = 'outbox'")


async def test_a_frozen_leader_is_replaced(pool: Pool, ringing: RecordingBell) -> None:
    """A frozen leader is replaced when its lease has expired, and rings nothing, although it believes that it leads."""
    await rows.endpoint(pool)
    frozen = outbox(pool, ringing, "w1", seconds=0.5, clock=FakeClock())
    await frozen.once()
    async with running(outbox(pool, ringing, "w2")):
        await eventually(lambda: pool.fetchval("SELECT holder = 'w2' FROM hookseal.control WHERE name = 'outbox'"))
        assert frozen.leads
        ids = set(await rows.publish(pool, 1))
        assert 0 == await frozen.once(waited_seconds=0)
        await eventually(lambda: ids == set(ringing.rung))
    assert 1 == len(ringing.rung)


async def test_a_replaced_leader_has_no_valid_token(pool: Pool, ringing: RecordingBell) -> None:
    """A leader keeps its token while it renews. The next one has another: the old one then rings nothing."""
    await rows.endpoint(pool)
    first, second = Lease(pool, holder="w1"), Lease(pool, holder="w2")
    old = await first.take()
    assert old is not None
    assert (old, None) == (await first.take(), await second.take())
    await pool.execute("UPDATE hookseal.control SET until = now() WHERE name = 'outbox'")
    assert await second.take() not in {None, old}

    await rows.publish(pool, 1)
    ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
    assert [] == (await ledger.ring_unrung(old, waited_seconds=0)).rings


async def test_a_leader_that_cannot_renew_stops_leading(pool: Pool, ringing: RecordingBell) -> None:
    """A leader that cannot renew its lease stops leading by its own clock when the lease has expired."""
    clock = FakeClock()
    leader = outbox(pool, ringing, "w1", clock=clock)
    await leader.once()
    states = []
    for _ in range(2):
        states.append(leader.leads)
        clock.elapsed += 10

    assert [True, False] == states


async def test_two_workers_ring_once(pool: Pool, ringing: RecordingBell) -> None:
    """Every delivery is rung once, however many workers run."""
    await rows.endpoint(pool)
    async with running(*(outbox(pool, ringing, f"w{number}", seconds=0.5) for number in range(3))):
        ids = set[str]()
        for _ in range(10):
            ids |= set(await rows.publish(pool, 20))
        await eventually(lambda: len(ids) <= len(ringing.rung))

    assert sorted(ids) == sorted(ringing.rung)


async def test_batches_are_rung_without_a_pause(pool: Pool, ringing: RecordingBell) -> None:
    """More than one batch is rung without waiting for the next look."""
    await rows.endpoint(pool)
    await rows.publish(pool, SWEEP_BATCH + 1)
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = next_attempt_at - interval '1 minute'")
    async with running(outbox(pool, ringing, "w1"), poll_seconds=FAR_AWAY):
        await eventually(lambda: SWEEP_BATCH + 1 == len(ringing.rung))


async def test_a_wake_rings_at_once(pool: Pool, ringing: RecordingBell) -> None:
    """After `wake` the leader rings at once, without waiting for its next look or for the publisher."""
    await rows.endpoint(pool)
    leader = outbox(pool, ringing, "w1")
    async with running(leader, poll_seconds=FAR_AWAY):
        await eventually(lambda: leader.leads)
        ids = set(await rows.publish(pool, 1))
        leader.wake()
        await eventually(lambda: ids == set(ringing.rung))


async def test_an_outage_of_redis_is_logged_once(pool: Pool, ringing: RecordingBell) -> None:
    """An outage of Redis is logged once; deliveries that are published meanwhile are rung after it, none twice."""
    await rows.endpoint(pool)
    ringing.broken = True
    lost = set(await rows.publish(pool, 1))
    with structlog.testing.capture_logs() as logs:
        async with running(outbox(pool, ringing, "w1", clock=FakeClock())):
            await eventually(lambda: ringing.tries > 10)
            kept = set(await rows.publish(pool, 5))
            tries = ringing.tries
            await eventually(lambda: ringing.tries > tries + 5)
            ringing.broken = False
            await eventually(lambda: kept <= set(ringing.rung) and logs[-1]["event"] == "outbox.resumed")

    assert ["outbox.leads", "outbox.failed", "outbox.resumed"] == [line["event"] for line in logs]
    assert set(ringing.rung) <= kept | lost
    assert len(ringing.rung) == len(set(ringing.rung))


async def test_an_outage_of_postgresql_is_logged_once(database_url: str, ringing: RecordingBell) -> None:
    """While PostgreSQL does not answer, the loop continues and logs the outage once, and `step_down` returns."""
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
    await pool.close()
    clock = FakeClock()
    outboxes = outbox(pool, ringing, "w1", clock=clock)
    with structlog.testing.capture_logs() as logs:
        async with running(outboxes):
            await eventually(lambda: len(clock.slept) > 10)
        await asyncio.wait_for(outboxes.step_down(), 60)

    assert ["outbox.failed"] == [line["event"] for line in logs]


# How many rings are in Redis, of which tenants, and in which order they are taken, on a real PostgreSQL and Valkey.


NONE: frozenset[Chore] = frozenset()
LATER_OF_MANY_TENANTS = """
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT 't' || n, 'e', 'a.b', now(), '', '' FROM generate_series(1, 600) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at)
SELECT tenant_id, hookseal.uuid7(), hookseal.uuid7(), id, now() + interval '1 h' FROM hookseal.events WHERE id = 'e'
"""


async def publish_for(pool: Pool, tenant: str, number: int) -> None:
    """Publish that many events to a new endpoint of this tenant, without a ring."""
    await rows.endpoint(pool, tenant)
    await rows.publish(pool, number, tenant)


class Unrung(UnrungRings):
    """At most ten rings are in Redis at once."""

    most_standing = 10

    def __init__(self, pool: Pool, ringing: Bell) -> None:
        self.clock = FakeClock()
        self.ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
        super().__init__(self.ledger, ringing, clock=self.clock, turns=BacklogTurns(self.clock))
        self._intake = Intake(ringing)

    async def look(self) -> Rung:
        return await self.ring(None, waited_seconds=0)

    async def take(self, number: int) -> list[Ring]:
        """Take and claim that many, as a worker does."""
        taken = (await self._intake.take(number, 0.01)).rings
        claimed = await self.ledger.claim_all(taken, None, most_bytes=2**25)
        assert len(taken) == len(claimed.claims)
        return taken


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_a_backlog_waits_in_postgresql(pool: Pool, ringing: Bell) -> None:
    """No more rings of a backlog are in Redis than allowed, until workers take some; then as many are added."""
    await publish_for(pool, "ant", 100)
    unrung = Unrung(pool, ringing)

    assert [Rung(10, has_more=True, chores=NONE), Rung(0, has_more=False)] == [await unrung.look() for _ in range(2)]
    await unrung.take(3)
    assert [Rung(3, has_more=True, chores=NONE), Rung(0, has_more=False)] == [await unrung.look() for _ in range(2)]
    assert 10 == await ringing.depth() == (await unrung.ledger.standing(100))[0]


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_one_look_rings_few(pool: Pool, ringing: Bell) -> None:
    """A worker rings a backlog in steps, the first of them small; each says that more is left."""
    await publish_for(pool, "ant", 3 * MOST_AT_ONCE)
    ledger, clock = PostgresLedger(pool, worker="w1", lease_seconds=45), FakeClock()
    unrung = UnrungRings(ledger, ringing, clock=clock, turns=BacklogTurns(clock))
    looks = [await unrung.ring(None, waited_seconds=0) for _ in range(5)]

    assert [50, 100, 200, MOST_AT_ONCE, 3 * MOST_AT_ONCE - 600] == [look.rings for look in looks]
    assert [*[True] * 4, False] == [look.has_more for look in looks]


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_a_look_rings_few_while_lanes_are_full(pool: Pool, ringing: Bell) -> None:
    """So long as a worker parks what the outbox rings, each look rings few, and not more and more."""
    await publish_for(pool, "ant", 3 * FEW_AT_ONCE)
    ledger, clock = PostgresLedger(pool, worker="w1", lease_seconds=45), FakeClock()
    turns = BacklogTurns(clock)
    unrung = UnrungRings(ledger, ringing, clock=clock, turns=turns)
    turns.parked()
    looks = [await unrung.ring(None, waited_seconds=0) for _ in range(3)]

    assert [FEW_AT_ONCE] * 3 == [look.rings for look in looks]


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_a_look_waits_for_its_turn(pool: Pool, ringing: Bell) -> None:
    """Its statement runs in a turn of its own, so that it does not run beside another one over a backlog."""
    clock = FakeClock()
    turns = BacklogTurns(clock)
    async with turns.turn():
        clock.elapsed += 0.04
    unrung = UnrungRings(PostgresLedger(pool, worker="w1", lease_seconds=45), ringing, clock=clock, turns=turns)
    await unrung.ring(None, waited_seconds=0)

    assert [0.04] == pytest.approx(clock.slept)


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_untaken_rings_delay_another_tenant_for_a_second(pool: Pool, ringing: Bell) -> None:
    """While the rings of one tenant reach the limit in Redis, each tenant gets one more ring a second."""
    await publish_for(pool, "ant", 100)
    unrung = Unrung(pool, ringing)
    await unrung.look()
    await publish_for(pool, "bee", 100)

    assert 0 == (await unrung.look()).rings
    for _ in range(3):
        unrung.clock.elapsed += FULL_SECONDS
        assert [Rung(2, has_more=False, chores=NONE), Rung(0, has_more=False)] == [
            await unrung.look() for _ in range(2)
        ]
    assert 16 == await ringing.depth()


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_unknown_rings_in_redis_stop_no_backlog(pool: Pool, ringing: Bell) -> None:
    """Rings that PostgreSQL does not know take no place of those that it knows."""
    await publish_for(pool, "ant", 100)
    await ringing.redis.zadd(ringing.queue, {f"other-{number}": 1 for number in range(1_000)})
    unrung = Unrung(pool, ringing)

    assert [10, 0] == [(await unrung.look()).rings for _ in range(2)]


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_what_producers_ring_takes_no_place(pool: Pool, ringing: Bell) -> None:
    """Deliveries whose producer rings them are not rung, and do not count among those that are in Redis."""
    await publish_for(pool, "ant", 1)
    await pool.execute("SELECT hookseal.publish('ant', 'a.b', '{}'::json, rings => true) FROM generate_series(1, 30)")
    await publish_for(pool, "bee", 100)
    rows = await pool.fetch("SELECT endpoint_id::text, id::text FROM hookseal.deliveries WHERE rung_at IS NOT NULL")
    rings = [Ring(tenant_id=TenantId("ant"), endpoint_id=row[0], delivery_id=row[1]) for row in rows]
    await ringing.ring(rings)
    unrung = Unrung(pool, ringing)

    assert [6, 4, 0] == [(await unrung.look()).rings for _ in range(3)]
    assert (40, 10) == (await ringing.depth(), (await unrung.ledger.standing(100))[0])


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_a_locked_backlog_is_left_to_the_next_look(pool: Pool, ringing: Bell) -> None:
    """While another transaction has locked all that is due, the looks end after a round or two of many tenants."""
    await publish_for(pool, "ant", 10)
    await publish_for(pool, "bee", 1)
    await pool.execute(LATER_OF_MANY_TENANTS)
    unrung = Unrung(pool, ringing)
    unrung.clock.elapsed += FULL_SECONDS
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries WHERE tenant_id IN ('ant', 'bee') FOR UPDATE")
        looks = [await unrung.look() for _ in range(7)]

    assert 0 == sum(look.rings for look in looks)
    assert False in {look.has_more for look in looks}
    assert 10 == sum([(await unrung.look()).rings for _ in range(4)])


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_an_emptied_redis_stops_no_backlog(pool: Pool, ringing: Bell) -> None:
    """Rings that Redis has lost take no place of those that it gets now."""
    await publish_for(pool, "ant", 100)
    unrung = Unrung(pool, ringing)
    await unrung.look()
    await ringing.redis.flushdb()

    assert 10 == (await unrung.look()).rings


@pytest.mark.usefixtures("begun_pool")
@pytest.mark.req("DEL-09")
async def test_a_tenant_with_few_rings_goes_before_a_backlog(pool: Pool, ringing: Bell) -> None:
    """The rings of a tenant with few deliveries are taken before a backlog that is in Redis already."""
    await publish_for(pool, "ant", 100)
    unrung = Unrung(pool, ringing)
    await unrung.look()
    await unrung.take(5)
    await publish_for(pool, "bee", 1)
    assert 3 == (await unrung.look()).rings

    assert ["bee", *["ant"] * 7] == [ring.tenant_id for ring in await unrung.take(8)]


# The listener: a publish notifies the outbox, on a real PostgreSQL.


END_THE_LISTENER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'listener'
"""


@asynccontextmanager
async def listening(url: str, wake: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(url, timeout=5, server_settings={"application_name": "listener"})

    made = Listening(connect, wake, clock=SystemClock(), log=structlog.get_logger())
    task = asyncio.create_task(made.loop.run())
    try:
        yield
        assert not task.done()
    finally:
        await cancelled([task])


async def notified(pool: Pool) -> None:
    await eventually(lambda: pool.fetchval("SELECT until > now() FROM hookseal.control WHERE name = 'notify'"))


@pytest.mark.req("DEL-01")
async def test_a_published_event_is_rung_at_once(pool: Pool, database_url: str, ringing: RecordingBell) -> None:
    """With a listener, an event published by SQL is rung at once, long before the next look of the outbox."""
    await rows.endpoint(pool)
    leader = outbox(pool, ringing, "w1")
    async with running(leader, poll_seconds=FAR_AWAY), listening(database_url, leader.wake):
        await notified(pool)
        await eventually(lambda: leader.leads)
        for number in (1, 2):
            await rows.publish(pool)
            await eventually_equals(number, lambda: len(ringing.rung))


async def test_notifications_are_requested_for_ten_seconds(pool: Pool, database_url: str) -> None:
    """The listener requests notifications for ten seconds at a time, so that they end soon after the listener."""
    async with listening(database_url):
        await notified(pool)
        left = await pool.fetchval("SELECT until - now() FROM hookseal.control WHERE name = 'notify'")

    assert timedelta(seconds=NOTICE_SECONDS - 5) < left <= timedelta(seconds=NOTICE_SECONDS)


async def test_a_lost_connection_is_replaced(pool: Pool, database_url: str) -> None:
    """If PostgreSQL ends the connection, a new one listens soon, and the outbox is woken for missed notifications."""
    await rows.endpoint(pool)
    woken = asyncio.Event()
    async with listening(database_url, woken.set):
        for _ in range(2):
            await notified(pool)
            woken.clear()
            await pool.execute(END_THE_LISTENER)
            await asyncio.wait_for(woken.wait(), 60)
            woken.clear()
            await rows.publish(pool)
            await asyncio.wait_for(woken.wait(), 60)


async def test_an_outage_is_logged_once(pool: Pool, database_url: str) -> None:
    """While the listener cannot connect it tries again and logs the outage once; then it logs that it listens again."""
    clock = FakeClock()

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        if len(clock.slept) < 5:
            raise ConnectionRefusedError("postgresql://user:hunter2@host/db")
        return await asyncpg.connect(database_url, timeout=5)

    wakes = list[None]()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(
            Listening(connect, lambda: wakes.append(None), clock=clock, log=structlog.get_logger()).loop.run()
        )
        await notified(pool)
        await cancelled([task])

    assert ["listen.failed", "listen.resumed"] == [line["event"] for line in logs]
    assert "hunter2" not in repr(logs)
    assert 1 == len(wakes)


def test_listening_is_off_by_default(database_url: str, redis_url: str) -> None:
    """Listening is off unless HOOKSEAL_LISTEN enables it."""
    assert [False, False, True] == [
        settings(database_url, redis_url, **changes).worker.listen
        for changes in ({}, {"HOOKSEAL_LISTEN": "false"}, {"HOOKSEAL_LISTEN": "true"})
    ]


# How much time statements over a backlog leave to deliveries.


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize(
    ("took", "passed", "waits"), [(0.04, 0.01, [0.03]), (9.0, 0.0, [LONGEST_PAUSE_SECONDS]), (1.0, 1.0, [])]
)
async def test_a_turn_leaves_as_much_time_as_it_took(*, took: float, passed: float, waits: list[float]) -> None:
    """The next turn begins no sooner after the last one than that one took, or 0.1 s."""
    clock = FakeClock()
    turns = BacklogTurns(clock)
    async with turns.turn():
        clock.elapsed += took
    clock.elapsed += passed
    async with turns.turn():
        pass

    assert waits == pytest.approx(clock.slept)


@pytest.mark.req("DEL-09")
async def test_a_turn_that_failed_leaves_time_too() -> None:
    """A statement that timed out is followed by a pause."""
    clock = FakeClock()
    turns = BacklogTurns(clock)
    with suppress(TimeoutError):
        async with turns.turn():
            clock.elapsed += 0.05
            raise TimeoutError
    async with turns.turn():
        pass

    assert [0.05] == pytest.approx(clock.slept)


@pytest.mark.req("DEL-09")
async def test_turns_do_not_overlap() -> None:
    """While one has its turn, the others wait, in the order in which they came."""
    turns, order = BacklogTurns(FakeClock()), list[str]()
    begun, end = asyncio.Event(), asyncio.Event()

    async def take(name: str) -> None:
        async with turns.turn():
            order.append(name)
            begun.set()
            await end.wait()

    both = asyncio.gather(take("first"), take("second"))
    await begun.wait()
    assert ["first"] == order
    end.set()
    await both
    assert ["first", "second"] == order
