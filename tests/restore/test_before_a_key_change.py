"""A dump from before a change of master keys works with the old key, and the change can be repeated."""

import base64
from pathlib import Path

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from tests.doubles.stored import MASTER_KEY_TEXT, keyring
from tests.restore.documented import Shell, documented
from tests.restore.sites import OWNER, WORKER, Site, begun, is_signed_with, restored, secret_of, shell
from tests.worker.world import Receiver, World

pytestmark = pytest.mark.req("SEC-21", part="before-a-key-change")

OLD = keyring().sealing.key_id
NEW_KEY = base64.b64encode(bytes(range(140, 172))).decode()
BOTH = {"SECRETS_MASTER_KEY": NEW_KEY, "SECRETS_MASTER_KEY_PREVIOUS": MASTER_KEY_TEXT}


async def test_an_older_dump_works_with_the_old_key(
    old: Site, new: Site, redis_url: str, receiver: Receiver, tmp_path: Path
) -> None:
    """With the new key nothing starts; with the old one pending deliveries verify, and the key can be changed again."""
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
    require_verified(receiver, added)
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


def require_verified(receiver: Receiver, added: AddedEndpoint) -> None:
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
