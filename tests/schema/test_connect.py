"""Every connection has our search path, so that only PostgreSQL's own functions are used, even behind a pooler."""

import ast
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hookseal.postgres.connect import (
    SEARCH_PATH,
    IsolationRefused,
    SearchPathRefused,
    connect,
    connection_pool,
    pool_of_qualified_statements,
)
from hookseal.postgres.pool import Connection, Pool
from tests.cli.command import hookseal
from tests.doubles.logins import login
from tests.doubles.pooler import pooler
from tests.doubles.stored import MASTER_KEY_TEXT

pytestmark = pytest.mark.req("SEC-08")

ROOT = Path(__file__).parents[2]
THE_PLACE = ROOT / "src" / "hookseal" / "postgres" / "connect.py"
OPENS = {"connect", "create_pool"}
CONTENDERS = ROOT / "tools" / "bench" / "contenders"  # other programs, with connections of their own


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Connection]:
    connection = await connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def path(connection: Connection) -> str:
    found: str = await connection.fetchval("SHOW search_path")
    return found


@pytest.mark.parametrize("query", ["", "?search_path=public", "?options=-csearch_path%3Dpublic"])
async def test_the_url_cannot_change_the_search_path(database_url: str, query: str) -> None:
    """The search path is ours, whatever the URL says, and stays so after a reset of the session."""
    async with opened(database_url + query) as connection:
        assert SEARCH_PATH == await path(connection)
        await connection.execute("RESET ALL")
        assert SEARCH_PATH == await path(connection)


async def test_role_and_database_cannot_change_the_search_path(pool: Pool, database_url: str) -> None:
    name = await pool.fetchval("SELECT quote_ident(current_database())")
    async with login(pool, database_url) as (role, url):
        await pool.execute(
            f"ALTER DATABASE {name} SET search_path = public; ALTER ROLE {role} SET search_path = public"
        )
        async with opened(url) as connection:
            assert SEARCH_PATH == await path(connection)


async def test_each_connection_of_a_pool_has_the_search_path(database_url: str) -> None:
    sent: list[str] = []
    async with connection_pool(database_url, size=2) as pool:
        async with pool.acquire() as one, pool.acquire() as other:
            assert [SEARCH_PATH] * 2 == [await path(one), await path(other)]
            one.add_query_logger(lambda record: sent.append(record.query))
            other.add_query_logger(lambda record: sent.append(record.query))
        async with pool.acquire():
            pass
    assert [] == sent


async def test_a_statement_is_planned_once(database_url: str) -> None:
    """With `plans_once` PostgreSQL plans each statement once for a connection, except behind a pooler."""
    mode = "SELECT current_setting('plan_cache_mode')"
    async with (
        pooler(database_url, hides=True) as between,
        connection_pool(database_url, size=1, plans_once=True) as ours,
        connection_pool(between.url, size=1, plans_once=True) as through,
        connection_pool(database_url, size=1) as other,
    ):
        modes = [await each.fetchval(mode) for each in (ours, through, other)]
    assert ["force_generic_plan", "auto", "auto"] == modes


async def test_an_open_transaction_is_rolled_back(database_url: str) -> None:
    async with connection_pool(database_url, size=1) as pool:
        async with pool.acquire() as connection:
            await connection.transaction().start()
            await connection.execute("CREATE TABLE hookseal.left_open ()")
        assert await pool.fetchval("SELECT to_regclass('hookseal.left_open') IS NULL")


async def test_a_dropped_setting_is_set_by_a_statement(database_url: str) -> None:
    """If a proxy drops the setting but keeps the session, a statement sets the path once for the connection."""
    async with pooler(database_url, drops=True) as between, connection_pool(between.url, size=1) as pool:
        assert [SEARCH_PATH] == between.dropped
        for _ in range(2):
            async with pool.acquire() as connection:
                assert SEARCH_PATH == await path(connection)


async def test_a_default_isolation_of_others_does_not_count(pool: Pool, database_url: str) -> None:
    """Our statements need READ COMMITTED; a default of the role or the database changes it on no connection of ours."""
    name = await pool.fetchval("SELECT quote_ident(current_database())")
    await pool.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    async with (
        opened(database_url) as connection,
        connection_pool(database_url, size=1) as ours,
        pool_of_qualified_statements(database_url, size=1, application_name="x", command_timeout=5) as publishing,
    ):
        found = [await each.fetchval("SHOW transaction_isolation") for each in (connection, ours, publishing)]
        async with connection.transaction():
            found.append(await connection.fetchval("SHOW transaction_isolation"))
    assert ["read committed"] * 4 == found


