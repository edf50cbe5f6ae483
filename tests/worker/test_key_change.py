"""The complete change of a master key under traffic, by real worker processes and the commands of an operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.rotation import Announced, take_turn
from hookseal.secrets.core.envelope import open_sealed
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Purpose, SecretContext
from hookseal.secrets.endpoint import schedule
from tests.doubles import moved_clock
from tests.doubles.logbook import audited
from tests.worker.key_life import (
    OLD,
    Fleet,
    alone,
    another,
    bulk,
    command,
    fleet,
    id_of,
    key,
    killed_in_mid_batch,
    name_of,
    records,
    rewrap,
    staged,
    swapped,
)
from tests.worker.test_rotation import nothing_left, verifies
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, Worker, World

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
        """Add an endpoint, and return its id."""
        new = NewEndpoint(tenant_id=ACME, url=self.receiver.base_url + path, event_types=("*",), timeout_ms=15_000)
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
        """The installation."""
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
        assert [True, False] == [name_of(self.workers.running[name]) in refused for name in ("b", "a")]
        await self.story.rotate(endpoint, "--overlap", "3600", **staged(self.new))
        await self.workers.restart("b", **staged(self.new))

    async def promote(self, endpoint: EndpointId, by_schedule: EndpointId) -> str:
        """Promote it and swap the variables. Return the worker that started before and rotated under the new key."""
        assert "active" == (await self.run("promote", id_of(self.new)))["state"]
        await self.story.rotate(endpoint, "--overlap", "3600", **staged(self.new))
        leader = await self.workers.leader()
        [survivor] = self.workers.running.keys() - {leader}
        who = name_of(self.workers.running[survivor])
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
        assert name_of(self.workers.running["b"]) in refused["error"]["message"]
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
    assert {"Bearer token-1"} == {_header(got, "authorization") for got in receiver.received if got.path == "/headed"}
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
    arrived = {_header(got, "webhook-id"): got for got in story.receiver.received}
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


def _header(got: Received, name: str) -> str:
    return {name.lower(): value for name, value in got.headers.items()}[name]
