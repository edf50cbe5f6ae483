"""`hookseal key init` begins an installation once, and `key status` shows its keys."""

import base64
import getpass
import socket

import asyncpg
import pytest

from tests.cli.command import Ended, hookseal
from tests.doubles.logbook import audited

KEY = base64.b64encode(bytes(range(100, 132))).decode()
NEVER = dict.fromkeys(("drained_at", "compromised_at", "retired_at", "destroyed_at"))
OTHER = base64.b64encode(bytes(range(99, 131))).decode()


async def key(*arguments: str, url: str, **changes: str) -> Ended:
    """Run a command of the group on this database."""
    settings = {"DATABASE_URL": url, "SECRETS_PROVIDER": "db", "SECRETS_MASTER_KEY": KEY}
    ended = await hookseal("key", *arguments, **(settings | changes))
    assert KEY not in ended.out + ended.err
    return ended


@pytest.mark.req("SEC-04", part="key-commands")
async def test_init_registers_the_key_once(database_url: str) -> None:
    """`init` registers the key and creates the two secrets of the installation, once; `status` shows the key."""
    empty = await key("status", "--json", url=database_url)
    assert {"items": [], "next_cursor": None, "plaintext_endpoints": 0} == empty.json

    made = await key("init", "--json", url=database_url)
    assert (0, "") == (made.code, made.err)
    key_id = made.json["key_id"]
    created = ["db:_system:integrity:1", "db:_system:sentinel:1"]
    assert {"key_id": key_id, "state": "active", "created": created} == made.json

    again = await key("init", "--json", url=database_url)
    assert (4, "conflict") == (again.code, again.json["error"]["code"])

    shown = await key("status", "--json", url=database_url)
    [item] = shown.json["items"]
    assert item.pop("promoted_at").endswith("Z")
    assert {"key_id": key_id, "state": "active", "held": True, "records": 2, "workers": 0} | NEVER == item
    assert (None, 0) == (shown.json["next_cursor"], shown.json["plaintext_endpoints"])
    shown = await key("status", url=database_url, SECRETS_MASTER_KEY=OTHER)
    assert [
        "key id            state   held  records  workers",
        f"{key_id}  active  no    2        0",
    ] == shown.out.splitlines()


@pytest.mark.req("OPS-10")
async def test_init_is_audited(pool: "asyncpg.Pool[asyncpg.Record]", database_url: str) -> None:
    """The audit log begins with who began the installation; a refused `init` is not in it."""
    made = await key("init", "--json", url=database_url)
    await key("init", url=database_url)
    (entry,) = await audited(pool, "_system")
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    assert ("key.initialised", f"key:{made.json['key_id']}", who) == (entry["action"], entry["subject"], entry["who"])


async def test_the_text_says_to_keep_the_key(database_url: str) -> None:
    """The text says that there is no key yet, and afterwards to keep the one that was registered."""
    empty = await key("status", url=database_url)
    assert (0, "no master key yet: run `hookseal key init`\n") == (empty.code, empty.out)
    made = await key("init", url=database_url)
    assert "keep it safe" in made.out


@pytest.mark.parametrize("command", ["init", "status"])
async def test_a_missing_schema_names_the_command(command: str, empty_database_url: str) -> None:
    """Without the schema it exits 78 and names the command that creates it."""
    ended = await key(command, "--json", url=empty_database_url)
    assert (78, "configuration") == (ended.code, ended.json["error"]["code"])
    assert "hookseal db upgrade" in ended.json["error"]["message"]


@pytest.mark.parametrize("command", ["init", "status"])
async def test_the_provider_dev_has_no_durable_keys(command: str) -> None:
    """The provider `dev` has no durable keys, and the error names the one that has."""
    ended = await hookseal(
        *("key", command, "--json"),
        DATABASE_URL="postgresql://127.0.0.1:1/db",
        SECRETS_PROVIDER="dev",
        HOOKSEAL_ENV="development",
    )
    assert (5, "refused") == (ended.code, ended.json["error"]["code"])
    assert ended.json["error"]["message"].endswith(": set SECRETS_PROVIDER=db")


@pytest.mark.req("SEC-13", part="settings")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"SECRETS_MASTER_KEY": "%%%"}, "SECRETS_MASTER_KEY: must be 32 random bytes in base64"),
        ({"SECRETS_MASTER_KEY": KEY[:40]}, "SECRETS_MASTER_KEY: must be 32 random bytes in base64"),
        ({"SECRETS_MASTER_KEY": "A" * 43 + "="}, "SECRETS_MASTER_KEY: looks like a placeholder"),
        ({"SECRETS_PROVIDER": "vault"}, "SECRETS_PROVIDER must be db, aws, gcp, openbao or dev"),
        ({"SECRETS_PROVIDER": "dev"}, "SECRETS_PROVIDER may not be dev in production"),
        ({"HOOKSEAL_ALLOW_HTTP": "true"}, "HOOKSEAL_ALLOW_HTTP may be true only outside production"),
    ],
)
async def test_a_bad_setting_is_named_without_its_value(changes: dict[str, str], expected: str) -> None:
    """Each kind of bad setting ends a real process with 78, with its name and no value."""
    ended = await key("init", url="postgresql://127.0.0.1:1/db", **changes)
    assert (78, "") == (ended.code, ended.out)
    assert ended.err.startswith(f"hookseal: {expected}")
    assert 1 == len(ended.err.splitlines())
