"""Whole workers while master keys change: which start, what they sign, a complete change, and the drill for a leak."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.operations.endpoint.rotation import Announced, take_turn
from hookseal.secrets.core.envelope import open_sealed, seal
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Purpose, SecretContext, SecretRef
from hookseal.secrets.endpoint import schedule
from tests.cli.command import Ended, hookseal
from tests.doubles import moved_clock
from tests.doubles.logbook import audited
from tests.worker.environment import environment
from tests.worker.fleet import Worker
from tests.worker.key_life import (
    OLD,
    SYSTEM_HEAD,
    Fleet,
    alone,
    another,
    bulk,
    command,
    destroy,
    fleet,
    id_of,
    key,
    killed_in_mid_batch,
    promote,
    records,
    retire,
    rewrap,
    stage,
    staged,
    swapped,
    waits,
)
from tests.worker.test_rotation import arrived_once_at_the_first_attempt, nothing_left, traffic, verifies, wait_for_more
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import Receiver, World

BEATS = "INSERT INTO hookseal.workers"
HEARTBEATS = "LOCK TABLE hookseal.workers IN SHARE MODE"  # can be read and not written


async def started(world: World, **keys: str) -> Ended:
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


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
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


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
async def test_a_worker_without_the_active_key_is_refused(world: World) -> None:
    """A worker without the active key is refused (78), with the id of that key, and is not counted as live."""
    new = another()
    await stage(world, new)
    await promote(world, new)
    ended = await started(world)
    assert (78, True) == (ended.code, f"master key {id_of(new)} is the active one" in ended.err)
    assert 0 == await world.pool.fetchval("SELECT count(*) FROM hookseal.workers")


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
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


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
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


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
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


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
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


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
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


@pytest.mark.req("SEC-04", part="check-at-boot")
@pytest.mark.req("SEC-05", part="under-traffic")
async def test_a_retired_key_may_be_held(world: World, receiver: Receiver) -> None:
    """A worker may have a retired key until it is destroyed, so the key can be removed from workers one by one."""
    new = another()
    await world.endpoint(f"{receiver.base_url}/hook")
    await stage(world, new)
    await promote(world, new)
    await rewrap(world, new)
    await retire(world, new)
    async with world.worker(**swapped(new)):
        await world.deliver()


# Workers while master keys change: a frozen worker, a purged cache, and a record under an unregistered key.


_AGED = "UPDATE hookseal.workers SET beaten_at = now() - interval '31 seconds' WHERE id = $1"
_MISSES, _HITS = "hookseal_secret_cache_misses_total", "hookseal_secret_cache_hits_total"


async def rotated(world: World, added: AddedEndpoint, new: str) -> str:
    """Rotate under the new key, revoking the previous secret, and return the secret."""
    of = ("--tenant", added.pointer.tenant_id, "--endpoint", added.pointer.endpoint_id)
    result = await command(world, "endpoint", "rotate", *of, "--overlap", "0", "--print-secret", keys=staged(new))
    return str(result["secret"])


@pytest.mark.timeout(300)
@pytest.mark.req("SEC-05", part="under-traffic")
async def test_a_frozen_worker_holds_what_it_cannot_open(world: World, receiver: Receiver) -> None:
    """A worker frozen during a promotion signs what it can open, and holds the rest for a worker with the new key."""
    moved = await world.endpoint(f"{receiver.base_url}/moved")
    kept = await world.endpoint(f"{receiver.base_url}/kept", tenant="bmce")
    new = another()
    await stage(world, new)
    async with fleet(world) as workers:
        frozen = await workers.start("frozen")
        await asked(world, frozen)  # so its cache has the older version of this endpoint
        frozen.send(signal.SIGSTOP)
        await world.pool.execute(_AGED, frozen.worker_id)  # as if its heartbeat had become too old
        await promote(world, new)
        secret = await rotated(world, moved, new)
        frozen.send(signal.SIGCONT)

        [held], [sent] = await world.publish(), await world.publish("bmce")
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert f"master key {id_of(new)} is not among the keys of this process" in waiting["last_error"]
        await world.state(sent, "delivered")
        await eventually_equals((503, "unavailable"), partial(_keys_at_start, frozen))
        assert [] == await world.installation.attempts(held)
        await workers.stop("frozen")

        await workers.start("able", **staged(new))
        await world.probe_held()
        await receiver.wait_for(3)
        assert 1 == (await world.state(held, "delivered"))["attempts"]
    secrets = {"/moved": secret, "/kept": kept.secret.reveal().decode()}
    assert [("/kept", True), ("/moved", True)] == [
        (got.path, verifies(secrets[got.path], got)) for got in receiver.received[1:]
    ]


async def _keys_at_start(worker: Worker) -> tuple[int, str]:
    code, body = await worker.get("/startupz")
    return code, body["checks"]["keys"]


@pytest.mark.req("SEC-06", part="purge")
async def test_retiring_a_key_empties_the_caches(world: World, receiver: Receiver) -> None:
    """Promotion and re-wrap leave the caches unchanged, because no version changes; a retirement empties each cache."""
    await world.endpoint(f"{receiver.base_url}/hook")
    new = another()
    await stage(world, new)
    async with world.worker(**staged(new)) as worker:
        assert [(0, 1), (1, 1)] == [await asked(world, worker), await asked(world, worker)]
        await promote(world, new)
        await rewrap(world, new)
        assert (2, 1) == await asked(world, worker)
        await retire(world, new)
        assert [(2, 2), (3, 2)] == [await asked(world, worker), await asked(world, worker)]


@pytest.mark.req("SEC-06", part="purge")
@pytest.mark.req("SEC-22", part="under-traffic")
async def test_compromise_empties_the_caches(world: World, receiver: Receiver) -> None:
    """The drill empties the caches: in the overlap the exposed version is read again, like the new one."""
    await world.endpoint(f"{receiver.base_url}/hook")
    new = another()
    await stage(world, new)
    async with world.worker(**staged(new)) as worker:
        assert (0, 1) == await asked(world, worker)
        await promote(world, new)
        await command(world, "key", "compromise", id_of(OLD), "--overlap", "3600", keys=staged(new))
        assert [(0, 3), (2, 3)] == [await asked(world, worker), await asked(world, worker)]


async def asked(world: World, worker: Worker) -> tuple[float, float]:
    """Deliver once, and return the total numbers of cache hits and misses."""
    await world.deliver()
    found = await worker.figures()
    return found[_HITS, None], found[_MISSES, None]


@pytest.mark.req("SEC-04", part="keyring")
async def test_a_record_under_an_unregistered_key_waits(world: World, receiver: Receiver) -> None:
    """Only the endpoint of a record under an unregistered key waits; status and figures report the record."""
    added = await world.endpoint(f"{receiver.base_url}/quarantined")
    await world.endpoint(f"{receiver.base_url}/other", tenant="bmce")
    foreign, ref = key(another()), SecretRef.parse(added.pointer.secret_ref or "")
    context = SecretContext.of(ref, Purpose.WEBHOOK_SIGNING)
    await world.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = $2 WHERE tenant_id = 'acme' AND name = $1",
        *(ref.name, seal(KeyRing(foreign), added.secret, context)),
    )
    async with world.worker() as worker:
        [held], [sent] = await world.publish(), await world.publish("bmce")
        waiting = await world.state(held, "pending", waiting_for="secret")
        await world.state(sent, "delivered")

        async def measured() -> bool:
            found = await worker.figures()
            return (
                1 == found.get(("hookseal_master_key_records", "unregistered unregistered"))
                and 1 == found["hookseal_waiting", "secret"]
            )

        await eventually(measured)
        items = (await command(world, "key", "status"))["items"]
    assert f"master key {foreign.key_id} is not among the keys of this process" in waiting["last_error"]
    assert (0, ["/other"]) == (waiting["attempts"], [got.path for got in receiver.received])
    assert [(id_of(OLD), "active", 3), (foreign.key_id, "unregistered", 1)] == [
        (item["key_id"], item["state"], item["records"]) for item in items
    ]


@pytest.mark.req("SEC-05", part="audited")
async def test_each_batch_of_a_re_wrap_is_audited(world: World, receiver: Receiver) -> None:
    """Each batch of a re-wrap is one audit row of the installation, none of a tenant, and the records stay usable."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    new = another()
    await stage(world, new)
    await promote(world, new)
    await rewrap(world, new)
    async with world.worker(**staged(new)):
        await world.deliver()
    assert verifies(added.secret.reveal().decode(), receiver.received[0])
    rows = await world.pool.fetch(
        "SELECT tenant_id, action, after FROM hookseal.audit_log WHERE action LIKE 'key.%' ORDER BY sequence"
    )
    assert {"_system"} == {row["tenant_id"] for row in rows}
    assert ["key.staged", "key.promoted", "key.rewrapped", "key.drained"] == [row["action"] for row in rows]
    details = json.loads(rows[2]["after"])
    assert (id_of(new), 3) == (details["to"], details["records"])
    assert ["endpoint.added"] == [
        row["action"]
        for row in await world.pool.fetch(
            "SELECT action FROM hookseal.audit_log WHERE tenant_id = $1", TenantId("acme")
        )
    ]


