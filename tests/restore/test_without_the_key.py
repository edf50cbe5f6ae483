"""A dump restored without its master key: nothing starts, and the error names the missing key."""

import base64
from pathlib import Path

import pytest

from tests.doubles.stored import keyring
from tests.restore.documented import documented
from tests.restore.sites import OWNER, Site, begun, shell
from tests.worker.world import Receiver

pytestmark = pytest.mark.req("SEC-21", part="without-the-key")

OTHER_KEY = base64.b64encode(bytes(range(7, 39))).decode()
NEED_THE_KEY = (  # one of each kind: all commands that change or verify anything unlock the secrets in the same way
    "worker",
    "endpoint rotate --tenant acme --endpoint 01890000-0000-7000-8000-000000000000 --overlap 0 --json",
    "audit verify --json",
    "restore accept --head heads.json --json",
)


async def test_nothing_starts_without_the_key(old: Site, redis_url: str, receiver: Receiver, tmp_path: Path) -> None:
    """With another key, worker and commands exit 78 with both ids; without a key, with the variable."""
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
