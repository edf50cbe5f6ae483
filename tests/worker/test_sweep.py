"""The sweep, on a real PostgreSQL and Valkey."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from hookseal.dispatcher.core.looks import MOST_PAUSE, LookStart
from hookseal.dispatcher.core.model import Ring, State
from hookseal.dispatcher.store.ledger import SWEEP_BATCH, PostgresLedger, Unrung
from hookseal.errors import Unavailable
from hookseal.ground.clock import Clock
from hookseal.postgres.pool import Executor, Pool
from hookseal.queue.bell import MAX_QUEUED, Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.chores import BacklogTurns
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outbox import FULL_SECONDS
from hookseal.worker.run import cancelled
from hookseal.worker.sweep import LOOKS, Sweep
from tests import rows
from tests.cli.listeners import closed_port
from tests.doubles.clock import FakeClock, StallingClock, TurningClock
from tests.doubles.stored import Installation
from tests.worker.figures import figures

SECONDS = 15.0
AGED = {"rung_at": rows.ago(minutes=1), "next_attempt_at": rows.Sql("created_at - interval '1 hour'")}
_EARLIER = f"%s - interval '{SECONDS} s'"


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[Bell]:
    made = bell(redis_url)
    yield made
    await made.close()


def ledger_of(source: Executor, worker: str = "w1", *, lease_seconds: int = 45) -> PostgresLedger:
    return PostgresLedger(source, worker=worker, lease_seconds=lease_seconds)


def sweep(ledger: PostgresLedger, ringing: Bell, clock: Clock | None = None, **changes: Any) -> Sweep:
    """Return the sweep of a worker, which leaves nothing to the outbox."""
    clock = clock or FakeClock()
    made = {"seconds": SECONDS, "turns": BacklogTurns(clock), "meter": WorkerMeter(), "log": structlog.get_logger()}
    sweeping = Sweep(ledger, ringing, clock=clock, **made | changes)
    sweeping.leave_seconds = 0.0
    return sweeping


async def unrung(pool: Pool, number: int = 3) -> set[str]:
    """Publish that many events to one endpoint, without a ring; return the deliveries."""
    await rows.endpoint(pool)
    return set(await rows.publish(pool, number))


async def queued(ringing: Bell) -> set[str]:
    """Return the ids in the queue; each of them has its job."""
    client: Redis = ringing.redis
    ids = [member.decode() for member in await client.zrange(DEFAULT_QUEUE, 0, -1)]
    assert len(ids) == (await client.exists(*(f"arq:job:{each}" for each in ids)) if ids else 0)
    return set(ids)


async def test_everything_due_is_rung(pool: Pool, ringing: Bell) -> None:
    """A delivery without a ring is rung once, and not again while its ring may still be in Redis."""
    ids = await unrung(pool)
    sweeping = sweep(ledger_of(pool), ringing)
    with structlog.testing.capture_logs() as logs:
        assert [(0, 3), (0, 0)] == [await sweeping.once() for _ in range(2)]
    assert ids == await queued(ringing)
    assert [("sweep.rang", 3)] == [(line["event"], line["deliveries"]) for line in logs]


@pytest.mark.req("DUR-01")
async def test_a_new_delivery_is_left_to_the_outbox(pool: Pool, ringing: Bell) -> None:
    """The sweep rings an unrung delivery only after two seconds, and does not count it as a ring that Redis lost."""
    ids = await unrung(pool)
    sweeping = sweep(ledger_of(pool), ringing)
    sweeping.leave_seconds = Sweep.leave_seconds

    assert (0, 0) == await sweeping.once()
    assert set() == await queued(ringing)
    await rows.change(pool, "deliveries", next_attempt_at=rows.ago(seconds=2.1))
    assert (0, 3) == await sweeping.once()
    assert ids == await queued(ringing)
    await ringing.redis.flushdb()
    await rows.change(pool, "deliveries", **AGED)
    assert (0, 3) == await sweeping.once()
    found = figures(sweeping._meter)
    assert [3.0, 3.0] == [found["hookseal_rings_total", by] for by in ("outbox", "sweep")]


async def test_a_lost_ring_is_rung_again(pool: Pool, ringing: Bell) -> None:
    """If Redis was emptied, every due delivery is rung again one sweep later."""
    ids = await unrung(pool)
    sweeping = sweep(ledger_of(pool), ringing)
    await sweeping.once()
    await ringing.redis.flushdb()
    await rows.change(pool, "deliveries", rung_at=rows.Sql(_EARLIER % "rung_at"))
    assert (0, 3) == await sweeping.once()
    assert ids == await queued(ringing)


@pytest.mark.req("DUR-01")
async def test_the_sweep_rings_for_a_producer_that_died(pool: Pool, ringing: Bell) -> None:
    """What a producer promised to ring, and did not, is rung after one sweep, by the rules of the outbox."""
    await rows.endpoint(pool)
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json, rings => true) FROM generate_series(1, 5)"
    )
    assert (0, 0) == await sweep(ledger_of(pool), ringing).once()
    sweeping = sweep(ledger_of(pool), ringing)
    sweeping._unrung.most_standing = 2
    earlier = rows.Sql(_EARLIER % "created_at")
    await rows.change(pool, "deliveries", created_at=earlier, next_attempt_at=earlier, rung_at=earlier)
    with structlog.testing.capture_logs() as logs:
        assert (0, 2) == await sweeping.once()
    assert 2 == len(await queued(ringing)) == (await sweeping._ledger.standing(10))[0]
    assert ("sweep.producer_rings_missing", 5) == (logs[0]["event"], logs[0]["deliveries"])
    assert 5.0 == figures(sweeping._meter)["hookseal_rings_total", "sweep"]


@pytest.mark.req("DUR-01")
async def test_a_sweep_that_begins_later_finds_lost_rings(pool: Pool, ringing: Bell) -> None:
    """A look that begins where the last one ended rings again what is lost since, of producers as well."""
    clock = StallingClock(seconds=0.4)
    sweeping = sweep(ledger_of(pool), ringing, clock)
    assert (0, 0) == await sweeping.once()
    clock.elapsed += MOST_PAUSE
    await rows.endpoint(pool)
    await pool.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json, rings => true)")
    await rows.change(
        pool, "deliveries", **dict.fromkeys(("created_at", "next_attempt_at", "rung_at"), rows.ago(hours=1))
    )
    ids = await pool.fetchrow(
        "SELECT tenant_id, endpoint_id::text AS endpoint_id, id::text AS delivery_id FROM hookseal.deliveries"
    )
    await ringing.ring([Ring(**dict(ids or {}))])
    assert (0, 0) == await sweeping.once()
    clock.stalls = False  # no whole look comes again

    await ringing.redis.flushdb()
    assert (0, 1) == await sweeping.once()
    await ringing.redis.flushdb()
    await rows.change(pool, "deliveries", rung_at=rows.ago(minutes=1))
    assert (0, 1) == await sweeping.once()
    assert 1 == len(await queued(ringing))


class RungByTheLeader(PostgresLedger):
    """Before a sweep looks for what is unrung, the leader marks all of it as rung, and its rings are lost."""

    async def ring_unrung(self, *arguments: Any, **named: Any) -> Unrung:
        await super().ring_unrung(None, waited_seconds=0)
        return await super().ring_unrung(*arguments, **named)


@pytest.mark.req("DUR-01")
async def test_a_sweep_that_begins_later_finds_what_the_leader_rang_meanwhile(pool: Pool, ringing: Bell) -> None:
    """What was rung between the two halves of a sweep, and lost, is rung by the next one."""
    await unrung(pool)
    await rows.change(pool, "deliveries", next_attempt_at=rows.ago(minutes=1))
    clock = StallingClock(seconds=0.4)
    sweeping = sweep(RungByTheLeader(pool, worker="w1", lease_seconds=45), ringing, clock)
    assert (0, 0) == await sweeping.once()
    clock.stalls = False  # no whole look comes again

    await rows.change(pool, "deliveries", rung_at=rows.ago(minutes=1))
    assert (0, 3) == await sweeping.once()


@pytest.mark.req("DUR-01")
async def test_a_lost_ring_costs_at_most_one_sweep(pool: Pool, ringing: Bell) -> None:
    """A delivery that is too young for one look is rung again at the next, at most one sweep after its ring."""
    ids = await unrung(pool)
    clock = TurningClock()
    sweeping = sweep(ledger_of(pool), ringing, clock)
    running = asyncio.create_task(sweeping.loop.run())
    await clock.asleep(1)
    await clock.turn()
    await cancelled([running])
    await ringing.redis.flushdb()
    between, due = clock.slept[0], rows.ago(hours=1)
    too_young = rows.ago(seconds=SECONDS - 2 * between - 0.001)
    await rows.change(pool, "deliveries", rung_at=too_young, next_attempt_at=due)
    assert (0, 0) == await sweeping.once()
    await rows.change(pool, "deliveries", rung_at=rows.ago(seconds=SECONDS - between), next_attempt_at=due)
    assert (0, 3) == await sweeping.once()
    assert ids == await queued(ringing)


@pytest.mark.req("DUR-01")
async def test_a_backlog_that_is_queued_is_left_alone(pool: Pool, ringing: Bell) -> None:
    """All of it is rung by one sweep, in several batches. What is queued is not rung again, until Redis was emptied."""
    backlog = SWEEP_BATCH + 1
    await unrung(pool, backlog)
    sweeping = sweep(ledger_of(pool), ringing)
    assert (0, backlog) == await sweeping.once()
    await rows.change(pool, "deliveries", **AGED)
    assert (0, 0) == await sweeping.once()
    await ringing.redis.flushdb()
    assert (0, backlog) == await sweeping.once()
    assert backlog == len(await queued(ringing))


@pytest.mark.req("DUR-01")
async def test_a_backlog_is_rung_no_faster_than_it_is_taken(pool: Pool, ringing: Bell) -> None:
    """The sweep puts a bounded number of rings into Redis; while they stay there, each tenant gets one a second."""
    await rows.endpoints(pool, 100)
    await rows.publish(pool, (MAX_QUEUED + 2 * SWEEP_BATCH) // 100)
    clock = FakeClock()
    sweeping = sweep(ledger_of(pool), ringing, clock)
    assert [MAX_QUEUED, 0] == [await sweeping.ring_due() for _ in range(2)]
    clock.elapsed += FULL_SECONDS
    assert [1, 0] == [await sweeping.ring_due() for _ in range(2)]
    assert MAX_QUEUED + 1 == len(await queued(ringing))


@pytest.mark.req("DUR-01")
@pytest.mark.parametrize(
    "alter_ring",
    [
        pytest.param(lambda redis, each: redis.zrem(DEFAULT_QUEUE, each), id="lost"),
        pytest.param(lambda redis, each: redis.zadd(DEFAULT_QUEUE, {each: 4e12}), id="for-a-century-later"),
    ],
)
async def test_an_unusable_ring_is_rung_again(
    alter_ring: Callable[[Any, str], Awaitable[object]], pool: Pool, ringing: Bell
) -> None:
    """A sweep rings an old delivery again only if its ring is missing or cannot be taken."""
    delivery, *_ = await unrung(pool)
    sweeping = sweep(ledger_of(pool), ringing)
    assert (0, 3) == await sweeping.once()
    await rows.change(pool, "deliveries", **AGED)
    await alter_ring(ringing.redis, delivery)
    assert (0, 1) == await sweeping.once()
    assert 4e12 > (await ringing.redis.zscore(DEFAULT_QUEUE, delivery) or 4e12)
    assert 3 == len(await queued(ringing))


@pytest.mark.req("DUR-01")
async def test_a_lost_ring_behind_a_backlog_is_rung_again(pool: Pool, ringing: Bell) -> None:
    """A lost ring is rung again, though Redis has many older ones; a look ends when it has found `most_found`."""
    publish = "SELECT hookseal.publish($1, 'a.b', '{}'::json, rings => true) FROM generate_series(1, $2::int)"
    for tenant, number in (("acme", 3 * SWEEP_BATCH), ("globex", 1)):
        await rows.endpoint(pool, tenant)
        await pool.execute(publish, tenant, number)
    await rows.change(pool, "deliveries", **AGED)
    found = await pool.fetch("SELECT tenant_id, endpoint_id::text, id::text AS delivery_id FROM hookseal.deliveries")
    await ringing.ring([Ring(**row) for row in found if row["tenant_id"] == "acme"])
    sweeping = sweep(ledger_of(pool), ringing)
    sweeping.most_found = 3 * SWEEP_BATCH
    assert 0 == await sweeping.ring_due()
    sweeping.most_found = Sweep.most_found
    assert 1 == await sweeping.ring_due()
    assert {row["delivery_id"] for row in found} == await queued(ringing)


async def test_a_lost_lease_is_ended_and_rung(installation: Installation, ringing: Bell) -> None:
    """The delivery of a dead worker is due and rung in the same sweep, and its attempt is recorded as unknown."""
    pool = installation.pool
    await installation.endpoint()
    [lost], [held] = [await installation.deliveries() for _ in range(2)]
    assert await ledger_of(pool, "dead", lease_seconds=0).claim(lost)
    assert await ledger_of(pool, "alive").claim(held)
    assert (1, 1) == await sweep(ledger_of(pool), ringing).once()
    assert {lost.delivery_id} == await queued(ringing)
    assert [("unknown", "dead")] == [(row["outcome"], row["worker"]) for row in await installation.attempts(lost)]
    assert [] == await installation.attempts(held)


async def test_ended_leases_and_rings_are_counted(installation: Installation, ringing: Bell) -> None:
    """Ended leases, the dead letters among them and the rings of a sweep are counted."""
    await installation.endpoint()
    dead = ledger_of(installation.pool, "dead", lease_seconds=0)
    for spent in (0, 10):
        [ring] = await installation.deliveries()
        await rows.change(installation.pool, "deliveries", ring.delivery_id, budget_spent=spent)
        assert await dead.claim(ring)
    sweeping = sweep(ledger_of(installation.pool), ringing)
    with structlog.testing.capture_logs() as logs:
        assert (2, 1) == await sweeping.once()
    assert ("sweep.took_back", 2, 1) == tuple(logs[0][name] for name in ("event", "leases", "dead_letters"))
    expected = {
        ("hookseal_leases_taken_back_total", None): 2.0,
        ("hookseal_dead_letters_total", None): 1.0,
        ("hookseal_rings_total", "sweep"): 0.0,
        ("hookseal_rings_total", "outbox"): 1.0,
    }
    assert expected.items() <= figures(sweeping._meter).items()


async def test_an_outage_is_survived(pool: Pool, ringing: Bell) -> None:
    """While Redis does not answer, that is logged once and the loop continues; afterwards the deliveries are rung."""
    await unrung(pool)
    clock, away = TurningClock(), bell(f"redis://127.0.0.1:{closed_port()}/0")
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(sweep(ledger_of(pool), away, clock).loop.run())
        await clock.asleep(1)
        for _ in range(2):
            await rows.change(pool, "deliveries", rung_at=None)
            await clock.turn()
        assert not running.done()
        await cancelled([running])
    await away.close()

    assert [("sweep.failed", "ring_due")] == [(line["event"], line["half"]) for line in logs]
    assert [SECONDS / LOOKS] * 3 == clock.slept
    await rows.change(pool, "deliveries", rung_at=rows.Sql(_EARLIER % "rung_at"))
    assert (0, 3) == await sweep(ledger_of(pool), ringing).once()


class Broken(PostgresLedger):
    """Cannot end a lease, for each of these reasons in turn."""

    errors: list[Exception]

    async def end_lost_leases(self, start: LookStart | None = None) -> list[State]:
        raise self.errors.pop(0)


async def test_a_defect_is_survived() -> None:
    """Any error in a sweep is logged, and the next sweep runs."""
    clock, away = TurningClock(), bell(f"redis://127.0.0.1:{closed_port()}/0")
    ledger = Broken.__new__(Broken)
    ledger.errors = [KeyError("a column"), Unavailable("PostgreSQL does not answer"), ValueError("?")]
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(sweep(ledger, away, clock).loop.run())
        await clock.asleep(1)
        for _ in range(2):
            await clock.turn()
        await cancelled([running])
    await away.close()
    halves = [line["event"] for line in logs if line["half"] == "take_back"]
    assert ["sweep.defect", "sweep.failed", "sweep.defect"] == halves


async def test_a_failed_lease_search_stops_no_ring(pool: Pool, ringing: Bell) -> None:
    """If expired leases cannot be ended, due deliveries are rung nevertheless."""
    await unrung(pool)
    broken = Broken(pool, worker="w", lease_seconds=45)
    broken.errors = [ValueError()]
    with structlog.testing.capture_logs():
        assert (None, 3) == await sweep(broken, ringing).once()


async def test_a_slow_sweep_ends(pool: Pool, ringing: Bell) -> None:
    """A sweep that takes longer than its period rings nothing twice, and ends."""
    await unrung(pool, SWEEP_BATCH + 1)
    sweeping = sweep(ledger_of(pool), ringing, seconds=0.001)
    assert SWEEP_BATCH + 1 == await asyncio.wait_for(sweeping.ring_due(), 60)


@pytest.mark.req("DUR-04")
async def test_no_lease_is_ended_while_others_may_record(installation: Installation, ringing: Bell) -> None:
    """While leases may not be ended the sweep only rings; a failed sweep is reported, so that the next one waits."""
    pool, may_end, failed = installation.pool, [False], list[bool]()
    await installation.endpoint()
    [ring] = await installation.deliveries()
    expired = ledger_of(pool, "w2", lease_seconds=0)
    assert await expired.claim(ring)

    def sweeping(ledger: PostgresLedger) -> Sweep:
        return sweep(ledger, ringing, may_end=lambda: may_end[0], failed=lambda: failed.append(True))

    assert (0, 0) == await sweeping(expired).once()
    assert "sending" == (await installation.delivery(ring))["state"]
    may_end[0] = True
    async with pool.acquire() as holder, holder.transaction(), pool.acquire() as impatient:
        await holder.execute("LOCK TABLE hookseal.attempts IN ACCESS EXCLUSIVE MODE")
        await impatient.execute("SET lock_timeout = '10ms'")
        with pytest.raises(Unavailable):
            await sweeping(ledger_of(impatient, "w2", lease_seconds=0)).take_back()
    assert [True] == failed
    assert 1 == await sweeping(expired).take_back()