# The complete change of a master key under traffic, by real worker processes and the commands of an operator.


ACME = TenantId("acme")
MANY = 1_100  # more than two batches of a re-wrap
_ON_THEIR_WAY = 8
_EVENTS_PER_SECOND = 20
_OF = "UPDATE hookseal.endpoints SET rotate_every_days = $2 WHERE id = $1::text::uuid"
_WORSE = {"delivery.waiting", "stale.found", "housekeeping.failed", "secret.scheduled_rotation_failed"}


@dataclass(kw_only=True)
class Story:
    """An installation under traffic, the secret of every version, and deliveries whose expected signers are known."""

    world: World
    receiver: Receiver
    secrets: dict[str, str] = field(default_factory=dict)
    probes: list[tuple[Ring, list[str]]] = field(default_factory=list)
    signing: dict[EndpointId, list[str]] = field(default_factory=dict)
    published: int = 0

    async def add(self, path: str, headers: dict[str, bytes] | None = None) -> EndpointId:
        new = NewEndpoint(
            tenant_id=ACME, url=self.receiver.base_url + path, event_types=("*",), settings={"timeout_ms": 15_000}
        )
        added = await self.world.installation.add(new, headers=headers)
        self._signs(added.pointer.endpoint_id, [str(added.pointer.secret_ref)], added.secret.reveal().decode())
        return added.pointer.endpoint_id

    async def rotate(self, endpoint: EndpointId, *options: str, **keys: str) -> dict[str, Any]:
        """Rotate by the command, and publish an event that must be signed accordingly."""
        of = ("--tenant", ACME, "--endpoint", endpoint)
        result = await command(self.world, "endpoint", "rotate", *of, *options, "--print-secret", keys=keys)
        previous = [result["previous_secret_ref"]] if result["previous_secret_ref"] else []
        self._signs(endpoint, [result["secret_ref"], *previous], result["secret"])
        await self.probe()
        return result

    async def revealed(self, endpoint: EndpointId, ref: str, **keys: str) -> None:
        """Reveal a secret that a worker made, and publish an event that must be signed with it and the previous one."""
        of = ("--tenant", ACME, "--endpoint", endpoint)
        result = await command(self.world, "secret", "reveal", *of, "--print-secret", keys=keys)
        assert ref == result["secret_ref"]
        self._signs(endpoint, [ref, self.signing[endpoint][0]], result["secret"])
        await self.probe()

    async def probe(self) -> None:
        """Publish one event whose deliveries must be signed with the versions that sign now."""
        rings = await self.world.publish()
        self.published += len(rings)
        self.probes += [(ring, self.signing[EndpointId(ring.endpoint_id)]) for ring in rings]

    @asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Publish at a steady rate during the block, with a bounded number of deliveries in flight."""
        over = asyncio.Event()

        async def flow() -> None:
            while not over.is_set():  # a cancellation could be lost: see `worker.run.cancelled`
                rings = await self.world.publish(rung=False)  # only the outbox rings, so that the load stays bounded
                self.published += len(rings)
                await self.receiver.wait_for(max(1, self.published - _ON_THEIR_WAY))
                await asyncio.sleep(1 / _EVENTS_PER_SECOND)  # the rate

        publishing = asyncio.create_task(flow())
        try:
            yield
        finally:
            over.set()
            await publishing

    def _signs(self, endpoint: EndpointId, refs: list[str], secret: str) -> None:
        self.secrets[refs[0]] = secret
        self.signing[endpoint] = refs


async def announced(world: World, endpoint: EndpointId) -> None:
    """Have the scheduled rotation announced half a day ago: it is due when the row gets an interval again."""
    await moved_clock.make(world.database_url)
    await world.pool.execute(_OF, endpoint, 1)
    await world.pool.execute(
        "UPDATE hookseal.endpoints SET secret_updated_at = now() - interval '24 hours 30 minutes'"
        " WHERE id = $1::text::uuid",
        endpoint,
    )
    await moved_clock.move(world.pool, -timedelta(hours=12, minutes=15))
    then = await asyncpg.connect(world.database_url, server_settings=moved_clock.SETTINGS)
    try:
        [due] = await schedule.upcoming(then, None)
        assert isinstance(await take_turn(world.installation.operator(then), due, overlap_seconds=86_400), Announced)
    finally:
        await then.close()
    await world.pool.execute(_OF, endpoint, None)


async def rotations(world: World) -> list[tuple[str, str, str]]:
    """Return, for every rotation, who made it, the new version and its master key."""
    rows = await audited(world.pool)
    return [
        (row["who"], row["after"]["secret_ref"], row["after"]["key_id"])
        for row in rows
        if row["action"] == "secret.rotated"
    ]


@dataclass(kw_only=True)
class Change:
    """The steps of a change of the master key, each under traffic."""

    story: Story
    workers: Fleet
    new: str = field(default_factory=another)

    @property
    def world(self) -> World:
        return self.story.world

    async def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command of the group `key`, with the master keys of its step."""
        keys = {"stage": staged, "promote": staged, "destroy": alone, "status": alone}.get(arguments[0], swapped)
        return await command(self.world, "key", *arguments, code=code, keys=keys(self.new))

    async def stage(self, endpoint: EndpointId) -> None:
        """Stage the key and give it to every worker; it cannot be promoted before the last worker has it."""
        assert "staged" == (await self.run("stage"))["state"]
        await self.workers.restart("a", **staged(self.new))
        refused = (await self.run("promote", id_of(self.new), code=4))["error"]["message"]
        assert [True, False] == [self.workers.running[name].worker_id in refused for name in ("b", "a")]
        await self.story.rotate(endpoint, "--overlap", "3600", **staged(self.new))
        await self.workers.restart("b", **staged(self.new))

    async def promote(self, endpoint: EndpointId, by_schedule: EndpointId) -> str:
        """Promote it and swap the variables. Return the worker that started before and rotated under the new key."""
        assert "active" == (await self.run("promote", id_of(self.new)))["state"]
        await self.story.rotate(endpoint, "--overlap", "3600", **staged(self.new))
        leader = await self.workers.leader()
        [survivor] = self.workers.running.keys() - {leader}
        who = self.workers.running[survivor].worker_id
        await self.workers.stop(leader)
        await self.world.pool.execute(_OF, by_schedule, 1)  # now only the survivor can rotate

        async def rotated() -> str | None:
            return next((ref for _, ref, _ in await rotations(self.world) if by_schedule in ref), None)

        ref = await eventually(rotated)
        await self.workers.start(leader, **swapped(self.new))
        await self.story.revealed(by_schedule, ref, **swapped(self.new))
        await self.workers.restart(survivor, **swapped(self.new))
        return who

    async def rewrap(self, endpoint: EndpointId) -> None:
        """Re-wrap: kill the command within a batch, then run it again; before that, the old key cannot be retired."""
        old = id_of(OLD)
        refused = await self.run("retire", old, code=4)
        assert f"hookseal key rewrap {old}" in refused["error"]["message"]
        before = await records(self.world, OLD)
        await rewrap(self.world, self.new, batches=1)
        await killed_in_mid_batch(self.world, **swapped(self.new))
        assert before - 500 == await records(self.world, OLD)
        await self.story.rotate(endpoint, "--overlap", "0", **swapped(self.new))
        result = await self.run("rewrap", old)
        assert (before - 500, 0, []) == (result["moved"], result["left"], result["failed"])
        assert 0 == await records(self.world, OLD)

    async def end(self, endpoint: EndpointId) -> None:
        """Retire the old key, remove it from every worker, and mark it as destroyed once no worker has it."""
        old = id_of(OLD)
        assert "retired" == (await self.run("retire", old))["state"]
        await self.story.probe()
        await self.workers.restart("a", **alone(self.new))
        refused = await self.run("destroy", old, code=4)
        assert self.workers.running["b"].worker_id in refused["error"]["message"]
        await self.workers.restart("b", **alone(self.new))
        assert "destroyed" == (await self.run("destroy", old))["state"]
        await self.story.rotate(endpoint, "--overlap", "3600", **alone(self.new))


