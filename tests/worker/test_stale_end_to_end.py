"""A whole database, epochs included, that is restored under a running worker, which detects it by what it saw."""

import pytest

from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.operations.restore import accept_restore
from tests.worker.test_stale import PUT_BACK, REST_OF_THE_DATABASE, later, secret_of, signed_with
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

pytestmark = pytest.mark.req("SEC-24", part="stale")
_KEPT = {"endpoints": "kept", "audit_log": "log", "audit_heads": "heads", "secret_records": "r"}
_ALL_OF_IT = f"{PUT_BACK}{REST_OF_THE_DATABASE}; UPDATE hookseal.control SET epoch = 0"  # noqa: S608 -- ours


async def accept(world: World) -> None:
    """Accept the restore."""
    async with world.pool.acquire() as connection:
        await accept_restore(world.installation.operator(connection), ())


async def backed_up(world: World, receiver: Receiver) -> AddedEndpoint:
    """Add an endpoint, and copy every table."""
    added = await world.endpoint(f"{receiver.base_url}/seen")
    for table, kept in _KEPT.items():
        await world.pool.execute(f"CREATE TABLE {kept} AS SELECT * FROM hookseal.{table}")  # noqa: S608 -- names of ours
    return added


async def put_back(world: World, receiver: Receiver) -> None:
    """Deliver once, so that the worker has seen everything, and restore every table."""
    [first] = await world.publish()
    seen = await world.state(first, "delivered")
    await world.pool.execute(_ALL_OF_IT)
    await eventually(lambda: later(world, seen["claimed_at"]))


async def test_a_database_from_before_an_accepted_restore_is_detected(world: World, receiver: Receiver) -> None:
    """A database from before an accepted restore is detected, and accepting it takes effect at once."""
    added = await backed_up(world, receiver)
    await accept(world)
    await world.rotate(added)
    async with world.worker():
        await put_back(world, receiver)
        [held] = await world.publish()
        waiting = await world.state(held, "pending", waiting_for="secret")
        assert "before a restore that this process knows was accepted" in waiting["last_error"]
        await accept(world)
        await world.state(held, "delivered")
    signed_with(receiver.received[1], secret_of(added))


async def test_a_reused_version_number_replaces_the_cached_secret(world: World, receiver: Receiver) -> None:
    """A version made after the restore replaces the lost one of the same number that the worker has cached."""
    added = await backed_up(world, receiver)
    lost = await world.rotate(added)
    async with world.worker():
        await world.pool.execute("UPDATE hookseal.control SET epoch = epoch + 1 WHERE name = 'cache'")
        await put_back(world, receiver)
        await accept(world)
        new = await world.rotate(added)
        assert lost.secret_ref == new.secret_ref
        [second] = await world.publish()
        await world.state(second, "delivered")
    signed_with(receiver.received[1], secret_of(new))
