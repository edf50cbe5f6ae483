"""If an untrusted role may create objects that hookseal could call, upgrades and workers refuse, with the remedy."""

from pathlib import Path

import asyncpg
import pytest

from hookseal.embedded.server import Server
from hookseal.errors import Refused
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import revision, roles
from hookseal.postgres.schema.upgrade import upgrade
from tests.cli.command import hookseal
from tests.doubles.logins import login
from tests.schema.later import make_later
from tests.schema.test_upgrade import as_role, execute
from tests.servers import sibling

pytestmark = pytest.mark.req("SEC-08")


async def statements(pool: Pool, database_url: str) -> list[str]:
    """Return the statements that an upgrade says to run."""
    with pytest.raises(Refused) as refused:
        await upgrade(database_url)
    assert 5 == refused.value.exit_code
    with pytest.raises(Refused):  # the check of a worker, at its start and in each probe
        await roles.refuse(pool)
    return [line.strip() for line in str(refused.value).splitlines() if line.startswith("  ")]


async def test_owners_may_create_objects(pool: Pool, database_url: str) -> None:
    """Owners may create objects; so may everybody in `public`, which is not in hookseal's search path."""
    await pool.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    await roles.refuse(pool)
    await roles.refuse_bound(pool)
    await upgrade(database_url)


@pytest.mark.parametrize("schema", ["hookseal", "pg_catalog"])
async def test_a_right_of_public_is_named(pool: Pool, database_url: str, schema: str) -> None:
    """A right of PUBLIC to create is named, and once it is revoked, the upgrade succeeds."""
    await pool.execute(f"GRANT CREATE ON SCHEMA {schema} TO PUBLIC")
    listed = await statements(pool, database_url)
    assert [f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC;"] == listed
    await pool.execute(listed[0])

    await upgrade(database_url)


async def test_a_roles_right_and_function_are_named(pool: Pool, database_url: str) -> None:
    async with login(pool, database_url, suffix=" x") as (role, _):
        await pool.execute(f'GRANT USAGE, CREATE ON SCHEMA hookseal TO "{role}"')
        await pool.execute(
            "CREATE FUNCTION hookseal.publish(text, text, text) RETURNS text LANGUAGE sql AS 'SELECT $1'"
        )
        await pool.execute(f'ALTER FUNCTION hookseal.publish(text, text, text) OWNER TO "{role}"')
        listed = await statements(pool, database_url)
        assert [
            "DROP ROUTINE hookseal.publish(text,text,text);",
            f'REVOKE CREATE ON SCHEMA hookseal FROM "{role}";',
        ] == listed
        for statement in listed:
            await pool.execute(statement)

        await roles.refuse(pool)


async def test_a_member_of_the_owner_is_accepted(
    bare_postgres: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A login that may act as the schema's owner can upgrade it; workers accept its objects, not those of others."""
    database = sibling(bare_postgres.url, "another")
    await execute(
        bare_postgres.url,
        "CREATE ROLE owner NOLOGIN NOSUPERUSER",
        "CREATE ROLE migrating LOGIN PASSWORD 'hunter2' NOSUPERUSER CREATEROLE",
        "CREATE ROLE outside LOGIN PASSWORD 'hunter2' NOSUPERUSER",
        "GRANT owner TO migrating",
        "GRANT outside TO owner",
        "CREATE DATABASE another",
    )
    await execute(database, "CREATE SCHEMA hookseal AUTHORIZATION owner")
    url = as_role(database, "migrating")
    assert revision.EXPECTED == await upgrade(url)
    await execute(database, "GRANT CREATE ON SCHEMA hookseal TO migrating")
    make_later(tmp_path, monkeypatch, "CREATE TABLE hookseal.notes (tenant_id text PRIMARY KEY)")
    assert revision.EXPECTED == await upgrade(url)
    assert revision.EXPECTED == await upgrade(url)

    await execute(bare_postgres.url, "GRANT hookseal_worker TO outside")
    async with asyncpg.create_pool(as_role(database, "outside"), min_size=1, max_size=1) as pool:
        await roles.refuse(pool)
        await execute(
            database,
            "GRANT CREATE ON SCHEMA hookseal TO outside",
            "CREATE FUNCTION hookseal.theirs() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "ALTER FUNCTION hookseal.theirs() OWNER TO outside",
        )
        assert ["DROP ROUTINE hookseal.theirs();", "REVOKE CREATE ON SCHEMA hookseal FROM outside;"] == (
            await statements(pool, url)
        )


async def test_a_worker_is_refused(pool: Pool, database_url: str, redis_url: str) -> None:
    """A worker is refused (exit code 5) before it reads a secret."""
    await pool.execute("GRANT CREATE ON SCHEMA hookseal TO PUBLIC")
    ended = await hookseal(
        "worker",
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        SECRETS_PROVIDER="db",
        SECRETS_MASTER_KEY="7yyrkuc1ed1FZi0YxFzajm8mpnMX8VMElPYFusAJKMQ=",
    )

    assert 5 == ended.code, ended.err
    assert "REVOKE CREATE ON SCHEMA hookseal FROM PUBLIC;" in ended.err


async def test_a_constraint_with_a_foreign_function_is_refused(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A constraint bound to an untrusted role's function calls it forever, so the upgrade refuses and names it."""
    before = await upgrade(empty_database_url)
    make_later(tmp_path, monkeypatch, "CREATE TABLE hookseal.notes (tenant_id text PRIMARY KEY)")
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(
            "CREATE FUNCTION public.num_nulls(text, text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 0';"
            "ALTER TABLE hookseal.endpoints ADD CONSTRAINT bound CHECK (num_nulls(url, url) = 0)"
        )
        with pytest.raises(Refused, match=r"constraint bound on table .* uses function .*num_nulls\(text,text\)"):
            await upgrade(empty_database_url)
        assert before == await connection.fetchval("SELECT version_num FROM hookseal.alembic_version")
        await connection.execute("ALTER TABLE hookseal.endpoints DROP CONSTRAINT bound")
        await upgrade(empty_database_url)
    finally:
        await connection.close()


async def test_every_function_sets_its_search_path(pool: Pool) -> None:
    rows = await pool.fetch("SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'hookseal'::regnamespace")
    paths = [[each for each in row["proconfig"] or () if each.startswith("search_path=")] for row in rows]

    assert 10 < len(rows)
    assert [["search_path=pg_catalog, pg_temp"]] * len(rows) == paths