async def test_a_pooler_with_sessions_of_another_isolation_is_refused(pool: Pool, database_url: str) -> None:
    """Behind a pooler the default of the sessions cannot be set once, so another one is refused, with the statement."""
    async with login(pool, database_url) as (role, url), pooler(url, hides=True) as between:
        await pool.execute(f"ALTER ROLE {role} SET default_transaction_isolation = 'repeatable read'")
        with pytest.raises(IsolationRefused, match="repeatable read") as refused:
            await connect(between.url)
        [statement] = [line.strip() for line in str(refused.value).splitlines() if line.startswith("  ")]

        await pool.execute(statement)
        async with opened(between.url) as connection:
            assert "read committed" == await connection.fetchval("SHOW transaction_isolation")


async def test_a_pooler_that_changes_sessions_is_refused(pool: Pool, database_url: str) -> None:
    """If a pooler drops the setting and changes sessions, the connection is refused, with the statement to run."""
    async with login(pool, database_url) as (role, url), pooler(url, drops=True, hides=True) as between:
        with pytest.raises(SearchPathRefused, match="drops the setting search_path") as refused:
            await connect(between.url)
        [statement] = [line.strip() for line in str(refused.value).splitlines() if line.startswith("  ")]
        assert f'ALTER ROLE "{role}" SET search_path = {SEARCH_PATH};' == statement

        await pool.execute(statement)
        async with opened(between.url) as connection:
            assert SEARCH_PATH == await path(connection)


async def test_a_refused_parameter_is_treated_as_dropped(pool: Pool, database_url: str) -> None:
    """If a pooler refuses the parameter, the connection is tried without it and judged as if it were dropped."""
    async with login(pool, database_url) as (role, url), pooler(url, refuses=True, hides=True) as between:
        with pytest.raises(SearchPathRefused):
            await connect(between.url)
        await pool.execute(f"ALTER ROLE {role} SET search_path = {SEARCH_PATH}")
        async with opened(between.url) as connection:
            assert SEARCH_PATH == await path(connection)


async def test_a_command_behind_a_refused_pooler_exits_78(database_url: str) -> None:
    async with pooler(database_url, drops=True, hides=True) as between:
        ended = await hookseal("db", "status", DATABASE_URL=between.url)

    assert 78 == ended.code
    assert "ALTER ROLE" in ended.err
    assert f"PostgreSQL at {between.address}" in ended.err


async def test_a_worker_behind_a_refused_pooler_exits_78(database_url: str, redis_url: str) -> None:
    async with pooler(database_url, drops=True, hides=True) as between:
        ended = await hookseal(
            "worker",
            DATABASE_URL=between.url,
            REDIS_URL=redis_url,
            SECRETS_PROVIDER="db",
            SECRETS_MASTER_KEY=MASTER_KEY_TEXT,
        )

    assert 78 == ended.code
    assert "ALTER ROLE" in ended.err


async def test_a_qualified_pool_keeps_the_logins_search_path(database_url: str) -> None:
    """A pool that sends only qualified statements accepts the login's search path and does not change it."""
    async with (
        pooler(database_url, drops=True, hides=True) as between,
        pool_of_qualified_statements(between.url, size=1, application_name="x", command_timeout=5) as pool,
    ):
        for _ in range(2):
            assert '"$user", public' == await pool.fetchval("SHOW search_path")


def _opening(file: Path) -> list[str]:
    """Return the places in the file that open connections with asyncpg directly."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "asyncpg"
        and node.attr in OPENS
    ]
    return found + [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("asyncpg")
        and OPENS & {alias.name for alias in node.names}
    ]


def test_one_module_opens_connections() -> None:
    assert THE_PLACE.is_file()
    assert _opening(THE_PLACE)
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    ours = [file for file in files if file != THE_PLACE and file.parent != CONTENDERS]

    assert [] == [place for file in ours for place in _opening(file)]
