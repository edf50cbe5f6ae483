"""The sweep, on a real PostgreSQL and Valkey."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import structlog
from redis.asyncio import Redis

from hookseal.dispatcher.core.model import Ring, State
from hookseal.dispatcher.store.ledger import SWEEP_BATCH, PostgresLedger
from hookseal.errors import Unavailable
from hookseal.queue.bell import MAX_QUEUED, Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.sweep import LOOKS, Sweep
from hookseal.worker.unrung import FULL_SECONDS
from tests.cli.listeners import closed_port
from tests.doubles.clock import FakeClock
from tests.doubles.stored import Installation, begin, begin_with_two_tenants
from tests.worker.figures import figures
from tests.worker.waiting import eventually

Pool = asyncpg.Pool
pytestmark = pytest.mark.usefixtures("begun_pool")
SECONDS = 15.0


class TurningClock(FakeClock):
    """Sleeps until the test sets `turn`; `asleep` is set while it sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = asyncio.Event()
        self.turn = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep until `turn` is set."""
        self.asleep.set()
        await self.turn.wait()
        self.asleep.clear()
        self.turn.clear()
        await super().sleep(seconds)


def sweep_of(ledger: PostgresLedger, ringing: Bell, clock: FakeClock, seconds: float = SECONDS) -> Sweep:
    """Return a sweep with this ledger."""
    turns, log = BacklogTurns(clock), structlog.get_logger()
    return Sweep(ledger, ringing, seconds=seconds, clock=clock, turns=turns, meter=WorkerMeter(), log=log)


def sweep(
    pool: "Pool[asyncpg.Record]",
    ringing: Bell,
    clock: FakeClock | None = None,
    *,
    ledger: PostgresLedger | None = None,
    seconds: float = SECONDS,
    leave_seconds: float = 0.0,
) -> Sweep:
    """Return the sweep of a worker, which by default leaves nothing to the outbox."""
    ledger = ledger or PostgresLedger(pool, worker="w1", lease_seconds=45)
    sweeping = sweep_of(ledger, ringing, clock or FakeClock(), seconds)
    sweeping.leave_seconds = leave_seconds
    return sweeping


async def queued(url: str) -> set[str]:
    """Return the ids in the queue; each of them has its job."""
    async with Redis.from_url(url) as client:
        ids = [member.decode() for member in await client.zrange(DEFAULT_QUEUE, 0, -1)]
        assert len(ids) == (await client.exists(*(f"arq:job:{each}" for each in ids)) if ids else 0)
    return set(ids)


async def three_deliveries(installation: Installation) -> set[Ring]:
    """Publish three events without a ring."""
    await installation.endpoint()
    return {ring for _ in range(3) for ring in await installation.deliveries()}


async def test_everything_due_is_rung(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A delivery without a ring is rung once, and not again while its ring may still be in Redis."""
    rings = await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing)

    with structlog.testing.capture_logs() as logs:
        assert (0, 3) == await sweeping.once()
        assert (0, 0) == await sweeping.once()
    assert {ring.delivery_id for ring in rings} == await queued(redis_url)
    assert [("sweep.rang", 3)] == [(line["event"], line["deliveries"]) for line in logs]
    await ringing.close()


@pytest.mark.req("DUR-01")
async def test_a_new_delivery_is_left_to_the_outbox(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """The sweep rings an unrung delivery only after two seconds, and does not count it as a ring that Redis lost."""
    rings = await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing, leave_seconds=Sweep.leave_seconds)

    assert (0, 0) == await sweeping.once()
    assert set() == await queued(redis_url)
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = now() - interval '2.1 seconds'")
    assert (0, 3) == await sweeping.once()
    assert {ring.delivery_id for ring in rings} == await queued(redis_url)
    await ringing.redis.flushdb()
    await pool.execute(AGED)
    assert (0, 3) == await sweeping.once()
    await ringing.close()

    found = figures(sweeping._meter)
    assert [3.0, 3.0] == [found["hookseal_rings_total", by] for by in ("outbox", "sweep")]


async def test_a_lost_ring_is_rung_again(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """If Redis was emptied, every due delivery is rung again one sweep later."""
    rings = await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing)
    await sweeping.once()
    await ringing.redis.flushdb()
    assert set() == await queued(redis_url)

    await pool.execute("UPDATE hookseal.deliveries SET rung_at = rung_at - make_interval(secs => $1)", SECONDS)
    assert (0, 3) == await sweeping.once()
    assert {ring.delivery_id for ring in rings} == await queued(redis_url)
    await ringing.close()


