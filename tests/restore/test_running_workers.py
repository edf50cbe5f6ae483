"""Workers and producers that keep running while their database is dumped, dropped and restored."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hookseal import Publisher
from hookseal.audit import log
from hookseal.client.publisher import Published
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Unavailable
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.cli.shell import Shell
from tests.restore.sites import OWNER, Site, begun, documented, is_signed_with, restored, secret_of, shell
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, held


class Swap:
    """Makes a dump, drops the database, and restores it from the dump."""

    def __init__(self, at: Site, sh: Shell) -> None:
        self._at = at
        self._sh = sh
        at.store_passwords(sh)

    async def dump(self) -> None:
        await self._sh.done(documented("Back up")[0])

    async def drop(self, *workers: Worker) -> None:
        """Drop the database, and return once those workers report that it is missing."""
        await self._at.execute("DROP DATABASE app WITH (FORCE)")
        for worker in workers:
            await eventually(lambda worker=worker: unready(worker))  # type: ignore[misc]

    async def restore(self) -> None:
        """Restore it as the page says."""
        await self._sh.done(*documented("2. The database")[:2])

    async def accept(self) -> None:
        """Accept it with its current heads, as if none had been stored."""
        accept = documented("5. Accept it")[0]
        await self._sh.done(documented("Back up")[2], accept)


async def unready(worker: Worker) -> bool:
    """Return whether the worker reports that PostgreSQL is unavailable."""
    status, body = await worker.get("/readyz")
    return status == 503 and body["checks"]["postgresql"] != "ok"


def swap(at: Site, folder: Path, redis_url: str) -> Swap:
    """Return the swap for the database of that server."""
    variables = {
        "DATABASE": at.bare_url(OWNER),
        "NEW_SERVER": at.bare_url(database="postgres"),
        "RESTORED": at.bare_url(),
        "DATABASE_URL": at.url(OWNER),
    }
    return Swap(at, shell(folder, redis_url, **variables))


def defects(worker: Worker) -> list[Any]:
    """Return the internal errors that the worker logged."""
    return [line for line in worker.log if line["event"].endswith("defect")]


async def later(world: World) -> None:
    """Return once later claims can be distinguished from those made until now."""
    began = await world.pool.fetchval("SELECT clock_timestamp()")
    await eventually(lambda: world.pool.fetchval("SELECT clock_timestamp() > $1::timestamptz + interval '2 s'", began))


@pytest.mark.req("SEC-21", part="lived-through")
async def test_an_endpoint_seen_newer_is_held_until_accepted(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """Deliveries of an endpoint that it saw newer are held until it is accepted, without a restart; others are sent."""
    swapping = swap(old, tmp_path, redis_url)
    async with begun(old, redis_url, tmp_path) as world:
        moved = await world.endpoint(f"{receiver.base_url}/moved")
        await world.endpoint(f"{receiver.base_url}/stays", tenant="bmce")
        [pending] = await world.publish(rung=False)
        await swapping.dump()
        newer = await world.rotate(moved)
        async with world.worker() as worker:
            for ring in (pending, *await world.publish(), *await world.publish("bmce")):
                await world.state(ring, "delivered")
            await later(world)
            await swapping.drop(worker)
            await swapping.restore()

            async with restored(old, redis_url, tmp_path) as after:
                await waits_until_accepted(after, pending, swapping)
            assert [] == defects(worker)
            await worker.answers("/readyz", 200)
    got = [one for one in receiver.received if one.path == "/moved"]
    assert 2 == [one.headers["webhook-id"] for one in got].count(pending.delivery_id)
    lost, kept = secret_of(newer), secret_of(moved)
    assert [True, True, False, False] == [is_signed_with(one, lost) for one in got]
    assert [False, False, True, True] == [is_signed_with(one, kept) for one in got]


async def waits_until_accepted(after: World, pending: Ring, swapping: Swap) -> None:
    """Fail unless the one is held while the other is sent, and both are sent after acceptance."""
    [sent] = await after.publish("bmce")
    await after.state(sent, "delivered")
    waiting = await after.state(pending, "pending", waiting_for="secret")
    assert "stale: it has generation 1, this process knows 2" in waiting["last_error"]
    assert 0 == waiting["attempts"]
    await swapping.accept()
    for ring in (pending, *await after.publish()):
        await after.state(ring, "delivered")


@pytest.mark.req("SEC-21", part="lived-through")
async def test_a_request_in_flight_is_sent_again(old: Site, redis_url: str, receiver: Receiver, tmp_path: Path) -> None:
    swapping = swap(old, tmp_path, redis_url)
    answer = asyncio.Event()
    receiver.answers["/hook"] = held(answer)
    async with begun(old, redis_url, tmp_path) as world:
        await world.endpoint(f"{receiver.base_url}/hook", timeout_ms=15_000)
        [pending] = await world.publish(rung=False)
        await swapping.dump()
        async with world.worker() as worker:
            await receiver.wait_for(1)
            await swapping.drop(worker)
            answer.set()
            await swapping.restore()
            async with restored(old, redis_url, tmp_path) as after:
                await after.state(pending, "delivered")
            assert [] == defects(worker)
    assert [pending.delivery_id] * 2 == [one.headers["webhook-id"] for one in receiver.received]


@pytest.mark.req("SEC-21", part="lived-through")
async def test_a_worker_uses_the_restored_integrity_key(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    swapping = swap(old, tmp_path, redis_url)
    async with begun(old, redis_url, tmp_path) as world:
        moved = await world.endpoint(f"{receiver.base_url}/moved")
        await swapping.dump()
        await world.installation.act(rotate_integrity_key, os.urandom)
        await world.rotate(moved)
        async with world.worker() as worker:
            await world.state((await world.publish())[0], "delivered")
            await later(world)
            await swapping.drop(worker)
            await swapping.restore()
            async with restored(old, redis_url, tmp_path) as after:
                [pending] = await after.publish()
                await after.state(pending, "pending", waiting_for="secret")
                await eventually(lambda: findings(after))
                verified = await log.verify(after.pool, after.installation.unlocked.integrity)
                assert {None} == {each.broken for each in verified}

                await swapping.accept()
                await after.state(pending, "delivered")
                newest = await under_a_new_integrity_key(after, moved)
                await after.state((await after.publish())[0], "delivered")
    assert is_signed_with(receiver.received[-1], secret_of(newest))


async def under_a_new_integrity_key(world: World, moved: AddedEndpoint) -> RotationResult:
    """Rotate both keys: the new integrity key version has a number that the worker knew before."""
    await world.installation.act(rotate_integrity_key, os.urandom)
    newest = await world.rotate(moved)
    assert newest.after is not None
    assert "2" == newest.after.mac_key_id
    return newest


async def findings(world: World) -> int:
    """Return the number of audited stale rows."""
    count: int = await world.pool.fetchval("SELECT count(*) FROM hookseal.audit_log WHERE action = 'stale.found'")
    return count


@pytest.mark.req("SEC-21", part="lived-through")
async def test_a_reused_version_number_signs_with_the_new_secret(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    swapping = swap(old, tmp_path, redis_url)
    async with begun(old, redis_url, tmp_path) as world:
        moved = await world.endpoint(f"{receiver.base_url}/moved")
        await swapping.dump()
        lost = await world.rotate(moved)
        async with world.worker() as worker:
            await world.state((await world.publish())[0], "delivered")
            await swapping.drop(worker)
            await swapping.restore()
            async with restored(old, redis_url, tmp_path) as after:
                new = await after.rotate(moved)
                assert (lost.secret_ref, lost.generation) == (new.secret_ref, new.generation)
                [pending] = await after.publish()
                await after.state(pending, "delivered")
    assert 2 == len(receiver.received)
    assert is_signed_with(receiver.received[1], secret_of(new))


# Concurrent work during a dump and a restore: publishing producers, and deliveries in flight.

_WHOLE = """
SELECT count(*) AS events, count(DISTINCT d.event_id) AS with_delivery
  FROM hookseal.events AS e LEFT JOIN hookseal.deliveries AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.id
