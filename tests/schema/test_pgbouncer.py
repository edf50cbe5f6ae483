"""Behind a real PgBouncer in transaction mode the schema is created, statements work, and refusals are clear."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg
import pytest

from hookseal.embedded.server import Server
from hookseal.postgres.connect import SEARCH_PATH, SearchPathRefused, connect, connection_pool
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import revision
from tests.cli.command import hookseal
from tests.doubles.pgbouncer import pgbouncer
from tests.worker.waiting import eventually

# PgBouncer tracks prepared statements (the default from 1.24 on), or does not (before 1.21 it cannot).
NAMES = pytest.mark.parametrize("kept", ["200", "0"])
PREPARED = "SELECT name FROM pg_prepared_statements"
STRANGER = "stranger"


@asynccontextmanager
async def between(database_url: str, **changes: str) -> AsyncIterator[Server]:
    """Run a PgBouncer in front of a database whose sessions have our search path by default."""
    direct = await asyncpg.connect(database_url)
    try:
        name = await direct.fetchval("SELECT quote_ident(current_database())")
        await direct.execute(f"ALTER DATABASE {name} SET search_path = {SEARCH_PATH}")
    finally:
        await direct.close()
    async with pgbouncer(database_url, **changes) as server:
        yield server


@NAMES
async def test_the_first_upgrade_works(empty_database_url: str, kept: str) -> None:
    """`db upgrade` creates the schema through PgBouncer, twice, and leaves no prepared statement in a session."""
    async with between(empty_database_url, max_prepared_statements=kept, default_pool_size="2") as server:
        for _ in range(2):
            ended = await hookseal("db", "upgrade", DATABASE_URL=server.url)
            assert (0, "") == (ended.code, ended.err)
        ended = await hookseal("db", "status", "--json", DATABASE_URL=server.url)

        assert revision.EXPECTED == ended.json["revision"]
        for session in await sessions(server.url, number=2):
            assert not [name for name in session if not name.startswith("PGBOUNCER_")]


async def sessions(url: str, *, number: int) -> list[set[str]]:
    """Return the names of the prepared statements in each of its sessions, all open at the same time."""
    found = []
    clients = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(number)]
    for client in clients:
        await client.execute("BEGIN")
        found.append({row["name"] for row in await client.fetch(PREPARED)})
    for client in clients:
        client.terminate()
    return found


@NAMES
async def test_each_statement_gets_its_own_result(database_url: str, kept: str) -> None:
    """With 8 connections on 3 sessions each statement gets its own result, inside a transaction and outside."""
    errors: Counter[str] = Counter()
    async with (
        between(database_url, max_prepared_statements=kept) as server,
        connection_pool(server.url, size=8) as pool,
    ):

        async def ask(client: int) -> None:
            for number in range(40):
                statement = f"SELECT $1::int + {number % 7}"
                try:
                    async with pool.acquire() as connection:
                        assert client + number % 7 == await connection.fetchval(statement, client)
                        async with connection.transaction():
                            assert client + number % 7 == await connection.fetchval(statement, client)
                except asyncpg.PostgresError as error:
                    errors[type(error).__name__] += 1

        await asyncio.gather(*(ask(client) for client in range(16)))
        async with pool.acquire() as connection:
            await connection.fetchval("SELECT 1")
            names = [row["name"] for row in await connection.fetch(PREPARED)]

    assert {} == errors
    assert ({True} if kept != "0" else set()) == {name.startswith("PGBOUNCER_") for name in names}


async def test_a_slow_statement_is_cancelled(pool: Pool, database_url: str) -> None:
    """At its time-out a statement is cancelled in PostgreSQL, and the connection stays usable."""
    running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^SELECT pg_sleep'"

    async def is_cancelled() -> bool:
        return not await pool.fetchval(f"{running} AND state = 'active'")

    async with between(database_url) as server, connection_pool(server.url, size=1) as through:
        with pytest.raises(TimeoutError):
            await through.execute("SELECT pg_sleep(600)", timeout=0.5)
        await eventually(is_cancelled, within=10)
        assert 1 == await pool.fetchval(running)
        assert 1 == await through.fetchval("SELECT 1")


async def test_the_search_path_is_passed_on(database_url: str) -> None:
    """PostgreSQL 18 reports its search path, so PgBouncer can give each client its own path in every session."""
    async with pgbouncer(
        database_url, ignore_startup_parameters="", track_extra_parameters="IntervalStyle, search_path"
    ) as server:
        other = await asyncpg.connect(server.url, server_settings={"search_path": "public"})
        if other.get_server_version().major < 18:
            pytest.skip("PostgreSQL before 18 does not report its search path")
        ours = await connect(server.url)
        for _ in range(5):
            assert "public" == await other.fetchval("SELECT current_setting('search_path')")
            assert SEARCH_PATH == await ours.fetchval("SELECT current_setting('search_path')")
        await ours.close()
        await other.close()


@pytest.mark.parametrize("ignored", ["search_path", ""])
async def test_a_dropped_search_path_is_refused(database_url: str, ignored: str) -> None:
    """If PgBouncer drops or refuses the search path, the connection is refused, with the statement to run."""
    async with pgbouncer(database_url, ignore_startup_parameters=ignored) as server:
        with pytest.raises(SearchPathRefused, match="ALTER ROLE"):
            await connect(server.url)


@pytest.mark.parametrize(
    ("changes", "query", "code", "message"),
    [
        ({"pool_mode": "statement"}, "", 78, "set pool_mode = transaction in its configuration"),
        ({}, "?options=-c%20lock_timeout%3D4", 78, "refuses the setting lock_timeout of the connection"),
        ({}, "_absent", 69, "has no such database"),
        ({}, STRANGER, 69, "refuses the user or the password"),
        ({"max_client_conn": "1"}, "", 69, "has no connection left"),
    ],
)
async def test_a_refusal_of_pgbouncer_has_its_exit_code(
    database_url: str, changes: Mapping[str, str], query: str, code: int, message: str
) -> None:
    """An error of PgBouncer itself ends a command with the code and message of the same error of PostgreSQL."""
    async with between(database_url, **changes) as server:
        holds = await asyncpg.connect(server.url)
        url = server.url + query if query != STRANGER else re.sub("//[^:]+:", f"//{STRANGER}:", server.url)
        ended = await hookseal("db", "status", DATABASE_URL=url)
        await holds.close()

    assert (code, True) == (ended.code, message in ended.err), ended.err