@pytest.mark.timeout(600)
@pytest.mark.req("SEC-05", part="under-traffic")
@pytest.mark.req("SEC-05", part="resumed")
async def test_no_delivery_fails_during_a_key_change(world: World, receiver: Receiver) -> None:
    """In a complete change of the master key no delivery fails, waits, or has a wrong signature."""
    story = Story(world=world, receiver=receiver)
    plain, other, by_schedule = [await story.add(path) for path in ("/plain", "/other", "/scheduled")]
    headed = await story.add("/headed", {"authorization": b"Bearer token-1"})
    await announced(world, by_schedule)
    await bulk(world, MANY, tenant="aaa")
    async with fleet(world) as workers:
        change = Change(story=story, workers=workers)
        for name in ("a", "b"):
            await workers.start(name)
        async with story.traffic():
            await change.stage(plain)
            who = await change.promote(headed, by_schedule)
            await change.rewrap(plain)
            await change.end(other)
        await eventually(lambda: nothing_left(world))
        assert [] == _troubles(workers.all)
    await _each_once_and_signed_right(story)
    assert {"Bearer token-1"} == {got.headers["authorization"] for got in receiver.received if got.path == "/headed"}
    made = await rotations(world)
    assert [id_of(OLD), *[id_of(change.new)] * 4] == [key_id for _, _, key_id in made]
    assert [f"worker/{who}"] == [by for by, ref, _ in made if by_schedule in ref]
    await _opens_under(world, change.new)
    items = (await change.run("status"))["items"]
    assert [(id_of(OLD), "destroyed", 0), (id_of(change.new), "active", MANY + 12)] == [
        (item["key_id"], item["state"], item["records"]) for item in items
    ]
    await command(world, "audit", "verify", keys=alone(change.new))


