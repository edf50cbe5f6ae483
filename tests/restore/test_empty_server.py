"""A dump is restored to an empty server after the original installation has continued."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.queue.bell import bell
from tests.restore.documented import Shell, documented
from tests.restore.sites import (
    OWNER,
    PRODUCER,
    WORKER,
    Site,
    begun,
    deleted,
    is_signed_with,
    restored,
    secret_of,
    shell,
)
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World

pytestmark = pytest.mark.req("SEC-21", part="same-key")

PUBLISH = "hookseal publish --tenant kept --event-type invoice.paid --data '{}'"
TENANTS = ("kept", "rotated", "revoked", "deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The installation at the time of its dump: one pending delivery for each endpoint."""

    endpoints: dict[str, AddedEndpoint]
    pending: dict[str, Ring]


async def until_the_dump(world: World, receiver: Receiver, at: Site) -> Before:
    """Create endpoints that have delivered, with a pending delivery for each."""
    endpoints = {tenant: await world.endpoint(f"{receiver.base_url}/{tenant}", tenant=tenant) for tenant in TENANTS}
    async with world.worker(DATABASE_URL=at.url(WORKER)):
        for tenant in TENANTS:
            await world.state((await world.publish(tenant))[0], "delivered")
    return Before(
        endpoints=endpoints, pending={tenant: (await world.publish(tenant, rung=False))[0] for tenant in TENANTS}
    )


async def after_the_dump(world: World, receiver: Receiver, at: Site, before: Before) -> Ring:
    """Deliver what was pending, rotate, revoke, delete, add; return a delivery to the added endpoint."""
    async with world.worker(DATABASE_URL=at.url(WORKER)):
        for ring in before.pending.values():
            await world.state(ring, "delivered")
        await world.rotate(before.endpoints["rotated"], overlap_seconds=3600)
        await world.rotate(before.endpoints["revoked"])
        await deleted(world, before.endpoints["deleted"])
        await world.endpoint(f"{receiver.base_url}/added", tenant="added")
        [lost] = await world.publish("added")
        await world.state(lost, "delivered")
    return lost


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the JSON object of each line."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


async def check_restored(sh: Shell) -> None:
    """Check the restored database as the page says: it is intact, and older than the stored heads."""
    status, key_status, require_verified, checked = documented("3. Look")[:4]
    await sh.done(status, key_status)
    older = await sh.run(f"{require_verified} --json")
    assert (1, False) == (older.code, older.json["intact"])
    assert {None} == {one["broken"] for one in older.json["tenants"]}
    assert [("added", "older"), ("deleted", "older"), ("revoked", "older"), ("rotated", "older")] == sorted(
        (one["tenant_id"], one["is"]) for one in older.json["contradicted"]
    )
    agrees = await sh.run(checked)
    assert 0 == agrees.code
    assert "cannot show whether all of the database is stale" in agrees.out
    await sh.done(*documented("3. Look")[4:])
    lost = lines(sh.folder / "lost.jsonl")
    assert {
        ("rotated", "secret.rotated"),
        ("revoked", "secret.rotated"),
        ("deleted", "endpoint.deleted"),
        ("added", "endpoint.added"),
    } == {(row["tenant_id"], row["action"]) for row in lost}
    assert [None] == [row["after"]["previous_secret_ref"] for row in lost if row["tenant_id"] == "revoked"]


async def test_a_restored_installation_continues(
    old: Site, new: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """Pending deliveries are sent and verify; lost changes are reported, and once accepted contradict nothing."""
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), NEW_SERVER=new.bare_url(database="postgres"))
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        await sh.done(f"hookseal producer grant --role {PRODUCER} --tenant kept", DATABASE_URL=old.url(OWNER))
        before = await until_the_dump(world, receiver, old)
        dump, roles, heads, export = documented("Back up")
        await sh.done(dump, roles)
        lost = await after_the_dump(world, receiver, old, before)
        await sh.done(heads, export, DATABASE_URL=old.url(OWNER))
    seen = len(receiver.received)

    new.store_passwords(sh)
    sh.variables.update(RESTORED=new.bare_url(), DATABASE_URL=new.url(OWNER))
    await sh.done(*documented("1. The roles"))
    await new.set_passwords(make=False)
    await sh.done(*documented("2. The database")[:3])
    await check_restored(sh)
    await repeat_lost_changes(sh, before)
    await sh.done(*documented("5. Accept it"))
    async with restored(new, redis_url, tmp_path) as world, world.worker(DATABASE_URL=new.url(WORKER)) as worker:
        await require_continued(world, worker, before, lost)
        await sh.done(PUBLISH, DATABASE_URL=new.url(PRODUCER))
        await receiver.wait_for(seen + 4)
    require_verified(receiver.received[seen:], before, (tmp_path / "new.secret").read_text().strip())


async def repeat_lost_changes(sh: Shell, before: Before) -> None:
    """Revoke and delete again what the restore has undone."""
    endpoint = {tenant: added.pointer.endpoint_id for tenant, added in before.endpoints.items()}
    revoke = f"--tenant revoked --endpoint {endpoint['revoked']} --overlap 0 --secret-out new.secret"
    await sh.done(
        f"hookseal endpoint rotate {revoke}",
        f"hookseal endpoint delete --tenant deleted --endpoint {endpoint['deleted']} --yes",
    )


async def require_continued(world: World, worker: Worker, before: Before, lost: Ring) -> None:
    """Fail unless the pending deliveries are delivered, and a ring of a lost delivery is dropped and counted."""
    ringing = bell(world.redis_url)
    await ringing.ring([lost])
    await ringing.close()
    for tenant in ("kept", "rotated", "revoked"):
        await world.state(before.pending[tenant], "delivered")
    assert "cancelled" == (await world.installation.delivery(before.pending["deleted"]))["state"]

    async def dropped() -> bool:
        return bool((await worker.figures())["hookseal_rings_dropped_total", "not_due"])

    await eventually(dropped)


def require_verified(got: list[Received], before: Before, new_secret: str) -> None:
    """Fail unless each request verifies with its receiver's secret and has its former id."""
    assert ["/kept", "/kept", "/revoked", "/rotated"] == sorted(one.path for one in got)
    assert {before.pending[tenant].delivery_id for tenant in ("kept", "rotated", "revoked")} < {
        one.headers["webhook-id"] for one in got
    }
    secrets = {f"/{tenant}": secret_of(before.endpoints[tenant]) for tenant in ("kept", "rotated", "revoked")}
    for one in got:
        assert is_signed_with(one, secrets[one.path]) is (one.path != "/revoked")
        assert is_signed_with(one, new_secret) is (one.path == "/revoked")
