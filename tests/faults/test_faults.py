"""The short forms of the faults: nothing is lost, and nothing is sent twice without a reason."""

import asyncio
import pickle
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
import pytest
from redis.asyncio import Redis

from hookseal.dispatcher.core.model import Ring
from hookseal.embedded.server import Server
from hookseal.ground.ids import DeliveryId, EndpointId
from hookseal.queue.rings import DEFAULT_QUEUE
from tests.faults import faults_at_steps, scenarios
from tests.faults.comparison import ReceivedRequest
from tests.faults.faults_at_steps import DISTINCT_POINTS
from tests.faults.scenarios import Size
from tests.faults.site import TENANT, Site, open_site
from tests.worker.waiting import eventually, eventually_equals


async def test_a_run_without_faults_breaks_no_law(own_site: Site) -> None:
    """Without a fault no law is broken, and nothing is sent twice."""
    await own_site.fleet.start_many(2)
    await own_site.publish(200)
    await own_site.wait_until_settled()
    await own_site.fleet.stop_all()
    (await own_site.report()).require(deliveries=400, requests=400, duplicates=0, unknown=0)


# The short forms of the faults under load: no law is broken after each.


SIZE = Size(events=100, per_second=40)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Return the random source of this run; pytest-randomly prints the seed."""
    return Random(request.config.getoption("randomly_seed", 0))


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-03")
async def test_kills_under_load_lose_nothing(site: Site, chance: Random) -> None:
    """Kill -9 loses nothing; only what was sent and not recorded is sent again, after an attempt that is unknown."""
    (await scenarios.kill_workers(site, SIZE, chance)).require(lost=0, unexplained=0)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-05")
async def test_a_rolling_restart_loses_nothing(calm_site: Site, chance: Random) -> None:
    """A rolling restart of three workers under load loses nothing and sends nothing twice."""
    found = await scenarios.restart_workers(calm_site, SIZE, chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=200)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-05")
async def test_repeated_sigterms_are_like_one(calm_site: Site, chance: Random) -> None:
    """Any number of SIGTERMs at any time is like one: nothing is lost or sent twice, and the exit code is 0."""
    found = await scenarios.send_sigterms(calm_site, SIZE, chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=200)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-02")
@pytest.mark.req("DUR-07", part="pauses")
async def test_a_pause_longer_than_the_lease_loses_nothing(site: Site, chance: Random) -> None:
    """Others finish the deliveries of a paused process; when it continues it records nothing."""
    (await scenarios.pause_workers(site, SIZE, chance)).require(lost=0, unexplained=0)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-02")
@pytest.mark.req("DUR-07", part="stalls")
async def test_a_stall_longer_than_the_lease_loses_nothing(site: Site, chance: Random) -> None:
    """Others finish the deliveries of a worker with a blocked loop; when it continues it records nothing."""
    (await scenarios.stall_workers(site, SIZE, chance)).require(lost=0, unexplained=0)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-01")
async def test_flushing_redis_loses_nothing(
    own_valkey: Server, database_url: str, tmp_path: Path, chance: Random
) -> None:
    """FLUSHALL at any time loses nothing and causes no second request."""
    async with open_site(database_url, own_valkey.url, tmp_path, calm=True) as site:
        found = await scenarios.flush_redis(site, SIZE, chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=200)


# kill -9 and SIGSTOP before and after each of the ten steps of a delivery (docs/architecture.md).


@pytest.fixture
async def site_with_one_endpoint(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Yield a site with one endpoint, so that every event is one delivery."""
    async with open_site(database_url, redis_url, tmp_path, endpoints=1) as made:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-03")
async def test_a_kill_at_any_step_loses_nothing(site_with_one_endpoint: Site) -> None:
    """After a kill at any point nothing is lost, and only what was sent and not recorded is sent again."""
    await faults_at_steps.kill_at(site_with_one_endpoint, DISTINCT_POINTS)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-02")
@pytest.mark.req("DUR-07", part="pauses")
async def test_a_pause_at_any_step_loses_nothing(site_with_one_endpoint: Site) -> None:
    """After a pause at any point another worker has finished the delivery; the paused one sends and records nothing."""
    await faults_at_steps.pause_at(site_with_one_endpoint, DISTINCT_POINTS)


