"""An attacker with write access to the tables cannot cause a request with a wrong signature or to a wrong receiver."""

import re
from collections.abc import Mapping
from contextlib import suppress

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.postgres.pool import Pool
from tests.doubles.kept_rows import keep, put_back
from tests.worker.attacked import RIVAL, Stage, arranged
from tests.worker.attacks import ATTACKS, BROKEN_LOG, MISPLACED
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, receiving

pytestmark = [pytest.mark.req("SEC-24", part="sql-attacks"), pytest.mark.req("SEC-08")]

Deliveries = Mapping[str, tuple[Ring, Ring]]


async def unexpected_deliveries(stage: Stage, deliveries: Deliveries, *, attempts: int = 0) -> dict[str, object]:
    """Return, by attack, each delivery that is not as the attack says, or has more attempts than allowed."""
    found: dict[str, object] = {}
    rows = await stage.world.pool.fetch(
        "SELECT id::text, state, waiting_for, last_error, attempts FROM hookseal.deliveries"
    )
    by_id = {row["id"]: row for row in rows}
    for scene in stage.scenes:
        held, sent = [by_id[ring.delivery_id] for ring in deliveries[scene.victim.tenant]]
        attack = scene.attack
        if (held["state"], held["waiting_for"]) != (attack.state, attack.waiting_for):
            found[attack.name] = (held["state"], held["waiting_for"], held["last_error"])
        elif attack.expected_error not in (held["last_error"] or "") or (
            held["state"] == "pending" and held["attempts"] > attempts
        ):
            found[attack.name] = (held["last_error"], held["attempts"])
        elif sent["state"] != "delivered":
            found[attack.name] = ("its sibling", sent["state"], sent["last_error"])
    return found


async def wait_for_expected_deliveries(stage: Stage, deliveries: Deliveries, *, attempts: int = 0) -> None:
    """Return when every delivery is as its attack says; fail with the others at the deadline.

    One that waits is tried again from time to time, and for that moment it does not count as waiting.
    """
    found: dict[str, object] = {}

    async def look() -> bool:
        nonlocal found
        found = await unexpected_deliveries(stage, deliveries, attempts=attempts)
        return not found

    with suppress(AssertionError):
        await eventually(look)
    assert {} == found


async def require_alarms(stage: Stage, worker: Worker) -> None:
    """Return when every stale row is logged, and audited unless the log of its tenant is broken."""
    stale = {scene.victim.tenant: scene.attack for scene in stage.scenes if "is stale" in scene.attack.expected_error}

    async def look() -> bool:
        logged = {line["tenant_id"]: line["audited"] for line in worker.log if line["event"] == "stale.found"}
        return logged == {tenant: attack is not BROKEN_LOG for tenant, attack in stale.items()}

    await eventually(look)
    found = await stage.world.pool.fetch("SELECT tenant_id FROM hookseal.audit_log WHERE action = 'stale.found'")
    audited = {tenant for tenant, attack in stale.items() if attack is not BROKEN_LOG}
    assert audited == {row["tenant_id"] for row in found}


async def test_attacked_deliveries_wait_without_caches(world: World, receiver: Receiver) -> None:
    """Altered deliveries wait, unspent, with the reason, and arrive after the restoration; all others arrive."""
    async with receiving() as thief:
        stage = await arranged(world, ATTACKS, base_url=receiver.base_url, thief=thief.base_url)
        deliveries = await stage.published()
        for scene in stage.scenes:
            await stage.attack(scene)
        async with world.worker() as worker:
            await stage.settled()
            await wait_for_expected_deliveries(stage, deliveries)
            await require_alarms(stage, worker)
            [later] = [
                ring for ring in await world.publish(RIVAL) if ring.endpoint_id == stage.other_tenant.endpoint_id
            ]
            await world.state(later, "delivered")
            stage.require_genuine(receiver)

            await stage.restore()
            await world.pool.execute("UPDATE hookseal.endpoints SET enabled = true")
            await stage.settled()
            rows = {
                scene.attack.name: (await world.installation.delivery(deliveries[scene.victim.tenant][0]))["state"]
                for scene in stage.scenes
                if scene.attack.state == "pending"
            }
            assert {"delivered"} == set(rows.values()), rows
            stage.require_genuine(receiver)
        assert [] == thief.received


async def test_a_worker_with_full_caches_uses_only_valid_secrets(world: World, receiver: Receiver) -> None:
    """A worker with every secret cached uses only valid ones, and discards them when the cache epoch changes."""
    attacks = [attack for attack in ATTACKS if attack.waiting_for == "secret"]
    async with receiving() as thief:
        stage = await arranged(world, attacks, base_url=receiver.base_url, thief=thief.base_url)
        deliveries = await stage.published()
        async with world.worker():
            await stage.settled()
            for scene in stage.scenes:
                await stage.attack(scene)
            await stage.retry_all(at_delivered=True, cached=True)
            await stage.settled()
            stage.require_genuine(receiver)
            await stage.retry_all(at_delivered=True)
            await stage.settled()
            await wait_for_expected_deliveries(stage, deliveries, attempts=2)
            stage.require_genuine(receiver)
        assert [] == thief.received


@pytest.mark.parametrize("table", ["endpoints", "secret_records"])
async def test_every_column_is_attacked(table: str, pool: Pool) -> None:
    """At least one attack writes each column of the tables that decide what is signed, by which secret and for whom."""
    columns = await pool.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND attgenerated = ''"
        " AND NOT attisdropped",
        f"hookseal.{table}",
    )
    written = " ".join(attack.sql for attack in ATTACKS if f"UPDATE hookseal.{table} " in attack.sql)

    assert [] == [column["attname"] for column in columns if not re.search(rf"\b{column['attname']} = ", written)]


# An attacker with write access to rows of the whole installation: keys, epochs, leases, heartbeats.


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
