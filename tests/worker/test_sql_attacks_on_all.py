"""An attacker with write access to rows of the whole installation: keys, epochs, leases, heartbeats."""

from collections.abc import Mapping

import asyncpg
import pytest

from hookseal.dispatcher.store.ledger import PostgresLedger
from tests.doubles.kept_rows import keep, put_back
from tests.worker.attacks_on_records import MISPLACED
from tests.worker.world import Receiver, World

pytestmark = [pytest.mark.req("SEC-24", part="sql-attacks"), pytest.mark.req("SEC-08")]

# Each attack on such rows, and the reason for which a delivery then waits, if it does.
_COPIED_KEY = (
    "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, state)"
    " SELECT tenant_id, name, 2, provider, purpose, sealed, 'previous' FROM hookseal.secret_records"
    " WHERE name = 'integrity';"
)
INSTALLATION: Mapping[str, str | None] = {
    "DELETE FROM hookseal.control WHERE name = 'restore'": "lacks its row",
    "DELETE FROM hookseal.control WHERE name = 'cache'": "lacks its row",
    "UPDATE hookseal.control SET holder = 'x', token = gen_random_uuid(), until = 'infinity'": None,
    "UPDATE hookseal.secret_keys SET state = 'retired'": "is retired: it opens nothing any more",
    "UPDATE hookseal.secret_keys SET check_value = ''": None,
    "DELETE FROM hookseal.secret_keys": None,
    "DELETE FROM hookseal.secret_records WHERE tenant_id = '_system'": None,
    _COPIED_KEY: None,
    f"{_COPIED_KEY} UPDATE hookseal.endpoints SET mac_key_id = '2'": MISPLACED,  # noqa: S608 -- ours
    "UPDATE hookseal.workers SET beaten_at = 'infinity', started_at = '-infinity', drain_seconds = 0": None,
    "DELETE FROM hookseal.workers": None,
    "DELETE FROM hookseal.audit_heads": None,
    "UPDATE hookseal.audit_heads SET sequence = 9223372036854775807, mac = ''": None,
    "UPDATE hookseal.control SET epoch = 1000000000000000": None,  # last, because no epoch is higher
}
_OF_THE_INSTALLATION = ("control", "secret_keys", "secret_records", "workers", "audit_heads", "endpoints")


async def test_attacks_on_the_installation_only_delay_deliveries(world: World, receiver: Receiver) -> None:
    """Altered keys, epochs, leases and heartbeats at most delay deliveries, and each delay has its reason."""
    await world.endpoint(f"{receiver.base_url}/hook")
    await keep(world.pool, *_OF_THE_INSTALLATION)
    async with world.worker():
        for number, (attack, expected_error) in enumerate(INSTALLATION.items(), start=1):
            await restored(world, epoch=10 * number)
            await world.pool.execute(attack)
            [ring] = await world.publish()
            if expected_error is not None:
                row = await world.state(ring, "pending", waiting_for="secret")
                assert (True, 0) == (expected_error in row["last_error"], row["attempts"]), (attack, row["last_error"])
                await restored(world, epoch=10 * number + 5)
            await world.state(ring, "delivered")
    assert len(INSTALLATION) == len(receiver.received)


async def restored(world: World, *, epoch: int) -> None:
    """Restore the tables of the installation, set the cache epoch, and release every held endpoint."""
    async with world.pool.acquire() as connection, connection.transaction():
        await put_back(connection, *_OF_THE_INSTALLATION)
        await connection.execute("UPDATE hookseal.control SET epoch = $1 WHERE name = 'cache'", epoch)
        await connection.execute("UPDATE hookseal.held_endpoints SET released_at = now()")


@pytest.mark.parametrize("epoch", [-(2**63), -1, 10**15 + 1, 2**63 - 1])
async def test_an_epoch_out_of_bounds_is_refused(world: World, epoch: int) -> None:
    """The database rejects an epoch that is negative or above the upper bound."""
    with pytest.raises(asyncpg.CheckViolationError):
        await world.pool.execute("UPDATE hookseal.control SET epoch = $1", epoch)


async def test_forged_leases_do_not_delay_other_leases(world: World) -> None:
    """Forged leases with numbers out of range do not keep other expired leases from being ended."""
    await world.endpoint("http://127.0.0.1:9/hook")
    rings = [ring for _ in range(4) for ring in await world.publish(rung=False)]
    lease = (
        "UPDATE hookseal.deliveries SET state = 'sending', next_attempt_at = NULL, lease_owner = 'x',"
        " claimed_refs = '{}', lease_token = gen_random_uuid(), lease_expires_at = now() - interval '1 s',"
        " claimed_at = now(), claimed_number = 1"
    )
    forged = (
        "claimed_number = 2147483647, claimed_at = 'infinity'",
        "budget_spent = 2147483647",
        "attempts = -2147483648",
    )
    await world.pool.execute(lease)
    for ring, assignment in zip(rings, forged, strict=False):
        await world.pool.execute(
            f"UPDATE hookseal.deliveries SET {assignment} WHERE id = $1::text::uuid",  # noqa: S608 -- ours
            ring.delivery_id,
        )
    await world.pool.execute(
        "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
        " SELECT tenant_id, id, 1, now(), 'delivered', '{}', 'x' FROM hookseal.deliveries"
    )

    states = await PostgresLedger(world.pool, worker="w-1", lease_seconds=45).end_lost_leases()

    assert ["dead_letter", "pending", "pending", "pending"] == sorted(states)
