"""The outbox: one worker rings the unrung deliveries, on a real PostgreSQL and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.ledger import SWEEP_BATCH, Chore, PostgresLedger
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock, SystemClock
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.chores import FRESH_SECONDS, BacklogTurns
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outbox import POLL_SECONDS, QUIET_AFTER_SECONDS, QUIET_POLL_SECONDS, Lease, Outbox
from hookseal.worker.run import cancelled
from hookseal.worker.unrung import UnrungRings
from tests.doubles.clock import FakeClock
from tests.doubles.virtual_clock import VirtualClock
from tests.worker.figures import figures
from tests.worker.producer import publish, subscribe
from tests.worker.waiting import eventually

Pool = asyncpg.Pool
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
        """Ring."""
        self.tries += 1
        if self.broken:
            raise Unavailable("Redis does not answer (ConnectionError)")
        noted = list(rings)
        self.rung += [ring.delivery_id for ring in noted]
        return await super().ring(noted, backlogged=backlogged)

    async def ping(self) -> None:
        """Answer."""
        self.tries += 1
        if self.broken:
            raise Unavailable("Redis does not answer (ConnectionError)")
        await super().ping()


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[RecordingBell]:
    """Yield a bell on the queue of this test."""
    made = RecordingBell(redis_url)
    yield made
    await made.close()


def outbox(
    pool: "Pool[asyncpg.Record]", ringing: Bell, holder: str, *, seconds: float = 10, clock: Clock | None = None
) -> Outbox:
    """Return the outbox of a worker."""
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
    """Run these outboxes during the block."""
    tasks = [asyncio.create_task(each.run(poll_seconds=poll_seconds)) for each in outboxes]
    try:
        yield
        assert [] == [task for task in tasks if task.done()]
    finally:
        await cancelled(tasks)


@pytest.mark.req("DEL-01")
async def test_an_unrung_delivery_is_rung_once(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """Deliveries of events published by SQL are put into the queue once, and are counted."""
    await subscribe(pool)
    ids = await publish(pool, 3)
    leader = outbox(pool, ringing, "w1")

    assert [3, 0] == [await rings(leader, ringing) for _ in range(2)]
    assert sorted(ids) == sorted(ringing.rung)
    assert ids == {member.decode() for member in await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)}
    assert 3.0 == figures(leader._meter)["hookseal_rings_total", "outbox"]


async def test_a_publisher_has_time_to_ring(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """A delivery that has just become due is left to its publisher."""
    await subscribe(pool)
    await publish(pool, 1)
    leader = outbox(pool, ringing, "w1")

    assert 0 == await rings(leader, ringing, waited_seconds=60)
    assert 1 == await rings(leader, ringing)


async def test_a_look_says_for_half_a_second_what_else_there_is_to_do(
    pool: "Pool[asyncpg.Record]", ringing: RecordingBell
) -> None:
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


async def test_it_begins_a_moment_after_the_worker(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """At the start it leaves what is due to the worker, which takes the rings that stand in Redis; then it looks."""
    await subscribe(pool)
    ids = await publish(pool, 3)
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = now() - interval '1 h'")
    clock = VirtualClock()
    task = asyncio.create_task(outbox(pool, ringing, "w1", clock=clock).run())
    await clock.run(0.9 * QUIET_POLL_SECONDS, sleepers=1)
    assert [] == ringing.rung
    await clock.run(0.1 * QUIET_POLL_SECONDS, sleepers=1)
    assert ids == set(ringing.rung)
    await cancelled([task])


async def test_the_outbox_polls_slowly_without_work(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """After a ring the outbox polls fast for ten seconds, and then as slowly as before."""
    await subscribe(pool)
    clock = FakeClock()
    task = asyncio.create_task(outbox(pool, ringing, "w1", clock=clock).run())

    async def is_calm() -> bool:
        return [QUIET_POLL_SECONDS] * 3 == clock.slept[-3:]

    async def is_busy() -> bool:
        return POLL_SECONDS in clock.slept

    try:
        await eventually(is_calm)
        assert not await is_busy()
        await publish(pool, 1)
        await eventually(is_busy)
        await eventually(is_calm)
    finally:
        await cancelled([task])
    assert 1 == len(ringing.rung)
    assert QUIET_AFTER_SECONDS == pytest.approx(POLL_SECONDS * clock.slept.count(POLL_SECONDS), abs=2 * POLL_SECONDS)


async def test_one_of_two_workers_leads(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """Of two workers one leads; the other rings nothing until the leader steps down, and then leads at once."""
    await subscribe(pool)
    clock = FakeClock()
    first, second = (outbox(pool, ringing, name, clock=clock) for name in ("w1", "w2"))
    await publish(pool, 1)

    with structlog.testing.capture_logs() as logs:
        assert [0, 0] == [await rings(second, ringing, waited_seconds=60), await rings(first, ringing)]
        assert (False, True) == (first.leads, second.leads)
        await second.step_down()
        clock.elapsed += 2
        assert 1 == await rings(first, ringing)
    assert (True, False) == (first.leads, second.leads)
    assert ["outbox.leads", "outbox.leads"] == [line["event"] for line in logs]
    assert "w1" == await pool.fetchval("SELECT holder FROM hookseal.control WHERE name = 'outbox'")


async def test_a_frozen_leader_is_replaced(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """A frozen leader is replaced when its lease has expired, and rings nothing, although it believes that it leads."""
    await subscribe(pool)
    frozen = outbox(pool, ringing, "w1", seconds=0.5, clock=FakeClock())
    await frozen.once()
    async with running(outbox(pool, ringing, "w2")):

        async def is_led_by_w2() -> bool:
            return bool(await pool.fetchval("SELECT holder = 'w2' FROM hookseal.control WHERE name = 'outbox'"))

        await eventually(is_led_by_w2)
        assert frozen.leads
        ids = await publish(pool, 1)
        assert 0 == await frozen.once(waited_seconds=0)

        async def rung() -> bool:
            return ids == set(ringing.rung)

        await eventually(rung)
    assert 1 == len(ringing.rung)


async def test_a_replaced_leader_has_no_valid_token(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """A leader keeps its token while it renews. The next one has another: the old one then rings nothing."""
    await subscribe(pool)
    first, second = Lease(pool, holder="w1"), Lease(pool, holder="w2")
    old = await first.take()
    assert old is not None
    assert (old, None) == (await first.take(), await second.take())
    await pool.execute("UPDATE hookseal.control SET until = now() WHERE name = 'outbox'")
    assert await second.take() not in {None, old}

    await publish(pool, 1)
    ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
    assert [] == (await ledger.ring_unrung(old, waited_seconds=0)).rings


async def test_a_leader_that_cannot_renew_stops_leading(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """A leader that cannot renew its lease stops leading by its own clock when the lease has expired."""
    clock = FakeClock()
    leader = outbox(pool, ringing, "w1", clock=clock)
    await leader.once()
    states = []
    for _ in range(2):
        states.append(leader.leads)
        clock.elapsed += 10

    assert [True, False] == states


async def test_two_workers_ring_once(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """Every delivery is rung once, however many workers run."""
    await subscribe(pool)
    async with running(*(outbox(pool, ringing, f"w{number}", seconds=0.5) for number in range(3))):
        ids = set[str]()
        for _ in range(10):
            ids |= await publish(pool, 20)

        async def all_rung() -> bool:
            return len(ids) <= len(ringing.rung)

        await eventually(all_rung)

    assert sorted(ids) == sorted(ringing.rung)


async def test_batches_are_rung_without_a_pause(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """More than one batch is rung without waiting for the next look."""
    await subscribe(pool)
    await publish(pool, SWEEP_BATCH + 1)
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = next_attempt_at - interval '1 minute'")
    async with running(outbox(pool, ringing, "w1"), poll_seconds=FAR_AWAY):

        async def all_rung() -> bool:
            return SWEEP_BATCH + 1 == len(ringing.rung)

        await eventually(all_rung)


async def test_a_wake_rings_at_once(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """After `wake` the leader rings at once, without waiting for its next look or for the publisher."""
    await subscribe(pool)
    leader = outbox(pool, ringing, "w1")
    async with running(leader, poll_seconds=FAR_AWAY):

        async def leads() -> bool:
            return leader.leads

        await eventually(leads)
        ids = await publish(pool, 1)
        leader.wake()

        async def rung() -> bool:
            return ids == set(ringing.rung)

        await eventually(rung)


async def test_an_outage_of_redis_is_logged_once(pool: "Pool[asyncpg.Record]", ringing: RecordingBell) -> None:
    """An outage of Redis is logged once; deliveries that are published meanwhile are rung after it, none twice."""
    await subscribe(pool)
    ringing.broken = True
    lost = await publish(pool, 1)
    with structlog.testing.capture_logs() as logs:
        async with running(outbox(pool, ringing, "w1", clock=FakeClock())):

            async def tried_often() -> bool:
                return ringing.tries > 10

            await eventually(tried_often)
            kept = await publish(pool, 5)
            tries = ringing.tries

            async def tried_again() -> bool:
                return ringing.tries > tries + 5

            await eventually(tried_again)
            ringing.broken = False

            async def resumed() -> bool:
                return kept <= set(ringing.rung) and logs[-1]["event"] == "outbox.resumed"

            await eventually(resumed)

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

            async def tried_often() -> bool:
                return len(clock.slept) > 10

            await eventually(tried_often)
        await asyncio.wait_for(outboxes.step_down(), 60)

    assert ["outbox.failed"] == [line["event"] for line in logs]
