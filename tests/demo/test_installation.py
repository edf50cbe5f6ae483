"""An installation on embedded parts is begun once, and reached by an environment without a key in it."""

import stat
from pathlib import Path

import asyncpg

from hookseal.demo.installation import Installation, install
from hookseal.embedded.server import Server
from hookseal.embedded.stack import Stack
from tests.doubles.stored import keyring


def test_the_environment_is_its_own() -> None:
    """Nothing of another installation reaches a process of this one; what is not ours stays."""
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


async def test_begun_once(own_postgres: Server, own_valkey: Server, tmp_path: Path) -> None:
    """The second time, the key is the first one, and nothing is made anew."""
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
