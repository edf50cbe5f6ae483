"""Concurrent work during a dump and a restore: publishing producers, and deliveries in flight."""

import asyncio
import signal
from pathlib import Path

import pytest

from hookseal import Publisher
from hookseal.client.publisher import Published
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Unavailable
from hookseal.ground.ids import TenantId
from tests.restore.sites import OWNER, Site, begun, restored
from tests.restore.test_running_workers import Swap, swap
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, held

pytestmark = pytest.mark.req("SEC-21", part="beside-it")

_WHOLE = """
SELECT count(*) AS events, count(DISTINCT d.event_id) AS with_delivery
  FROM hookseal.events AS e LEFT JOIN hookseal.deliveries AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.id
"""
_ATTEMPTS = {"again": 10, "last": 1}
_QUICK_LEASES = {"HOOKSEAL_LEASE_SECONDS": "8", "HOOKSEAL_DRAIN_SECONDS": "7"}


async def publishing(publisher: Publisher, until: asyncio.Event) -> int:
    """Publish events one after another until the event is set; return how many."""
    number = 0
    while not until.is_set():
        await publish(publisher, f"e-{number}", number)
        number += 1
    return number


async def publish(publisher: Publisher, event_id: str, number: int) -> Published:
    """Publish an event."""
    return await publisher.publish(tenant_id="acme", event_type="invoice.paid", data={"n": number}, event_id=event_id)


async def replace_database(old: Site, swapping: Swap, publisher: Publisher) -> None:
    """Drop the database, publish meanwhile, and restore it in place of an empty one."""
    await swapping.drop()
    with pytest.raises(Unavailable):
        await publish(publisher, "last", 1)
    await old.execute(f"CREATE DATABASE app OWNER {OWNER}")
    with pytest.raises(Unavailable, match="lacks the tables"):
        await publish(publisher, "last", 1)
    await old.execute("DROP DATABASE app WITH (FORCE)")
    await swapping.restore()


async def test_a_dump_during_publishing_has_whole_events(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """A dump during publishing has whole events; publishing without a database fails, and may be repeated."""
    swapping = swap(old, tmp_path, redis_url)
    async with begun(old, redis_url, tmp_path) as world:
        await world.endpoint(f"{receiver.base_url}/hook")
        async with Publisher.connect(old.url(OWNER), redis_url) as publisher:
            dumped = asyncio.Event()
            busy = asyncio.create_task(publishing(publisher, dumped))
            await eventually(lambda: world.pool.fetchval("SELECT count(*) > 20 FROM hookseal.events"))
            await swapping.dump()
            dumped.set()
            published = await busy
            last = await publish(publisher, "last", 1)
            await replace_database(old, swapping, publisher)

            again = await publish(publisher, "last", 1)
            assert (False, True) == (again.duplicate, again.deliveries != last.deliveries)
            assert (await publish(publisher, "e-0", 0)).duplicate
    async with restored(old, redis_url, tmp_path) as world:
        whole = await world.pool.fetchrow(_WHOLE)
        assert whole is not None
        assert whole["events"] == whole["with_delivery"]
        assert 20 < whole["events"] <= published + 1
        async with world.worker():
            await receiver.wait_for(whole["events"])
    assert whole["events"] == len({got.headers["webhook-id"] for got in receiver.received})


async def test_a_dumped_claim_expires_and_is_retried(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """Its lease expires, its outcome is unknown, and it is retried or a dead letter; another worker is the leader."""
    swapping = swap(old, tmp_path, redis_url)
    never = asyncio.Event()
    receiver.answers = {f"/{tenant}": held(never) for tenant in _ATTEMPTS}
    async with begun(old, redis_url, tmp_path) as world:
        await add(world, receiver)
        async with world.worker(**_QUICK_LEASES) as dead:
            [again], [last] = [await world.publish(tenant) for tenant in _ATTEMPTS]
            await receiver.wait_for(2)
            await dump_and_kill(swapping, dead)
        await swapping.drop()
    never.set()
    receiver.answers.clear()
    await swapping.restore()

    async with restored(old, redis_url, tmp_path) as after:
        for ring in (again, last):
            assert "sending" == (await after.installation.delivery(ring))["state"]
        async with after.worker(**_QUICK_LEASES) as alive:
            await after.state(again, "delivered")
            await after.state(last, "dead_letter")
            await eventually(lambda: leads(after, str(alive.worker_id)), within=40.0)
        first, second = await after.installation.attempts(again)
        refs = (await after.installation.delivery(again))["claimed_refs"]
    assert ("unknown", dead.worker_id, refs) == (first["outcome"], first["worker"], first["signed_by"])
    assert "delivered" == second["outcome"]
    assert [again.delivery_id] * 2 == [got.headers["webhook-id"] for got in receiver.received if got.path == "/again"]


async def dump_and_kill(swapping: Swap, worker: Worker) -> None:
    """Make the dump while the worker is stopped, so that it records nothing first, then kill it."""
    worker.send(signal.SIGSTOP)
    await swapping.dump()
    await worker.kill()


async def add(world: World, receiver: Receiver) -> None:
    """Add one endpoint with many attempts, and one with a single attempt."""
    for tenant, attempts in _ATTEMPTS.items():
        await world.installation.add(
            NewEndpoint(
                tenant_id=TenantId(tenant),
                url=f"{receiver.base_url}/{tenant}",
                event_types=("*",),
                timeout_ms=2_000,
                max_attempts=attempts,
            )
        )


async def leads(world: World, worker_id: str) -> bool:
    """Return whether that worker is the leader of the outbox."""
    holder: str | None = await world.pool.fetchval("SELECT holder FROM hookseal.control WHERE name = 'outbox'")
    return holder == worker_id