def _troubles(workers: list[Worker]) -> list[dict[str, Any]]:
    return [line for worker in workers for line in worker.log if line["event"] in _WORSE or line["level"] == "error"]


async def _each_once_and_signed_right(story: Story) -> None:
    """Fail unless every delivery arrived once, at its first attempt, with a signature of each secret then valid."""
    rows = await story.world.pool.fetch(
        "SELECT d.id::text, d.state, d.attempts, a.outcome, a.signed_by FROM hookseal.deliveries AS d"
        "  LEFT JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id"
    )
    assert {("delivered", 1, "delivered")} == {(row["state"], row["attempts"], row["outcome"]) for row in rows}
    arrived = {got.headers["webhook-id"]: got for got in story.receiver.received}
    assert story.published == len(rows) == len(arrived) == len(story.receiver.received)
    signed = {row["id"]: row["signed_by"] for row in rows}
    for delivery_id, got in arrived.items():
        refs = signed[delivery_id]
        assert len(refs) == len(got.headers["webhook-signature"].split())
        assert all(verifies(story.secrets[ref], got) for ref in refs)
    assert [refs for _, refs in story.probes] == [signed[ring.delivery_id] for ring, _ in story.probes]


async def _opens_under(world: World, new: str) -> None:
    """Fail unless each of the bulk records opens with the new key alone and has its original contents."""
    ring = KeyRing(key(new))
    rows = await world.pool.fetch("SELECT name, sealed FROM hookseal.secret_records WHERE tenant_id = 'aaa'")
    assert MANY == len(rows)
    for row in rows:
        context = SecretContext(tenant=TenantId("aaa"), name=row["name"], version=1, purpose=Purpose.WEBHOOK_SIGNING)
        number = int(row["name"][-12:], 16)
        assert f"secret-{number}".encode() == open_sealed(ring, row["sealed"], context).reveal()


