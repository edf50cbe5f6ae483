"""How a command starts and ends: its process is protected, and errors of libraries are translated."""

import asyncio

import asyncpg
import pytest

from hookseal.cli.shared.runtime import connect, run
from hookseal.config import urls
from hookseal.errors import Malformed, Unavailable
from tests.cli.command import python

PASSWORD = "correct-horse"

_START = """
import ctypes, os, subprocess, sys
from hookseal.cli.shared.runtime import start
settings = start()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "SECRETS_MASTER_KEY" in os.environ, settings)
print("KEY" in subprocess.run(["env"], capture_output=True, text=True).stdout)
"""


async def test_a_lost_connection_is_an_outage(database_url: str) -> None:
    """A connection that ends during a command is an outage, reported with the address."""
    database = urls.database(database_url)
    with pytest.raises(Unavailable) as caught:
        async with connect(database) as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert f"PostgreSQL at {database.address} does not answer" in str(caught.value)


async def test_a_wrong_statement_is_no_outage(database_url: str) -> None:
    """A wrong statement is no outage, and an error of hookseal is not changed."""
    database = urls.database(database_url)
    with pytest.raises(asyncpg.PostgresSyntaxError):
        async with connect(database) as connection:
            await connection.execute("SELEKT")
    with pytest.raises(Malformed):
        async with connect(database):
            raise Malformed


def test_run_returns_the_result() -> None:
    """The result of the command is returned, and errors of other libraries are translated."""

    async def give(error: Exception | None) -> int:
        if error is not None:
            raise error
        return 7

    assert 7 == run(give(None))
    assert 7 == run(give(None), loop_factory=asyncio.new_event_loop)
    with pytest.raises(Unavailable, match=r"^a server does not answer \(ConnectionResetError\): try again$"):
        run(give(ConnectionResetError()))
    with pytest.raises(KeyError):
        run(give(KeyError()))


@pytest.mark.req("SEC-15", part="settings")
async def test_a_process_with_a_key_cannot_be_dumped() -> None:
    """A process with a key cannot be dumped, and passes the key to no child process."""
    key = "3q2+796tvu/erb7v3q2+796tvu/erb7v3q2+AAECAwQ="
    ended = await python(
        *("-c", _START),
        DATABASE_URL=f"postgresql://user:{PASSWORD}@127.0.0.1:1/nowhere",
        REDIS_URL=f"redis://:{PASSWORD}@h",
        SECRETS_PROVIDER="db",
        SECRETS_MASTER_KEY=key,
    )
    assert (0, "") == (ended.code, ended.err)
    first, second = ended.out.splitlines()
    assert first.startswith("0 False Settings(")
    assert PASSWORD not in first
    assert key not in first
    assert "False" == second
