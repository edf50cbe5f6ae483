"""Workers that keep running while their database is dropped and restored."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from hookseal.audit import log
from hookseal.dispatcher.core.model import Ring
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.secrets.endpoint.rotation import RotationResult
from tests.restore.documented import Shell, documented
from tests.restore.sites import OWNER, Site, begun, is_signed_with, restored, secret_of, shell
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, held

pytestmark = pytest.mark.req("SEC-21", part="lived-through")


class Swap:
    """Makes a dump, drops the database, and restores it from the dump."""

    def __init__(self, at: Site, sh: Shell) -> None:
        self._at = at
        self._sh = sh
        at.store_passwords(sh)

    async def dump(self) -> None:
        """Make the dump."""
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
            assert 200 == (await worker.get("/readyz"))[0]
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


async def test_a_request_in_flight_is_sent_again(old: Site, redis_url: str, receiver: Receiver, tmp_path: Path) -> None:
    """A request in flight while its database was replaced has no record, and is sent again with the same id."""
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


async def test_a_worker_uses_the_restored_integrity_key(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """A worker knows an integrity key version that the restore removed, and writes with the restored one."""
    swapping = swap(old, tmp_path, redis_url)
    async with begun(old, redis_url, tmp_path) as world:
        moved = await world.endpoint(f"{receiver.base_url}/moved")
        await swapping.dump()
        async with world.pool.acquire() as connection:
            await rotate_integrity_key(world.installation.operator(connection), os.urandom)
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
    async with world.pool.acquire() as connection:
        await rotate_integrity_key(world.installation.operator(connection), os.urandom)
    newest = await world.rotate(moved)
    assert newest.after is not None
    assert "2" == newest.after.mac_key_id
    return newest


async def findings(world: World) -> int:
    """Return the number of audited stale rows."""
    count: int = await world.pool.fetchval("SELECT count(*) FROM hookseal.audit_log WHERE action = 'stale.found'")
    return count


async def test_a_reused_version_number_signs_with_the_new_secret(
    old: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """A new version with the number of a lost, cached one is used to sign."""
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