# The drill for a leaked master key, under the traffic of a whole worker.


_OVER = "SELECT bool_and(previous_secret_expires_at < now()) FROM hookseal.endpoints"
_SIGNED = (
    "SELECT a.signed_by, a.started_at > $1 AS after FROM hookseal.attempts AS a ORDER BY a.started_at, a.delivery_id"
)


async def overlaps_ended(world: World) -> bool:
    return bool(await world.pool.fetchval(_OVER))


async def run_compromise(world: World, receiver: Receiver, *keys: str, refs: set[str]) -> None:
    """Run the drill under traffic until its overlap has ended; later claims must be signed with new secrets only."""
    new = staged(keys[0])
    async with traffic(world):
        await receiver.wait_for(20)
        result = await command(world, "key", "compromise", id_of(OLD), "--overlap", "5", keys=new)
        assert (4, 2, True, []) == tuple(
            result[name] for name in ("versions", "rotated", "integrity_rotated", "failed")
        )
        await eventually(lambda: overlaps_ended(world))
        since = await world.pool.fetchval("SELECT now()")
        await wait_for_more(receiver, 40)
    await eventually(lambda: nothing_left(world))
    rows = await world.pool.fetch(_SIGNED, since)
    signed = [(set(row["signed_by"]), row["after"]) for row in rows]
    assert 10 <= sum(len(by) == 2 and len(by & refs) == 1 for by, _ in signed)
    assert 30 <= sum(after for _, after in signed)
    assert not any(by & refs for by, after in signed if after)


