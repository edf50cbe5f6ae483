"""Rotation of the integrity key under running workers, which learn the new version and verify with older ones."""

import os

import pytest

from hookseal.audit import log
from hookseal.operations.endpoint import rotation
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.worker.world import Receiver, World

pytestmark = pytest.mark.req("SEC-24", part="integrity-key")


async def test_workers_learn_a_new_version(world: World, receiver: Receiver) -> None:
    """A worker that started before the rotation delivers for rows under the old and under the new version."""
    before = await world.endpoint(f"{receiver.base_url}/before")
    moved = await world.endpoint(f"{receiver.base_url}/moved", tenant="bmce")
    async with world.worker() as worker:
        await world.state((await world.publish())[0], "delivered")
        async with world.pool.acquire() as connection:
            operator = world.installation.operator(connection)
            made = await rotate_integrity_key(operator, os.urandom)
            await rotation.rotate_secret(
                operator,
                RotationRequest(
                    tenant_id=moved.pointer.tenant_id,
                    endpoint_id=moved.pointer.endpoint_id,
                    overlap_seconds=60,
                    secret=generate_signing_secret(),
                ),
            )
            assert ["1", "2"] == [
                await connection.fetchval("SELECT mac_key_id FROM hookseal.endpoints WHERE tenant_id = $1", tenant)
                for tenant in ("acme", "bmce")
            ]
        after = await world.endpoint(f"{receiver.base_url}/after", tenant="cmce")
        for tenant in ("acme", "bmce", "cmce"):
            await world.state((await world.publish(tenant))[0], "delivered")
        assert [] == [line for line in worker.log if line["event"] == "delivery.waiting"]

    assert ("2", ("1",)) == (made.key_id, made.older)
    assert ["/before", "/before", "/moved", "/after"] == [got.path for got in receiver.received]
    assert ["1", "2"] == [before.pointer.mac_key_id, after.pointer.mac_key_id]
    assert [None] * 4 == [each.broken for each in await log.verify(world.pool, world.installation.unlocked.integrity)]


async def test_an_unknown_version_waits(world: World, receiver: Receiver) -> None:
    """A delivery whose row names an unknown version of the integrity key waits; others are delivered."""
    added = await world.endpoint(f"{receiver.base_url}/forged")
    await world.endpoint(f"{receiver.base_url}/other", tenant="bmce")
    await world.pool.execute("UPDATE hookseal.endpoints SET mac_key_id = '2' WHERE tenant_id = 'acme'")
    async with world.worker():
        [held], [sent] = [await world.publish(tenant) for tenant in ("acme", "bmce")]
        waiting = await world.state(held, "pending", waiting_for="secret")
        await world.state(sent, "delivered")

    assert "names an integrity key that is not known" in waiting["last_error"]
    assert added.pointer.mac_key_id == "1"
    assert ["/other"] == [got.path for got in receiver.received]