"""
_ATTEMPTS = {"again": 10, "last": 1}
_QUICK_LEASES = {"HOOKSEAL_LEASE_SECONDS": "12", "HOOKSEAL_DRAIN_SECONDS": "11"}


async def publishing(publisher: Publisher, until: asyncio.Event) -> int:
    """Publish events one after another until the event is set; return how many."""
    number = 0
    while not until.is_set():
        await publish(publisher, f"e-{number}", number)
        number += 1
    return number


async def publish(publisher: Publisher, event_id: str, number: int) -> Published:
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


@pytest.mark.req("SEC-21", part="beside-it")
async def test_a_dump_during_publishing_has_whole_events(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
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


@pytest.mark.req("SEC-21", part="beside-it")
async def test_a_dumped_claim_expires_and_is_retried(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
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
    assert ("unknown", dead.worker_id) == (first["outcome"], first["worker"])
    assert ("delivered", first["signed_by"]) == (second["outcome"], second["signed_by"])
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
                settings={"timeout_ms": 6_000, "max_attempts": attempts},
            )
        )


async def leads(world: World, worker_id: str) -> bool:
    """Return whether that worker is the leader of the outbox."""
    holder: str | None = await world.pool.fetchval("SELECT holder FROM hookseal.control WHERE name = 'outbox'")
    return holder == worker_id