@pytest.mark.req("DUR-01")
async def test_the_sweep_rings_for_a_producer_that_died(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """What a producer promised to ring, and did not, is rung after one sweep, by the rules of the outbox."""
    await (await begin(pool)).endpoint()
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json, rings => true) FROM generate_series(1, 5)"
    )
    ringing = bell(redis_url)
    assert (0, 0) == await sweep(pool, ringing).once()

    sweeping = sweep(pool, ringing)
    sweeping._unrung.most_standing = 2
    await pool.execute(
        "UPDATE hookseal.deliveries SET created_at = created_at - make_interval(secs => $1),"
        " next_attempt_at = created_at - make_interval(secs => $1), rung_at = created_at - make_interval(secs => $1)",
        SECONDS,
    )
    with structlog.testing.capture_logs() as logs:
        assert (0, 2) == await sweeping.once()
    assert 2 == len(await queued(redis_url)) == await sweeping._ledger.standing(10)
    assert ("sweep.producer_rings_missing", 5) == (logs[0]["event"], logs[0]["deliveries"])
    assert 5.0 == figures(sweeping._meter)["hookseal_rings_total", "sweep"]
    await ringing.close()


@pytest.mark.req("DUR-01")
async def test_a_lost_ring_costs_at_most_one_sweep(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A delivery that is too young for one look is rung again at the next, at most one sweep after its ring."""
    rings = await three_deliveries(await begin(pool))
    clock = TurningClock()
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing, clock)
    running = asyncio.create_task(sweeping.run())
    await asyncio.wait_for(clock.asleep.wait(), 60)
    clock.turn.set()

    async def slept() -> bool:
        return bool(clock.slept)

    await eventually(slept)
    await asyncio.wait_for(clock.asleep.wait(), 60)
    running.cancel()
    await asyncio.wait({running})
    await ringing.redis.flushdb()
    between = clock.slept[0]
    age = (
        "UPDATE hookseal.deliveries"
        " SET rung_at = now() - make_interval(secs => $1), next_attempt_at = now() - interval '1 hour'"
    )
    await pool.execute(age, SECONDS - 2 * between - 0.001)
    assert (0, 0) == await sweeping.once()
    await pool.execute(age, SECONDS - between)
    assert (0, 3) == await sweeping.once()
    assert {ring.delivery_id for ring in rings} == await queued(redis_url)
    await ringing.close()


AGED = (
    "UPDATE hookseal.deliveries"
    " SET rung_at = now() - interval '1 minute', next_attempt_at = created_at - interval '1 hour'"
)


@pytest.mark.req("DUR-01")
async def test_a_backlog_that_is_queued_is_left_alone(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A delivery that is in the queue is not rung again, however long it waits; after Redis was emptied it is."""
    backlog = SWEEP_BATCH + 1
    await (await begin(pool)).endpoint()
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1::int)", backlog
    )
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing)
    assert (0, backlog) == await sweeping.once()
    await pool.execute(AGED)

    assert (0, 0) == await sweeping.once()
    await ringing.redis.flushdb()
    assert (0, backlog) == await sweeping.once()
    assert backlog == len(await queued(redis_url))
    await ringing.close()


@pytest.mark.req("DUR-01")
async def test_a_backlog_is_rung_no_faster_than_it_is_taken(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """The sweep puts a bounded number of rings into Redis; while they stay there, each tenant gets one a second."""
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " SELECT 'acme', hookseal.uuid7(), 'https://receiver.example/' || n, '{*}', 'old'"
        " FROM generate_series(1, 100) AS n"
    )
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1::int)",
        (MAX_QUEUED + 2 * SWEEP_BATCH) // 100,
    )
    ringing = bell(redis_url)
    clock = FakeClock()
    sweeping = sweep(pool, ringing, clock)

    assert [MAX_QUEUED, 0] == [await sweeping.ring_due() for _ in range(2)]
    clock.elapsed += FULL_SECONDS
    assert [1, 0] == [await sweeping.ring_due() for _ in range(2)]
    assert MAX_QUEUED + 1 == len(await queued(redis_url))
    await ringing.close()


