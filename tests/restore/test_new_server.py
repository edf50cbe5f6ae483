"""A dump is restored to an empty server: in whole, only the schema, before a change of keys, and without the key."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.clock import SystemClock
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.queue.bell import bell
from hookseal.receiver import verify
from tests.cli.shell import Shell
from tests.doubles.stored import MASTER_KEY_TEXT, keyring
from tests.restore.sites import (
    OWNER,
    PRODUCER,
    WORKER,
    Site,
    begun,
    deleted,
    documented,
    is_signed_with,
    restored,
    secret_of,
    shell,
)
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually
from tests.worker.world import Received, Receiver, World

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


@pytest.mark.req("SEC-21", part="same-key")
async def test_a_restored_installation_continues(
    old: Site, new: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
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


# Other ways to dump and to restore: plain SQL, only the schema, and without a superuser.

_OWNERS = """
SELECT DISTINCT proowner::regrole::text FROM pg_proc
 WHERE pronamespace = 'hookseal'::regnamespace
   AND proname IN ('publish', 'publish_raw', 'report_exhausted', 'forget_notices')
"""


@pytest.mark.req("SEC-21", part="same-key")
async def test_the_schema_alone_works_in_another_database(
    old: Site, new: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), NEW_SERVER=new.bare_url(database="postgres"))
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        added = await world.endpoint(f"{receiver.base_url}/hook")
        [pending] = await world.publish(rung=False)
        await sh.done(
            documented("Back up")[1],
            'pg_dump --dbname="$DATABASE" --schema=hookseal --format=plain --file=hookseal.sql',
        )

    new.store_passwords(sh)
    await sh.done(*documented("1. The roles"))
    await new.set_passwords(make=False)
    await sh.done(documented("2. The database")[0])
    await new.execute("CREATE TABLE product (id integer)", "INSERT INTO product VALUES (1)", database="app")
    await sh.done(documented("2. The database")[-1], RESTORED=new.bare_url())

    async with restored(new, redis_url, tmp_path) as world, world.worker(DATABASE_URL=new.url(WORKER)):
        await world.state(pending, "delivered")
    got = receiver.received[0]
    assert added.secret is not None
    verify(got.body, got.headers, [added.secret.reveal().decode()], now=SystemClock().now())


async def owners(at: Site) -> list[str]:
    """Return the owners of the publishing functions."""
    connection = await asyncpg.connect(at.url())
    try:
        return [row[0] for row in await connection.fetch(_OWNERS)]
    finally:
        await connection.close()


@pytest.mark.req("SEC-21", part="same-key")
async def test_upgrade_restores_the_publishing_owner(old: Site, redis_url: str, tmp_path: Path) -> None:
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), OWNED=old.bare_url(OWNER))
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        await sh.done(f"hookseal producer grant --role {PRODUCER} --tenant acme", DATABASE_URL=old.url(OWNER))
        await world.installation.endpoint()
        await sh.done(documented("Back up")[0])
    await old.execute("DROP DATABASE app WITH (FORCE)", f"CREATE DATABASE app OWNER {OWNER}")
    restore, upgrade = documented("2. The database")[3:5]

    with_owner = await sh.run(restore.replace("--no-owner ", ""))
    assert "permission denied for schema hookseal" in with_owner.err
    await sh.done(restore)
    assert [OWNER] == await owners(old)

    await no_more_rights(old, sh, upgrade.replace("$OWNED", old.url(OWNER)))


async def no_more_rights(at: Site, sh: Shell, upgrade: str) -> None:
    """Run the upgrade, and require that exactly the roles with the right can publish."""
    await sh.done(upgrade)
    assert ["hookseal_publisher"] == await owners(at)
    for login in (OWNER, PRODUCER):
        await publish(at, login)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await publish(at, WORKER)
    connection = await asyncpg.connect(at.url())
    try:
        assert not await connection.fetchval("SELECT has_schema_privilege('hookseal_publisher', 'hookseal', 'CREATE')")
    finally:
        await connection.close()


async def publish(at: Site, login: str) -> None:
    connection = await asyncpg.connect(at.url(login))
    try:
        await connection.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")
    finally:
        await connection.close()


@pytest.mark.req("SEC-21", part="same-key")
async def test_a_schema_of_the_superuser_is_refused(old: Site, redis_url: str, tmp_path: Path) -> None:
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), OWNED=old.bare_url())
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        await world.installation.endpoint()
        await sh.done(documented("Back up")[0])
    await old.execute("DROP DATABASE app WITH (FORCE)", "CREATE DATABASE app")
    await sh.done(documented("2. The database")[3])
    assert "hookseal_publisher" not in await owners(old)

    refused = await sh.run("hookseal db upgrade --json", DATABASE_URL=old.url(OWNER))
    assert 5 == refused.code
    assert "log in as the owner of the schema" in refused.json["error"]["message"]
    await sh.done("hookseal db upgrade", DATABASE_URL=old.url())
    assert ["hookseal_publisher"] == await owners(old)


# A dump from before a change of master keys works with the old key, and the change can be repeated.

OLD = keyring().sealing.key_id
NEW_KEY = base64.b64encode(bytes(range(140, 172))).decode()
BOTH = {"SECRETS_MASTER_KEY": NEW_KEY, "SECRETS_MASTER_KEY_PREVIOUS": MASTER_KEY_TEXT}


@pytest.mark.req("SEC-21", part="before-a-key-change")
async def test_an_older_dump_works_with_the_old_key(
    old: Site, new: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    sh = shell(tmp_path, redis_url, DATABASE=old.bare_url(OWNER), NEW_SERVER=new.bare_url(database="postgres"))
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        added = await world.endpoint(f"{receiver.base_url}/hook")
        [pending] = await world.publish(rung=False)
        await sh.done(*documented("Back up")[:2])
        key_id = await change_key(sh, world, old, pending)
    new.store_passwords(sh)
    sh.variables.update(RESTORED=new.bare_url(), DATABASE_URL=new.url(OWNER))
    await sh.done(*documented("1. The roles"))
    await new.set_passwords(make=False)
    await sh.done(*documented("2. The database")[:3])
    await require_refused(sh, key_id)

    del sh.variables["SECRETS_MASTER_KEY_PREVIOUS"]
    sh.variables["SECRETS_MASTER_KEY"] = MASTER_KEY_TEXT
    await check_and_accept(sh)
    async with restored(new, redis_url, tmp_path) as world, world.worker(DATABASE_URL=new.url(WORKER)):
        await world.state(pending, "delivered")
    require_signed(receiver, added)
    await change_key_again(sh, key_id)


async def change_key(sh: Shell, world: World, at: Site, pending: Ring) -> str:
    """Change the master key completely, deliver under the new one, store the heads; return the id of the new key."""
    sh.variables.update(DATABASE_URL=at.url(OWNER), SECRETS_MASTER_KEY_NEXT=NEW_KEY)
    [staged] = await sh.done("hookseal key stage --json")
    key_id = str(staged.json["key_id"])
    await sh.done(f"hookseal key promote {key_id}")
    del sh.variables["SECRETS_MASTER_KEY_NEXT"]
    sh.variables.update(BOTH)
    await sh.done(f"hookseal key rewrap {OLD}", f"hookseal key retire {OLD}", documented("Back up")[2])
    async with world.worker(DATABASE_URL=at.url(WORKER), **BOTH):
        await world.state(pending, "delivered")
    return key_id


async def require_refused(sh: Shell, key_id: str) -> None:
    """Fail unless nothing starts with a key that the restored table does not have."""
    for command in ("worker", "restore accept --head heads.json --json"):
        ended = await sh.run(f"hookseal {command}")
        assert 78 == ended.code
        assert f"master key {key_id} is not registered" in ended.out + ended.err


async def check_and_accept(sh: Shell) -> None:
    """Check what was lost, which is the change of keys, and accept it."""
    older = await sh.run("hookseal audit verify --head heads.json --json")
    assert (1, ["_system"]) == (older.code, [one["tenant_id"] for one in older.json["contradicted"]])
    await sh.done(*documented("5. Accept it"))


def require_signed(receiver: Receiver, added: AddedEndpoint) -> None:
    """Fail unless it was delivered before and after, signed with the secret of the endpoint each time."""
    assert [True, True] == [is_signed_with(got, secret_of(added)) for got in receiver.received]


async def change_key_again(sh: Shell, key_id: str) -> None:
    """Change to the same key again: no record is left under the old one, and none looks stale."""
    sh.variables["SECRETS_MASTER_KEY_NEXT"] = NEW_KEY
    await sh.done("hookseal key stage", f"hookseal key promote {key_id}", f"hookseal key rewrap {OLD}")
    [listed] = await sh.done("hookseal key status --json")
    assert {(OLD, "decrypt_only", 0), (key_id, "active", 3)} == {
        (key["key_id"], key["state"], key["records"]) for key in listed.json["items"]
    }
    await sh.done("hookseal audit verify --head heads.json", "hookseal restore check")


# A dump restored without its master key: nothing starts, and the error names the missing key.

OTHER_KEY = base64.b64encode(bytes(range(7, 39))).decode()
NEED_THE_KEY = (  # one of each kind: all commands that change or verify anything unlock the secrets in the same way
    "worker",
    "endpoint rotate --tenant acme --endpoint 01890000-0000-7000-8000-000000000000 --overlap 0 --json",
    "audit verify --json",
    "restore accept --head heads.json --json",
)


@pytest.mark.req("SEC-21", part="without-the-key")
async def test_nothing_starts_without_the_key(old: Site, redis_url: str, receiver: Receiver, tmp_path: Path) -> None:
    sh = shell(
        tmp_path,
        redis_url,
        DATABASE=old.bare_url(OWNER),
        NEW_SERVER=old.bare_url(database="postgres"),
        RESTORED=old.bare_url(),
        DATABASE_URL=old.url(OWNER),
    )
    old.store_passwords(sh)
    async with begun(old, redis_url, tmp_path) as world:
        await world.endpoint(f"{receiver.base_url}/hook")
        await world.publish(rung=False)
        await sh.done(documented("Back up")[0], documented("Back up")[2])
    await old.execute("DROP DATABASE app WITH (FORCE)")
    await sh.done(*documented("2. The database")[:2])
    missing = keyring().sealing.key_id

    for command in NEED_THE_KEY:
        refused = await sh.run(f"hookseal {command}", SECRETS_MASTER_KEY=OTHER_KEY)
        output = refused.out + refused.err
        assert 78 == refused.code, (command, output)
        assert f"master key {missing} is the active one and is not among the keys of this process" in output, command
        assert "is not registered: this installation has other keys" in output, command
        assert OTHER_KEY not in output
    sh.variables.pop("SECRETS_MASTER_KEY")
    for command in ("worker", "restore accept --head heads.json --json"):
        refused = await sh.run(f"hookseal {command}")
        assert 78 == refused.code, command
        assert "SECRETS_MASTER_KEY is not set" in refused.out + refused.err

    listed = await sh.run("hookseal key status --json", SECRETS_MASTER_KEY=OTHER_KEY)
    assert [(missing, "active", False)] == [(key["key_id"], key["state"], key["held"]) for key in listed.json["items"]]
    again = await sh.run("hookseal key init --json", SECRETS_MASTER_KEY=OTHER_KEY)
    assert (4, "conflict") == (again.code, again.json["error"]["code"])
    assert [] == receiver.received