# What a stopped worker does with its deliveries, and what PostgreSQL does for a killed one.


# The session of the killed worker, which waits for a lock of the test and has its whole statement.
_BLOCKED_RECORDS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE 'WITH made AS%'"
)


def hold_first_requests(site: Site, number: int) -> asyncio.Event:
    """Make the receiver hold its first requests, that many, until the event is set, and answer all others at once."""
    until = asyncio.Event()

    async def answer(request: ReceivedRequest) -> int:
        if request in site.receiver.requests[:number]:
            await until.wait()
        return 204

    site.receiver.answer = answer
    return until


@pytest.mark.req("DUR-05")
async def test_a_stopped_worker_gives_back_the_rest(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A stopped worker finishes what is in flight, and other workers meanwhile deliver what it gave back."""
    long: Any = {"HOOKSEAL_DRAIN_SECONDS": "30", "HOOKSEAL_LEASE_SECONDS": "40"}
    async with open_site(database_url, redis_url, tmp_path, calm=True, **long) as site:
        await site.pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 20000")
        await _stop_while_full(site)


async def _stop_while_full(site: Site) -> None:
    answer = hold_first_requests(site, 4)
    full = await site.fleet.start(HOOKSEAL_CONCURRENCY="4")
    other = await site.fleet.start()
    other.send(signal.SIGSTOP)  # its start may take as long as a held request
    await other.paused()
    await site.publish(10)
    await site.receiver.wait_for(4)
    other.send(signal.SIGCONT)
    stopping = asyncio.create_task(full.stop())
    await eventually_equals(4, site.count_unsettled)
    assert not stopping.done()
    answer.set()
    await stopping
    await site.wait_until_settled()

    (await site.report()).require(deliveries=20, requests=20, duplicates=0, unknown=0)


@pytest.mark.req("DUR-03")
async def test_a_killed_workers_record_counts(calm_site: Site) -> None:
    """If a worker is killed after its record reached PostgreSQL, the attempt is recorded and not sent again."""
    site = calm_site
    answer = hold_first_requests(site, 1)
    worker = await site.fleet.start()
    await site.publish(1)
    await site.receiver.wait_for(2)
    await _wait_for_one_unsettled(site)  # the other delivery must be recorded before the kill
    async with site.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE hookseal.attempts IN SHARE MODE")  # a row lock would not delay the record
        answer.set()
        await _wait_for_blocked_record(site)
        await site.fleet.kill(worker)
    await site.fleet.start()
    await site.wait_until_settled()

    found = await site.report()
    found.require(deliveries=2, requests=2, duplicates=0, unknown=0)


async def _wait_for_one_unsettled(site: Site) -> None:
    await eventually_equals(1, site.count_unsettled)


async def _wait_for_blocked_record(site: Site) -> None:
    await eventually(lambda: site.pool.fetchval(_BLOCKED_RECORDS))


# Everything that makes arq drop a job or fail on it, applied to the rings of real deliveries.


ANOTHER = "01900000-0000-7000-8000-00000000000a"
Poison = Callable[[Redis, Ring], Awaitable[object]]


def job(ring: Ring, **changes: object) -> bytes:
    """Return the job of a ring, with these parts changed."""
    arguments = [ring.tenant_id, ring.endpoint_id, ring.delivery_id]
    return msgspec.msgpack.encode({"t": None, "f": "deliver", "a": arguments, "k": {}, "et": 1} | changes)


def changed_job(**changes: object) -> Poison:
    return lambda client, ring: client.set(f"arq:job:{ring.delivery_id}", job(ring, **changes))


def changed_arguments(*arguments: str) -> Poison:
    """Return a poison that replaces the arguments of the job; `{}` keeps the correct one."""

    def poison(client: Redis, ring: Ring) -> Awaitable[object]:
        right = (ring.tenant_id, ring.endpoint_id, ring.delivery_id)
        given = [correct if each == "{}" else each for correct, each in zip(right, arguments, strict=False)]
        return client.set(f"arq:job:{ring.delivery_id}", job(ring, a=given))

    return poison


def with_key(key: str, value: str) -> Poison:
    """Return a poison that leaves the job correct and adds this key."""

    async def poison(client: Redis, ring: Ring) -> None:
        await client.set(f"arq:job:{ring.delivery_id}", job(ring))
        await client.set(f"{key}:{ring.delivery_id}", value)

    return poison


def due_at(score: float) -> Poison:
    """Return a poison that leaves the job correct and sets this time."""

    async def poison(client: Redis, ring: Ring) -> None:
        await client.set(f"arq:job:{ring.delivery_id}", job(ring))
        await client.zadd(DEFAULT_QUEUE, {ring.delivery_id: score})

    return poison


async def expired(_client: Redis, _ring: Ring) -> None:
    """Leave the ring without a job."""


async def pickled(client: Redis, ring: Ring) -> None:
    """Replace the job by a pickle, the default of arq."""
    await client.set(f"arq:job:{ring.delivery_id}", pickle.dumps({"f": "deliver"}))


async def of_another_kind(client: Redis, ring: Ring) -> None:
    await cast("Awaitable[int]", client.rpush(f"arq:job:{ring.delivery_id}", "x"))


async def aborted(client: Redis, ring: Ring) -> None:
    await client.set(f"arq:job:{ring.delivery_id}", job(ring))
    await client.zadd("arq:abort", {ring.delivery_id: 1})


POISONS: dict[str, Poison] = {
    "unknown function": changed_job(f="drop_everything"),
    "function that is no text": changed_job(f=["deliver"]),
    "too few arguments": changed_arguments("{}", "{}"),
    "no arguments": changed_job(a=[]),
    "arguments that are none": changed_job(a=7),
    "named arguments": changed_job(k={"tenant_id": TENANT}),
    "another tenant": changed_arguments("globex", "{}", "{}"),
    "our own tenant": changed_arguments("_system", "{}", "{}"),
    "another endpoint": changed_arguments("{}", ANOTHER, "{}"),
    "another delivery": changed_arguments("{}", "{}", ANOTHER),
    "no time": changed_job(et=None),
    "a try that is no number": changed_job(t="twice"),
    "a try beyond the last": changed_job(t=10_000_000),
    "too many tries": with_key("arq:retry", "10000000"),
    "tries that are no number": with_key("arq:retry", "many"),
    "held for ever": with_key("arq:in-progress", "1"),
    "due before all time": due_at(float("-inf")),
    "due at no time": due_at(0),
    "due after all time": due_at(float("inf")),
    "expired": expired,
    "pickled": pickled,
    "of another kind": of_another_kind,
    "aborted": aborted,
}


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-06")
async def test_every_altered_ring_is_delivered_once(calm_site: Site) -> None:
    """However its ring is altered, every delivery arrives once; the loop does not restart, and Redis is empty."""
    await calm_site.publish(len(POISONS))
    rows = await calm_site.pool.fetch(
        # Marked as rung: until the sweep rings them again, only Redis has them.
        "UPDATE hookseal.deliveries SET rung_at = now() RETURNING endpoint_id::text, id::text AS delivery_id"
    )
    rings = [
        Ring(
            tenant_id=TENANT,
            endpoint_id=EndpointId(row["endpoint_id"]),
            delivery_id=DeliveryId(row["delivery_id"]),
        )
        for row in rows
    ]
    async with Redis.from_url(calm_site.redis_url) as client:
        for ring, poison in zip(rings, [*POISONS.values(), *POISONS.values()], strict=True):
            await client.zadd(DEFAULT_QUEUE, {ring.delivery_id: 1})
            await poison(client, ring)
        await client.zadd(DEFAULT_QUEUE, {b"\xff\xfe": 1, "no id": 2, ANOTHER: 3})

    worker = await calm_site.fleet.start()
    await calm_site.wait_until_settled()
    await calm_site.fleet.stop_all()

    found = await calm_site.report()
    found.require(lost=0, duplicates=0, unknown=0, requests=2 * len(POISONS))
    assert [] == worker.logged("engine.restarted")
    assert [] != worker.logged("ring.dropped")
