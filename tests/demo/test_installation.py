"""An installation on embedded servers is begun once, and its environment contains no key."""

import stat
from pathlib import Path

import asyncpg
import pytest

from hookseal.demo.installation import Installation, install, not_used, with_next_key
from hookseal.embedded.server import Server
from hookseal.embedded.stack import Stack
from tests.doubles.stored import keyring


def test_the_environment_has_no_foreign_setting() -> None:
    """The environment has no setting of another installation; other variables stay."""
    installation = Installation(database_url="d", redis_url="r", keyring=keyring(), settings={"DATABASE_URL": "new"})
    inherited = {
        "PATH": "/bin",
        "DATABASE_URL": "old",
        "DATABASE_URL_FILE": "old",
        "REDIS_URL": "old",
        "SECRETS_MASTER_KEY": "old",
        "HOOKSEAL_QUEUE": "old",
    }
    assert {"PATH": "/bin", "DATABASE_URL": "new"} == installation.environment(inherited)


@pytest.mark.req("UX-02")
def test_what_is_not_used_is_named() -> None:
    """Settings of another installation are named, also one on this machine; addresses of the start before are not."""
    settings = {"DATABASE_URL": "postgresql://127.0.0.1:2/db", "SECRETS_MASTER_KEY_FILE": "/folder/master.key"}
    before = settings | {"DATABASE_URL": "postgresql://127.0.0.1:1/db", "PATH": "/bin"}
    assert [] == not_used(before, settings)
    assert ["DATABASE_URL"] == not_used({"DATABASE_URL": before["DATABASE_URL"]}, settings)
    other = before | {"SECRETS_MASTER_KEY_FILE": "/etc/key", "HOOKSEAL_QUEUE": "q"}
    assert ["DATABASE_URL", "HOOKSEAL_QUEUE", "SECRETS_MASTER_KEY_FILE"] == not_used(other, settings)


async def test_a_second_start_creates_nothing(own_postgres: Server, own_valkey: Server, tmp_path: Path) -> None:
    """The second time the key is the same, and nothing is created."""
    stack = Stack(postgres=own_postgres, valkey=own_valkey)
    first = await install(stack, tmp_path)
    key = (tmp_path / "master.key").read_text()
    again = await install(stack, tmp_path)
    assert (key, first.settings) == ((tmp_path / "master.key").read_text(), again.settings)
    assert 0o600 == stat.S_IMODE((tmp_path / "master.key").stat().st_mode)
    assert key.strip() not in repr(first) + "".join(first.settings.values())
    connection = await asyncpg.connect(own_postgres.url)
    try:
        assert 1 == await connection.fetchval("SELECT count(*) FROM hookseal.secret_keys")
    finally:
        await connection.close()


async def test_the_master_key_of_the_demo_can_be_changed(
    own_postgres: Server, own_valkey: Server, tmp_path: Path
) -> None:
    """The next key is registered and stored in its own file (0600); keys in further files are used as well."""
    stack = Stack(postgres=own_postgres, valkey=own_valkey)
    first = await install(stack, tmp_path)
    second = await with_next_key(first, tmp_path)
    assert 0o600 == stat.S_IMODE((tmp_path / "next.key").stat().st_mode)
    assert [first.keyring.sealing.key_id] == [key.key_id for key in first.keyring.keys]
    assert [*first.keyring.keys] == [second.keyring.keys[0]]
    assert {"SECRETS_MASTER_KEY_NEXT_FILE": str(tmp_path / "next.key")} == {
        name: value for name, value in second.settings.items() if name not in first.settings
    }
    assert [key.key_id for key in second.keyring.keys] == [
        key.key_id for key in (await install(stack, tmp_path)).keyring.keys
    ]

    (tmp_path / "master.key").rename(tmp_path / "previous.key")
    (tmp_path / "next.key").rename(tmp_path / "master.key")
    swapped = await install(stack, tmp_path)
    assert [key.key_id for key in second.keyring.keys][::-1] == [key.key_id for key in swapped.keyring.keys]
    assert str(tmp_path / "previous.key") == swapped.settings["SECRETS_MASTER_KEY_PREVIOUS_FILE"]