@pytest.mark.req("DUR-01")
@pytest.mark.parametrize(
    "alter_ring",
    [
        pytest.param(lambda redis, each: redis.zrem(DEFAULT_QUEUE, each), id="lost"),
        pytest.param(lambda redis, each: redis.zadd(DEFAULT_QUEUE, {each: 4e12}), id="for-a-century-later"),
    ],
)
async def test_an_unusable_ring_is_rung_again(
    alter_ring: Callable[[Any, str], Awaitable[object]], pool: "Pool[asyncpg.Record]", redis_url: str
) -> None:
    """A sweep rings an old delivery again only if its ring is missing or cannot be taken."""
    ring, *_ = await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing)
    assert (0, 3) == await sweeping.once()
    await pool.execute(AGED)
    await alter_ring(ringing.redis, ring.delivery_id)

    assert (0, 1) == await sweeping.once()
    assert 4e12 > (await ringing.redis.zscore(DEFAULT_QUEUE, ring.delivery_id) or 4e12)
    assert 3 == len(await queued(redis_url))
    await ringing.close()


@pytest.mark.req("DUR-01")
async def test_a_lost_ring_behind_a_backlog_is_rung_again(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A lost ring is rung again, though Redis has many older ones; a look ends when it has found `most_found`."""
    await begin_with_two_tenants(pool)
    publish = "SELECT hookseal.publish($1, 'a.b', '{}'::json, rings => true) FROM generate_series(1, $2::int)"
    await pool.execute(publish, "acme", 3 * SWEEP_BATCH)
    await pool.execute(publish, "globex", 1)
    await pool.execute(AGED)
    rows = await pool.fetch("SELECT tenant_id, endpoint_id::text, id::text AS delivery_id FROM hookseal.deliveries")
    ringing = bell(redis_url)
    await ringing.ring([Ring(**row) for row in rows if row["tenant_id"] == "acme"])
    sweeping = sweep(pool, ringing)

    sweeping.most_found = 3 * SWEEP_BATCH
    assert 0 == await sweeping.ring_due()
    sweeping.most_found = Sweep.most_found
    assert 1 == await sweeping.ring_due()
    assert {row["delivery_id"] for row in rows} == await queued(redis_url)
    await ringing.close()


async def test_a_lost_lease_is_ended_and_rung(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """The delivery of a dead worker is due and rung in the same sweep, and its attempt is recorded as unknown."""
    installation = await begin(pool)
    await installation.endpoint()
    [lost] = await installation.deliveries()
    [held] = await installation.deliveries()
    assert await PostgresLedger(pool, worker="dead", lease_seconds=0).claim(lost)
    assert await PostgresLedger(pool, worker="alive", lease_seconds=45).claim(held)
    ringing = bell(redis_url)

    assert (1, 1) == await sweep(pool, ringing).once()
    assert {lost.delivery_id} == await queued(redis_url)
    assert [("unknown", "dead")] == [(row["outcome"], row["worker"]) for row in await installation.attempts(lost)]
    assert [] == await installation.attempts(held)
    await ringing.close()


async def test_ended_leases_and_rings_are_counted(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """Ended leases, the dead letters among them and the rings of a sweep are counted."""
    installation = await begin(pool)
    await installation.endpoint()
    dead = PostgresLedger(pool, worker="dead", lease_seconds=0)
    for spent in (0, 10):
        [ring] = await installation.deliveries()
        await pool.execute(
            "UPDATE hookseal.deliveries SET budget_spent = $1 WHERE id = $2::text::uuid", spent, ring.delivery_id
        )
        assert await dead.claim(ring)
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing)
    with structlog.testing.capture_logs() as logs:
        assert (2, 1) == await sweeping.once()
    await ringing.close()

    assert ("sweep.took_back", 2, 1) == tuple(logs[0][name] for name in ("event", "leases", "dead_letters"))
    found = figures(sweeping._meter)
    assert [2.0, 1.0, 0.0, 1.0] == [
        found[key]
        for key in (
            ("hookseal_leases_taken_back_total", None),
            ("hookseal_dead_letters_total", None),
            ("hookseal_rings_total", "sweep"),
            ("hookseal_rings_total", "outbox"),
        )
    ]


async def test_one_sweep_rings_several_batches(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """One sweep rings all due deliveries, once each, even if they are more than one batch."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1::int)", SWEEP_BATCH + 1
    )
    ringing = bell(redis_url)

    assert (0, SWEEP_BATCH + 1) == await sweep(pool, ringing).once()
    assert SWEEP_BATCH + 1 == len(await queued(redis_url))
    await ringing.close()