@pytest.mark.timeout(600)
@pytest.mark.req("SEC-22", part="under-traffic")
async def test_no_exposed_secret_signs_after_the_overlap(world: World, receiver: Receiver) -> None:
    """Deliveries continue with both signatures during the overlap; after it no exposed secret signs."""
    old = {}
    for path in ("/one", "/two"):
        added = await world.endpoint(receiver.base_url + path, timeout_ms=15_000)
        old[str(added.pointer.secret_ref)] = added.secret.reveal().decode()
    new = another()
    await stage(world, new)
    async with world.worker(**staged(new)) as worker:
        await promote(world, new)
        await rewrap(world, new)  # not enough: the key and a copy of the table reveal the secrets
        exposed = (await command(world, "key", "versions", id_of(OLD), keys=staged(new)))["items"]
        assert old.keys() == {item["ref"] for item in exposed if item["used_as"] == "current"}
        await run_compromise(world, receiver, new, refs=set(old))
        assert [] == worker.logged("delivery.waiting", "stale.found")

    await arrived_once_at_the_first_attempt(world, receiver)
    assert not any(verifies(secret, got) for secret in old.values() for got in receiver.received[-20:])
    repeated = await command(world, "key", "compromise", id_of(OLD), "--overlap", "3", keys=staged(new))
    assert (0, False, []) == tuple(repeated[name] for name in ("rotated", "integrity_rotated", "failed"))
