"""The sweep, on a real PostgreSQL and Valkey."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import structlog
from redis.asyncio import Redis

from hookseal.dispatcher.ledger import SWEEP_BATCH, PostgresLedger
from hookseal.dispatcher.model import Ring, State
from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import Unavailable
from hookseal.queue.bell import DEFAULT_QUEUE, Bell, bell
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.sweep import LOOKS, Sweep
from tests.cli.listeners import closed_port
from tests.doubles.clock import FakeClock
from tests.doubles.stored import Installation, begin
from tests.worker.figures import figures
from tests.worker.waiting import eventually

Pool = asyncpg.Pool
SECONDS = 15.0


class TurningClock(FakeClock):
    """Sleeps until it is told to turn; `asleep` is set while it sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = asyncio.Event()
        self.turn = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Sleep until the turn."""
        self.asleep.set()
        await self.turn.wait()
        self.asleep.clear()
        self.turn.clear()
        await super().sleep(seconds)


def sweep(pool: "Pool[asyncpg.Record]", ringing: Bell, clock: FakeClock | None = None) -> Sweep:
    """Return the sweep of a worker."""
    ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
    return Sweep(
        ledger, ringing, seconds=SECONDS, clock=clock or FakeClock(), meter=WorkerMeter(), log=structlog.get_logger()
    )


async def queued(url: str) -> set[str]:
    """Return the ids in the queue, each of which has its job."""
    async with Redis.from_url(url) as client:
        ids = [member.decode() for member in await client.zrange(DEFAULT_QUEUE, 0, -1)]
        assert len(ids) == (await client.exists(*(f"arq:job:{each}" for each in ids)) if ids else 0)
    return set(ids)


async def three_deliveries(installation: Installation) -> set[Ring]:
    """Publish three events that nobody rang."""
    await installation.endpoint()
    return {ring for _ in range(3) for ring in await installation.deliveries()}


async def test_everything_due_is_rung(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """What was published without a ring is rung once; nothing is rung again while its ring may still be there."""
    rings = await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing)

    with structlog.testing.capture_logs() as logs:
        assert (0, 3) == await sweeping.once()
        assert (0, 0) == await sweeping.once()
    assert {ring.delivery_id for ring in rings} == await queued(redis_url)
    assert [("sweep.rang", 3)] == [(line["event"], line["deliveries"]) for line in logs]
    await ringing.close()


async def test_what_redis_lost_is_rung_again(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """Redis may be emptied: one sweep later every due delivery is rung again."""
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
async def test_a_lost_ring_costs_at_most_one_sweep(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """What a look finds just too young to be rung again is old enough at the next, at most one sweep after its ring."""
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
    """However long a backlog waits, what is in the queue is not rung again; all of it is once Redis was emptied."""
    backlog = 2 * SWEEP_BATCH + 1
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
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda redis, each: redis.zrem(DEFAULT_QUEUE, each), id="lost"),
        pytest.param(lambda redis, each: redis.zadd(DEFAULT_QUEUE, {each: 4e12}), id="for-a-century-later"),
    ],
)
async def test_a_ring_that_nobody_may_take_is_given_again(
    spoil: Callable[[Any, str], Awaitable[object]], pool: "Pool[asyncpg.Record]", redis_url: str
) -> None:
    """Of what was rung long ago, a sweep rings again that which nobody may take, and nothing else."""
    ring, *_ = await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    sweeping = sweep(pool, ringing)
    assert (0, 3) == await sweeping.once()
    await pool.execute(AGED)
    await spoil(ringing.redis, ring.delivery_id)

    assert (0, 1) == await sweeping.once()
    assert 4e12 > (await ringing.redis.zscore(DEFAULT_QUEUE, ring.delivery_id) or 4e12)
    assert 3 == len(await queued(redis_url))
    await ringing.close()


async def test_a_lost_lease_is_ended_and_rung(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """What a dead worker held is due again and rung in the same sweep, and its attempt is on record as unknown."""
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


async def test_what_is_taken_back_and_rung_is_counted(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """Leases that were ended are counted, the dead letters among them too, and so is what was rung after that."""
    installation = await begin(pool)
    await installation.endpoint()
    dead = PostgresLedger(pool, worker="dead", lease_seconds=0)
    for spent in (0, 9):
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
    assert [2.0, 1.0, 1.0, 0.0] == [
        found[key]
        for key in (
            ("hookseal_leases_taken_back_total", None),
            ("hookseal_dead_letters_total", None),
            ("hookseal_rings_total", "sweep"),
            ("hookseal_rings_total", "outbox"),
        )
    ]


async def test_more_than_one_batch(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """However much is due, one sweep rings all of it, each once."""
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
    """While Redis does not answer the sweep says so and goes on; once it answers, what was missed is rung."""
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

    assert ["sweep.failed"] * 3 == [line["event"] for line in logs]
    assert [SECONDS / LOOKS] * 2 == clock.slept
    await pool.execute("UPDATE hookseal.deliveries SET rung_at = rung_at - make_interval(secs => $1)", SECONDS)
    mended = bell(redis_url)
    assert (0, 3) == await sweep(pool, mended).once()
    await mended.close()


async def test_a_defect_is_survived() -> None:
    """Whatever goes wrong in one sweep is told, and the next one comes."""
    errors = [KeyError("a column"), Unavailable("PostgreSQL does not answer"), ValueError("?")]

    class Broken(PostgresLedger):
        async def end_lost_leases(self) -> list[State]:
            raise errors.pop(0)

    clock = TurningClock()
    ringing = bell(f"redis://127.0.0.1:{closed_port()}/0")
    ledger = Broken.__new__(Broken)
    with structlog.testing.capture_logs() as logs:
        sweeping = Sweep(ledger, ringing, seconds=SECONDS, clock=clock, meter=WorkerMeter(), log=structlog.get_logger())
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


async def test_one_half_does_not_hold_up_the_other(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """If leases cannot be taken back, what is due is rung all the same."""

    class Broken(PostgresLedger):
        async def end_lost_leases(self) -> list[State]:
            raise ValueError

    await three_deliveries(await begin(pool))
    ringing = bell(redis_url)
    broken = Broken(pool, worker="w", lease_seconds=45)
    with structlog.testing.capture_logs():
        sweeping = Sweep(
            broken, ringing, seconds=SECONDS, clock=SystemClock(), meter=WorkerMeter(), log=structlog.get_logger()
        )
        assert (None, 3) == await sweeping.once()
    await ringing.close()


async def test_a_slow_sweep_ends(pool: "Pool[asyncpg.Record]", redis_url: str) -> None:
    """A sweep that takes longer than its own period rings nothing twice, so that it comes to an end."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, $1::int)", SWEEP_BATCH + 1
    )
    ringing = bell(redis_url)
    ledger = PostgresLedger(pool, worker="w", lease_seconds=45)
    sweeping = Sweep(
        ledger, ringing, seconds=0.001, clock=SystemClock(), meter=WorkerMeter(), log=structlog.get_logger()
    )

    assert SWEEP_BATCH + 1 == await asyncio.wait_for(sweeping.ring_due(), 60)
    await ringing.close()
