"""The row by which other processes know that a worker lives, in a real PostgreSQL."""

import asyncio
from collections.abc import Sequence
from functools import partial

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.errors import Unavailable
from hookseal.postgres.pool import Pool
from hookseal.worker.heartbeat import BEAT_SECONDS, Heartbeat, Load, Presence
from hookseal.worker.recorder import Circuit
from hookseal.worker.run import cancelled
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.worker.waiting import eventually, eventually_equals

PRESENCE = Presence(worker_id="w1", version="0.1.0", drain_seconds=25, lease_seconds=45, key_ids=("00112233aabbccdd",))


class YieldingClock(FakeClock):
    """Sleeps no time, but yields to other tasks."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await asyncio.sleep(0)


def heartbeat(pool: Pool, clock: FakeClock | None = None, *, worker_id: str = "w1") -> Heartbeat:
    presence = replace(PRESENCE, worker_id=worker_id)
    clock = clock or FakeClock()
    return Heartbeat(pool, presence, circuit=Circuit(clock), clock=clock, log=structlog.get_logger())


async def fleet_of(pool: Pool, clock: FakeClock) -> list[Heartbeat]:
    """Return the heartbeats of three workers that know of each other."""
    workers = [heartbeat(pool, clock, worker_id=f"w{number}") for number in range(3)]
    for each in workers * 2:
        await each.beat()
    assert [(0, 3), (1, 3), (2, 3)] == ranks(workers)
    return workers


def ranks(workers: Sequence[Heartbeat]) -> list[tuple[int, int]]:
    return [(each.fleet.rank, each.fleet.workers) for each in workers]


async def pass_time(pool: Pool, clock: FakeClock, seconds: float) -> None:
    """Let the time pass for the worker and for PostgreSQL."""
    clock.elapsed += seconds
    await pool.execute("UPDATE hookseal.workers SET beaten_at = beaten_at - make_interval(secs => $1)", seconds)


async def ids(pool: Pool) -> list[str]:
    return [row["id"] for row in await pool.fetch("SELECT id FROM hookseal.workers ORDER BY id")]


async def test_the_row_exists_during_the_block(pool: Pool) -> None:
    """During the block the row has version, times and keys of the worker; afterwards it is deleted."""
    async with heartbeat(pool).present():
        row = await pool.fetchrow("SELECT * FROM hookseal.workers")
        assert row is not None
        assert ("w1", "0.1.0", 25, 45, ["00112233aabbccdd"]) == tuple(row)[:5]
        assert row["started_at"] == row["beaten_at"]
    assert [] == await ids(pool)


async def test_the_row_is_updated_every_five_seconds(pool: Pool) -> None:
    """Every five seconds the row is updated, or inserted again if missing; rows older than an hour are deleted."""
    clock = YieldingClock()
    beating = heartbeat(pool, clock)
    async with beating.present():
        await pool.execute("UPDATE hookseal.workers SET id = 'dead', beaten_at = now() - interval '61 minutes'")
        await pool.execute(
            "INSERT INTO hookseal.workers"
            " SELECT 'silent', version, 1, 2, '{}', '{}', now(), now() - interval '59 minutes'"
            " FROM hookseal.workers"
        )
        task = asyncio.create_task(beating.loop.run())
        await eventually_equals(["silent", "w1"], lambda: ids(pool))
        first = await pool.fetchval("SELECT beaten_at FROM hookseal.workers WHERE id = 'w1'")
        await eventually(lambda: pool.fetchval("SELECT beaten_at > $1 FROM hookseal.workers WHERE id = 'w1'", first))
        await cancelled([task])
    assert {BEAT_SECONDS} == set(clock.slept)


@pytest.mark.req("DEL-09")
async def test_after_an_outage_each_worker_keeps_its_share(pool: Pool) -> None:
    """If no heartbeat could be written for 30 s, the first to beat again does not take the shares of the others."""
    clock = FakeClock()
    workers = await fleet_of(pool, clock)
    await pass_time(pool, clock, LIVE_SECONDS + 1)
    known = list[tuple[int, int]]()
    for each in workers:
        await each.beat()
        known += ranks([each])

    assert [(0, 3), (1, 3), (2, 3)] == known


@pytest.mark.req("DEL-09")
async def test_a_worker_that_died_in_an_outage_loses_its_share(pool: Pool) -> None:
    """A worker that does not beat within 15 s after an outage is dead: the others divide its share."""
    clock = FakeClock()
    *workers, _ = await fleet_of(pool, clock)
    await pass_time(pool, clock, LIVE_SECONDS + 1)
    known = list[list[tuple[int, int]]]()
    for _ in range(4):
        for each in workers:
            await each.beat()
        known.append(ranks(workers))
        await pass_time(pool, clock, BEAT_SECONDS)

    assert [[(0, 3), (1, 3)]] * 3 + [[(0, 2), (1, 2)]] == known


@pytest.mark.req("DEL-09")
async def test_without_an_outage_a_dead_worker_loses_its_share_at_once(pool: Pool) -> None:
    """A worker that goes on beating divides the share of one that has been silent for 30 s."""
    clock = FakeClock()
    *workers, _ = await fleet_of(pool, clock)
    for _ in range(int(LIVE_SECONDS / BEAT_SECONDS) + 1):
        await pass_time(pool, clock, BEAT_SECONDS)
        for each in workers:
            await each.beat()

    assert [(0, 2), (1, 2)] == ranks(workers)


@pytest.mark.req("DEL-09")
async def test_a_draining_worker_leaves_its_share_to_the_others(pool: Pool) -> None:
    """The others divide the share of a worker that drains. Its row stays, and so does its own share, for its lanes."""
    drains, *others = workers = await fleet_of(pool, FakeClock())
    await drains.drain()
    await drains.beat()
    for each in others:
        await each.beat()

    assert [(0, 3), (0, 2), (1, 2)] == ranks(workers)
    assert ["w0", "w1", "w2"] == await ids(pool)


@pytest.mark.req("DEL-09")
async def test_a_late_heartbeat_does_not_end_a_drain(pool: Pool) -> None:
    """A heartbeat that was sent before the drain, and is executed after it, does not take the drain back."""
    drains, other, _ = await fleet_of(pool, FakeClock())
    await drains.drain()
    await heartbeat(pool, worker_id="w0").beat()
    await other.beat()

    assert [(0, 2)] == ranks([other])


@pytest.mark.req("DEL-09")
async def test_an_outage_does_not_delay_a_drain(pool: Pool) -> None:
    """A drain waits no longer than a second for PostgreSQL. The next heartbeat says that the worker drains."""
    drains, other, _ = await fleet_of(pool, FakeClock())
    async with pool.acquire() as locking, locking.transaction():
        await locking.execute("LOCK TABLE hookseal.workers IN EXCLUSIVE MODE")
        async with asyncio.timeout(2.5):
            await drains.drain()
    await drains.beat()
    await other.beat()

    assert [(0, 2)] == ranks([other])


async def test_without_postgresql_it_does_not_start(database_url: str) -> None:
    """A worker that cannot write its row does not start; a later outage is logged once and does not delay the stop."""
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=2)
    clock = YieldingClock()
    beating = heartbeat(pool, clock)
    with structlog.testing.capture_logs() as logs:
        async with beating.present():
            await pool.close()
            task = asyncio.create_task(beating.loop.run())
            await eventually(lambda: len(clock.slept) > 10)
            await cancelled([task])
    assert ["heartbeat.failed"] == [line["event"] for line in logs]
    with pytest.raises(Unavailable):
        async with beating.present():
            pass


@pytest.mark.req("DUR-04")
async def test_the_row_says_that_outcomes_cannot_be_recorded(pool: Pool) -> None:
    """Once an outcome has waited for 2 s, the next heartbeat says since when; after its record one takes it back."""
    clock = FakeClock()
    circuit = Circuit(clock)
    beating = Heartbeat(pool, PRESENCE, circuit=circuit, clock=clock, log=structlog.get_logger())
    seconds = "SELECT round(extract(epoch FROM beaten_at - unrecorded_since))::integer FROM hookseal.workers"
    circuit.waits("outcome")
    found = list[int | None]()
    for elapsed in (1, 6):
        clock.elapsed += elapsed
        await beating.beat()
        found.append(await pool.fetchval(seconds))
    circuit.ended("outcome")
    await beating.beat()

    assert [None, 7, None] == [*found, await pool.fetchval(seconds)]


@pytest.mark.req("OPS-15", part="status")
async def test_the_row_says_what_the_worker_uses(pool: Pool) -> None:
    """Each heartbeat replaces what the one before said; before somebody has said it, it is not known."""
    beating = heartbeat(pool)
    await beating.beat()
    used = (
        "SELECT requests, most_requests, bytes, most_bytes, connections, most_connections, batch_connections,"
        " most_batch_connections, limited_by FROM hookseal.workers"
    )
    assert [None] * 9 == [*(await pool.fetchrow(used) or ())]
    for number in (1, 7):
        load = Load(
            requests=number, most_requests=10, bytes=2, most_bytes=20, connections=3, most_connections=number * 3,
            batch_connections=1, most_batch_connections=3, limited_by=["cpu"],
        )  # fmt: skip
        beating.load = partial(replace, load)
        await beating.beat()
        assert [number, 10, 2, 20, 3, number * 3, 1, 3, ["cpu"]] == [*(await pool.fetchrow(used) or ())]


@pytest.mark.req("OPS-15", part="status")
async def test_the_row_says_since_when_the_worker_drains(pool: Pool) -> None:
    """A later heartbeat of the drain does not move it."""
    beating = heartbeat(pool)
    await beating.beat()
    since = "SELECT draining_since FROM hookseal.workers"
    assert await pool.fetchval(since) is None
    await beating.drain()
    began_at = await pool.fetchval(since)
    await beating.beat()
    assert began_at is not None
    assert began_at == await pool.fetchval(since)


@pytest.mark.req("DUR-02", "DUR-04")
async def test_no_worker_is_taken_for_dead_after_a_missed_heartbeat(pool: Pool) -> None:
    """A worker believes for 15 s after its start, and after a heartbeat was missed, that others may yet beat."""
    clock = FakeClock()
    beating = heartbeat(pool, clock)

    async def beaten(seconds: float) -> bool:
        clock.elapsed += seconds
        await beating.beat()
        return beating.believes_others

    assert [False, False, False, True] == [await beaten(each) for each in (0, 5, 5, 5)]
    clock.elapsed += 2 * BEAT_SECONDS + 1
    assert not beating.believes_others
    assert [False, False, False, True] == [await beaten(each) for each in (0, 5, 5, 5)]
    beating.doubt_others()
    assert [False, False, True] == [await beaten(each) for each in (5, 5, 5)]
