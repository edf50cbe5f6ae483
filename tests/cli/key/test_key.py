"""`hookseal key init` begins an installation once, and `key status` shows its keys."""

import base64

import pytest

from tests.cli.command import Ended, hookseal

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


async def test_the_text_says_to_keep_the_key(database_url: str) -> None:
    """The text says that there is no key yet, and afterwards to keep the one that was registered."""
    empty = await key("status", url=database_url)
    assert (0, "no master key yet: run `hookseal key init`\n") == (empty.code, empty.out)
    made = await key("init", url=database_url)
    assert "keep it safe" in made.out