async def test_an_outage_is_survived(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """While Redis does not answer, that is logged once and the loop continues; afterwards the deliveries are rung."""
    await three_deliveries(await begin(pool))
    clock = TurningClock()
    port = closed_port()
    ringing = bell(f"redis://127.0.0.1:{port}/0")
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(sweep(pool, ringing, clock).run())
        for _ in range(2):
            await asyncio.wait_for(clock.asleep.wait(), 60)
            await pool.execute("UPDATE hookseal.deliveries SET rung_at = NULL")
            clock.asleep.clear()
            clock.turn.set()
        await asyncio.wait_for(clock.asleep.wait(), 60)
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})
    await ringing.close()

    assert [("sweep.failed", "ring_due")] == [(line["event"], line["half"]) for line in logs]
    assert [SECONDS / LOOKS] * 2 == clock.slept
    await pool.execute("UPDATE hookseal.deliveries SET rung_at = rung_at - make_interval(secs => $1)", SECONDS)
    restored = bell(redis_url)
    assert (0, 3) == await sweep(pool, restored).once()
    await restored.close()


async def test_a_defect_is_survived() -> None:
    """Any error in a sweep is logged, and the next sweep runs."""
    errors = [KeyError("a column"), Unavailable("PostgreSQL does not answer"), ValueError("?")]

    class Broken(PostgresLedger):
        async def end_lost_leases(self) -> list[State]:
            raise errors.pop(0)

    clock = TurningClock()
    ringing = bell(f"redis://127.0.0.1:{closed_port()}/0")
    ledger = Broken.__new__(Broken)
    with structlog.testing.capture_logs() as logs:
        sweeping = sweep_of(ledger, ringing, clock)
        running = asyncio.create_task(sweeping.run())
        for _ in range(2):
            await asyncio.wait_for(clock.asleep.wait(), 60)
            clock.asleep.clear()
            clock.turn.set()
        await asyncio.wait_for(clock.asleep.wait(), 60)
        running.cancel()
        await asyncio.wait({running})
    await ringing.close()

    halves = [line["event"] for line in logs if line["half"] == "take_back"]
    assert ["sweep.defect", "sweep.failed", "sweep.defect"] == halves


async def test_a_failed_lease_search_stops_no_ring(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """If expired leases cannot be ended, due deliveries are rung nevertheless."""

    class Broken(PostgresLedger):
        async def end_lost_leases(self) -> list[State]:
            raise ValueError

    await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    broken = Broken(pool, worker="w", lease_seconds=45)
    with structlog.testing.capture_logs():
        assert (None, 3) == await sweep(pool, ringing, ledger=broken).once()
    await ringing.close()


async def test_a_slow_sweep_ends(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A sweep that takes longer than its period rings nothing twice, and ends."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1::int)", SWEEP_BATCH + 1
    )
    ringing = bell(redis_url)

    assert SWEEP_BATCH + 1 == await asyncio.wait_for(sweep(pool, ringing, seconds=0.001).ring_due(), 60)
    await ringing.close()


@pytest.mark.req("DUR-04")
async def test_no_lease_is_ended_while_others_may_record(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """While leases may not be ended the sweep only rings; a failed sweep is reported, so that the next one waits."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    expired = PostgresLedger(pool, worker="w2", lease_seconds=0)
    assert await expired.claim(ring)
    ringing, may_end, failed = bell(redis_url), False, list[bool]()

    def sweeping(ledger: PostgresLedger) -> Sweep:
        return Sweep(
            ledger,
            ringing,
            seconds=SECONDS,
            clock=FakeClock(),
            turns=BacklogTurns(FakeClock()),
            meter=WorkerMeter(),
            log=structlog.get_logger(),
            may_end=lambda: may_end,
            failed=lambda: failed.append(True),
        )

    assert (0, 0) == await sweeping(expired).once()
    assert "sending" == (await installation.delivery(ring))["state"]
    may_end = True
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("LOCK TABLE hookseal.attempts IN ACCESS EXCLUSIVE MODE")
        async with pool.acquire() as impatient:
            await impatient.execute("SET lock_timeout = '10ms'")
            blocked = PostgresLedger(impatient, worker="w2", lease_seconds=0)
            with pytest.raises(Unavailable):
                await sweeping(blocked).take_back()
    assert [True] == failed
    assert 1 == await sweeping(expired).take_back()
    await ringing.close()
