"""A malicious writer: whatever it writes into the tables, nothing leaves signed wrongly, or for anybody else."""

import re
from collections.abc import Mapping

import asyncpg
import pytest

from hookseal.dispatcher.model import Ring
from tests.worker.attacked import RIVAL, Stage, arranged
from tests.worker.attacks_on_deliveries import ATTACKS
from tests.worker.attacks_on_records import BROKEN_LOG
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World, receiving

pytestmark = [pytest.mark.req("SEC-24", part="sql-attacks"), pytest.mark.req("SEC-08")]

Deliveries = Mapping[str, tuple[Ring, Ring]]
Pool = asyncpg.Pool


async def otherwise(stage: Stage, deliveries: Deliveries, *, attempts: int = 0) -> dict[str, object]:
    """Return, by attack, each delivery that is not as the attack says, or has more than so many attempts."""
    found: dict[str, object] = {}
    for scene in stage.scenes:
        held, sent = [await stage.world.installation.delivery(ring) for ring in deliveries[scene.victim.tenant]]
        attack = scene.attack
        if (held["state"], held["waiting_for"]) != (attack.state, attack.waiting_for):
            found[attack.name] = (held["state"], held["waiting_for"], held["last_error"])
        elif attack.says not in (held["last_error"] or "") or (
            held["state"] == "pending" and held["attempts"] > attempts
        ):
            found[attack.name] = (held["last_error"], held["attempts"])
        elif sent["state"] != "delivered":
            found[attack.name] = ("its sibling", sent["state"], sent["last_error"])
    return found


async def alarmed(stage: Stage, worker: Worker) -> None:
    """Return once all that was put back is alarmed, and audited wherever the log of its tenant is not broken, too."""
    put_back = {scene.victim.tenant: scene.attack for scene in stage.scenes if "was put back" in scene.attack.says}

    async def look() -> bool:
        told = {line["tenant_id"]: line["audited"] for line in worker.log if line["event"] == "rollback.found"}
        return told == {tenant: attack is not BROKEN_LOG for tenant, attack in put_back.items()}

    await eventually(look)
    found = await stage.world.pool.fetch("SELECT tenant_id FROM hookseal.audit_log WHERE action = 'rollback.found'")
    audited = {tenant for tenant, attack in put_back.items() if attack is not BROKEN_LOG}
    assert audited == {row["tenant_id"] for row in found}


async def test_on_a_worker_that_knows_nothing(world: World, receiver: Receiver) -> None:
    """What is spoilt waits, unspent, and says why; all others arrive; once it is mended, it arrives too."""
    async with receiving() as thief:
        stage = await arranged(world, ATTACKS, base_url=receiver.base_url, thief=thief.base_url)
        deliveries = await stage.published()
        for scene in stage.scenes:
            await stage.spoil(scene)
        async with world.worker() as worker:
            await stage.settled()
            assert {} == await otherwise(stage, deliveries)
            await alarmed(stage, worker)
            [later] = [ring for ring in await world.publish(RIVAL) if ring.endpoint_id == stage.stranger.endpoint_id]
            await world.state(later, "delivered")
            stage.require_genuine(receiver)

            await stage.mend()
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


async def test_on_a_worker_that_knows_all(world: World, receiver: Receiver) -> None:
    """A worker that has every secret cached signs with none that is not due, and forgets them when it is told to."""
    attacks = [attack for attack in ATTACKS if attack.waiting_for == "secret"]
    async with receiving() as thief:
        stage = await arranged(world, attacks, base_url=receiver.base_url, thief=thief.base_url)
        deliveries = await stage.published()
        async with world.worker():
            await stage.settled()
            for scene in stage.scenes:
                await stage.spoil(scene)
            await stage.look_again(at_delivered=True, cached=True)
            await stage.settled()
            stage.require_genuine(receiver)
            await stage.look_again(at_delivered=True)
            await stage.settled()
            assert {} == await otherwise(stage, deliveries, attempts=2)
            stage.require_genuine(receiver)
        assert [] == thief.received


@pytest.mark.parametrize("table", ["endpoints", "secret_records"])
async def test_every_column(table: str, pool: "Pool[asyncpg.Record]") -> None:
    """Each column of the tables that say what is signed, by what and for whom, is written by one attack at least."""
    columns = await pool.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND attgenerated = ''"
        " AND NOT attisdropped",
        f"hookseal.{table}",
    )
    written = " ".join(attack.spoil for attack in ATTACKS if f"UPDATE hookseal.{table} " in attack.spoil)

    assert [] == [column["attname"] for column in columns if not re.search(rf"\b{column['attname']} = ", written)]
