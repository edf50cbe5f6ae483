"""An attacker with write access to the tables cannot cause a request with a wrong signature or to a wrong receiver."""

import re
from collections.abc import Mapping
from contextlib import suppress

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring
from tests.worker.attacked import RIVAL, Stage, arranged
from tests.worker.attacks_on_deliveries import ATTACKS
from tests.worker.attacks_on_records import BROKEN_LOG
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World, receiving

pytestmark = [pytest.mark.req("SEC-24", part="sql-attacks"), pytest.mark.req("SEC-08")]

Deliveries = Mapping[str, tuple[Ring, Ring]]
Pool = asyncpg.Pool


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
async def test_every_column_is_attacked(table: str, pool: "Pool[asyncpg.Record]") -> None:
    """At least one attack writes each column of the tables that decide what is signed, by which secret and for whom."""
    columns = await pool.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND attgenerated = ''"
        " AND NOT attisdropped",
        f"hookseal.{table}",
    )
    written = " ".join(attack.sql for attack in ATTACKS if f"UPDATE hookseal.{table} " in attack.sql)

    assert [] == [column["attname"] for column in columns if not re.search(rf"\b{column['attname']} = ", written)]
