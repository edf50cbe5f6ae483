"""While master keys change, no worker starts that could not open or sign what others seal, at any moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.cli.command import Ended, hookseal
from tests.worker.environment import environment
from tests.worker.key_life import (
    OLD,
    SYSTEM_HEAD,
    alone,
    another,
    command,
    destroy,
    id_of,
    promote,
    retire,
    rewrap,
    stage,
    staged,
    swapped,
    waits,
)
from tests.worker.world import Receiver, World

pytestmark = [pytest.mark.req("SEC-04", part="check-at-boot"), pytest.mark.req("SEC-05", part="under-traffic")]

BEATS = "INSERT INTO hookseal.workers"
HEARTBEATS = "LOCK TABLE hookseal.workers IN SHARE MODE"  # can be read and not written


async def started(world: World, **keys: str) -> Ended:
    """Start a worker that must refuse to start, and return how it ended."""
    return await hookseal("worker", **environment(world.database_url, world.redis_url, **keys))


@asynccontextmanager
async def starting(world: World, **keys: str) -> AsyncIterator["asyncio.Task[Ended]"]:
    """Start a worker in the background, which must end by itself."""
    task = asyncio.create_task(started(world, **keys))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def everything(world: World) -> dict[str, list[object]]:
    """Return every row of every table of hookseal."""
    names = await world.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'hookseal'")
    return {
        name: list(await world.pool.fetch(f"SELECT t::text FROM hookseal.{name} AS t ORDER BY 1"))  # noqa: S608 -- from above
        for (name,) in names
    }


async def test_an_unregistered_key_is_refused(world: World) -> None:
    """A worker or command with an unregistered key, alone or beside the active one, is refused (78), without writes."""
    await world.endpoint("https://receiver.example/")
    other = another()
    before = await everything(world)
    adding = ("endpoint", "add", "--tenant", "acme", "--url", "https://other.example/", "--event-type", "*", "--json")
    for keys in (alone(other), staged(other)):
        settings = environment(world.database_url, world.redis_url, **keys)
        for arguments in (("worker", "--json"), adding):
            ended = await hookseal(*arguments, **settings)
            assert (78, "configuration") == (ended.code, ended.json["error"]["code"]), arguments
            assert f"master key {id_of(other)} is not registered" in ended.json["error"]["message"]
    assert before == await everything(world)


async def test_a_worker_without_the_active_key_is_refused(world: World) -> None:
    """A worker without the active key is refused (78), with the id of that key, and is not counted as live."""
    new = another()
    await stage(world, new)
    await promote(world, new)
    ended = await started(world)
    assert (78, True) == (ended.code, f"master key {id_of(new)} is the active one" in ended.err)
    assert 0 == await world.pool.fetchval("SELECT count(*) FROM hookseal.workers")


async def test_a_worker_without_a_needed_key_is_refused(world: World) -> None:
    """While records are under the old key, a worker without it is refused (78), with its id; afterwards it starts."""
    new = another()
    await stage(world, new)
    await promote(world, new)
    ended = await started(world, **alone(new))
    assert (78, True) == (ended.code, f"master key {id_of(OLD)} is not among the keys" in ended.err)
    await rewrap(world, new)
    async with world.worker(**alone(new)):
        pass


async def test_an_unstaged_next_key_is_refused(world: World) -> None:
    """A worker with an unregistered next key is refused (78), with the command that registers the key."""
    new = another()
    ended = await started(world, **staged(new))
    assert (78, True) == (ended.code, f"master key {id_of(new)} is not registered" in ended.err)
    assert "`hookseal key stage`" in ended.err
    await command(world, "key", "stage", keys=staged(new))
    async with world.worker(**staged(new)):
        pass


@asynccontextmanager
async def locked(world: World, statement: str) -> AsyncIterator[asyncio.Event]:
    """Hold the lock of the statement until the event is set or the block ends."""
    release = asyncio.Event()

    async def hold(taken: asyncio.Event) -> None:
        async with world.pool.acquire() as holder, holder.transaction():
            await holder.execute(statement)
            taken.set()
            await release.wait()

    taken = asyncio.Event()
    holding = asyncio.create_task(hold(taken))
    try:
        await taken.wait()
        yield release
    finally:
        release.set()
        await holding


async def test_a_promotion_before_the_heartbeat_is_noticed(world: World) -> None:
    """If the key is promoted between a worker's first check and its heartbeat, its second check refuses it (78)."""
    new = another()
    await stage(world, new)
    async with locked(world, HEARTBEATS) as release, starting(world) as late:
        await waits(world, BEATS)
        await promote(world, new)
        release.set()
        ended = await late
    assert (78, True) == (ended.code, f"master key {id_of(new)} is the active one" in ended.err)
    assert 0 == await world.pool.fetchval("SELECT count(*) FROM hookseal.workers")


async def test_a_running_promotion_is_waited_for(world: World) -> None:
    """A worker whose heartbeat follows the check of a promotion waits for its commit, and is refused (78)."""
    new = another()
    await stage(world, new)
    async with locked(world, SYSTEM_HEAD) as ends, locked(world, HEARTBEATS) as seen, starting(world) as late:
        await waits(world, BEATS)
        promoting = asyncio.create_task(promote(world, new))
        await waits(world, "audit_heads AS head")
        seen.set()
        await waits(world, "LOCK TABLE hookseal.key_lock IN ROW EXCLUSIVE")
        assert 1 == await world.pool.fetchval("SELECT count(*) FROM hookseal.workers")
        ends.set()
        await promoting
        ended = await late
    assert (78, True) == (ended.code, f"master key {id_of(new)} is the active one" in ended.err)


async def test_a_running_destruction_is_waited_for(world: World) -> None:
    """A worker with a key that is being destroyed waits for the commit as well, and is refused (78)."""
    new = another()
    await stage(world, new)
    await promote(world, new)
    await rewrap(world, new)
    await retire(world, new)
    async with (
        locked(world, SYSTEM_HEAD) as ends,
        locked(world, HEARTBEATS) as seen,
        starting(world, **swapped(new)) as late,
    ):
        await waits(world, BEATS)
        destroying = asyncio.create_task(destroy(world, new))
        await waits(world, "audit_heads AS head")
        seen.set()
        await waits(world, "LOCK TABLE hookseal.key_lock IN ROW EXCLUSIVE")
        ends.set()
        await destroying
        ended = await late
    assert (78, True) == (ended.code, f"master key {id_of(OLD)} was destroyed" in ended.err)


async def test_a_retired_key_may_be_held(world: World, receiver: Receiver) -> None:
    """A worker may have a retired key until it is destroyed, so the key can be removed from workers one by one."""
    new = another()
    await world.endpoint(f"{receiver.base_url}/hook")
    await stage(world, new)
    await promote(world, new)
    await rewrap(world, new)
    await retire(world, new)
    async with world.worker(**swapped(new)):
        [ring] = await world.publish()
        await world.state(ring, "delivered")
