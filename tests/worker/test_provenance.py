"""The versions that signed an attempt of a whole worker are recorded, and commands show them."""

import asyncio
import os
import signal
from typing import Any

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.secrets.core.ref import SecretRef
from tests.cli.command import hookseal
from tests.worker.environment import environment
from tests.worker.world import Receiver, World, held, status

PASSED = "UPDATE hookseal.deliveries SET next_attempt_at = now(), rung_at = NULL WHERE id = $1::text::uuid"


async def command(world: World, *arguments: str) -> dict[str, Any]:
    """Run the command on the installation, and return what it printed."""
    ended = await hookseal(*arguments, "--json", **environment(world.database_url, world.redis_url))
    assert 0 == ended.code, ended.out + ended.err
    return ended.json


async def begun(world: World, receiver: Receiver, path: str = "/hook") -> tuple[tuple[str, ...], list[str]]:
    """Add an endpoint; return the options that name it, and the references of its first four versions."""
    pointer = (await world.endpoint(receiver.base_url + path)).pointer
    first = SecretRef.parse(pointer.secret_ref or "")
    refs = [f"{first.provider}:{first.tenant}:{first.name}:{version}" for version in range(1, 5)]
    return ("--tenant", "acme", "--endpoint", pointer.endpoint_id), refs


async def signed(world: World, ring: Ring) -> list[list[str]]:
    """Return the versions that signed each attempt of the delivery, in order."""
    return [row["signed_by"] for row in await world.installation.attempts(ring)]


async def delivered(world: World) -> Ring:
    """Publish, and return the delivery when it is delivered."""
    [ring] = await world.publish()
    await world.state(ring, "delivered")
    return ring


async def listed(world: World, ref: str, *options: str) -> list[str]:
    """Return the deliveries that the version signed, newest first."""
    page = await command(world, "delivery", "list", "--signed-by", ref, *options)
    assert page["next_cursor"] is None
    return [item["delivery_id"] for item in page["items"]]


async def version_states(world: World, of: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Return for each version: state, whether it signs, claims in flight, attempts, whether it is needed."""
    items = (await command(world, "secret", "versions", *of))["items"]
    wanted = ("state", "signs", "claims_in_flight", "attempts", "needed")
    return [tuple(item[name] for name in wanted) for item in items]


@pytest.mark.req("SEC-23")
async def test_an_overlap_records_both_versions(world: World, receiver: Receiver) -> None:
    """During an overlap an attempt records both versions, the current one first; before and after it one."""
    of, [one, two, *_] = await begun(world, receiver)
    async with world.worker():
        before = await delivered(world)
        await command(world, "endpoint", "rotate", *of, "--overlap", "3600")
        within = await delivered(world)
        overlapping = await version_states(world, of)
        await command(world, "endpoint", "end-overlap", *of)
        after = await delivered(world)

    assert [[one]] == await signed(world, before)
    assert [[two, one]] == await signed(world, within)
    assert [[two]] == await signed(world, after)
    assert [within.delivery_id, before.delivery_id] == await listed(world, one)
    assert [after.delivery_id, within.delivery_id] == await listed(world, two, *of)
    assert [("previous", True, 0, 2, True), ("active", True, 0, 1, True)] == overlapping
    assert [("retired", False, 0, 2, False), ("active", True, 0, 2, True)] == await version_states(world, of)


@pytest.mark.req("SEC-23")
async def test_each_attempt_records_its_own_versions(world: World, receiver: Receiver) -> None:
    """A retry and a replay are signed with the versions of their time; each attempt keeps the record of its own."""
    receiver.answers["/hook"] = status(500)
    of, [one, two, three, _] = await begun(world, receiver)
    async with world.worker():
        [ring] = await world.publish()
        await world.tried(ring)
        await command(world, "endpoint", "rotate", *of, "--overlap", "0")
        receiver.answers["/hook"] = status(204)
        await world.pool.execute(PASSED, ring.delivery_id)
        await world.state(ring, "delivered")
        await command(world, "endpoint", "rotate", *of, "--overlap", "3600")
        await command(world, "delivery", "replay", ring.delivery_id)
        await receiver.wait_for(3)
        await world.state(ring, "delivered")
        replayed = await command(world, "delivery", "replay", ring.delivery_id, "--new-id")
        await receiver.wait_for(4)
        again = Ring(tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, delivery_id=replayed["delivery_id"])
        await world.state(again, "delivered")

    assert [[one], [two], [three, two]] == await signed(world, ring)
    assert [[three, two]] == await signed(world, again)
    both = [again.delivery_id, ring.delivery_id]
    assert [both[1:], both, both] == [await listed(world, ref) for ref in (one, two, three)]


@pytest.mark.req("SEC-23")
async def test_claims_in_flight_need_their_versions(world: World, receiver: Receiver) -> None:
    """Claims in flight need their versions until the lease ends; then the unknown attempt keeps their references."""
    answer = asyncio.Event()
    receiver.answers["/hook"] = held(answer)
    of, [one, two, three, _] = await begun(world, receiver)
    await command(world, "endpoint", "rotate", *of, "--overlap", "3600")
    async with world.worker() as worker:
        [ring] = await world.publish()
        await receiver.wait_for(1)
        os.kill(worker.pid, signal.SIGKILL)
        assert -signal.SIGKILL == await worker.ended()
    answer.set()
    await command(world, "endpoint", "rotate", *of, "--overlap", "0", "--no-wait")

    assert [[ring.delivery_id]] * 2 == [await listed(world, ref) for ref in (one, two)]
    assert [] == await listed(world, three)
    holding = ("retired", False, 1, 0, True)
    assert [holding, holding, ("active", True, 0, 0, True)] == await version_states(world, of)

    async with world.worker():
        await world.pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")  # its lease has expired
        await world.state(ring, "delivered")
    assert ["unknown", "delivered"] == [row["outcome"] for row in await world.installation.attempts(ring)]
    assert [[two, one], [three]] == await signed(world, ring)
    assert [[ring.delivery_id]] * 3 == [await listed(world, ref) for ref in (one, two, three)]
    over = ("retired", False, 0, 1, False)
    assert [over, over, ("active", True, 0, 1, True)] == await version_states(world, of)
