"""The revision of a schema, and its upgrade."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from hookseal.embedded.server import Server
from hookseal.errors import ConfigError, Refused
from hookseal.postgres.schema import fingerprint, plaintext, revision
from hookseal.postgres.schema.plaintext import PlaintextColumn
from hookseal.postgres.schema.roles import ROLES
from hookseal.postgres.schema.upgrade import upgrade
from tests.cli.command import hookseal
from tests.schema.make_dump import DUMPS, digest
from tests.servers import sibling

_MADE = """
SELECT c.relname::text || ' ' || c.oid::text FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'hookseal'
UNION ALL
SELECT p.proname::text || ' ' || p.oid::text FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'hookseal'
"""
ROWS_OF_0001 = Path(__file__).with_name("rows_of_0001.sql").read_text(encoding="utf-8")
EMPTY_IN_0001 = {"key_lock"}
FILE_OF_EVENTS = "SELECT pg_relation_filenode('hookseal.events')"
FROZEN = {path.stem: json.loads(path.read_text(encoding="utf-8"))["migration"] for path in DUMPS.glob("*.json")}


async def execute(url: str, *statements: str) -> None:
    """Run these statements, each in a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def made(url: str) -> set[str]:
    """Return every table and function of our schema, with its oid."""
    connection = await asyncpg.connect(url)
    try:
        return {row[0] for row in await connection.fetch(_MADE)}
    finally:
        await connection.close()


async def owned(server: Server, *attributes: str) -> str:
    """Create an empty database whose owner has only these attributes, and return its URL for that owner."""
    await execute(
        server.url,
        f"CREATE ROLE owner LOGIN PASSWORD 'hunter2' NOSUPERUSER {' '.join(attributes)}",
        "CREATE DATABASE owned OWNER owner",
    )
    return as_role(sibling(server.url, "owned"), "owner")


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:hunter2@{parts.hostname}:{parts.port}").geturl()


async def test_a_second_upgrade_creates_nothing(empty_database_url: str) -> None:
    assert revision.EXPECTED == await upgrade(empty_database_url)
    first = await made(empty_database_url)
    assert revision.EXPECTED == await upgrade(empty_database_url)

    assert first == await made(empty_database_url)
    assert len(first) > 20


async def test_concurrent_upgrades_succeed(empty_database_url: str) -> None:
    ended = await asyncio.gather(*(upgrade(empty_database_url) for _ in range(4)))

    assert [revision.EXPECTED] * 4 == ended


async def test_databases_of_a_new_server_upgrade_concurrently(bare_postgres: Server) -> None:
    """The first upgrades of several databases of one server may run concurrently, although they share the roles."""
    names = [f"other{number}" for number in range(4)]
    await execute(bare_postgres.url, *(f"CREATE DATABASE {name}" for name in names))
    urls = [sibling(bare_postgres.url, name) for name in names]
    ended = await asyncio.gather(*(hookseal("db", "upgrade", DATABASE_URL=url) for url in urls))

    assert [(0, "")] * len(names) == [(each.code, each.err) for each in ended]


async def test_a_newer_database_is_refused(database_url: str) -> None:
    """A database of a newer version stays unchanged, and the error says what to do."""
    await execute(database_url, "UPDATE hookseal.alembic_version SET version_num = '9999', runs_from = '9999'")
    before = await made(database_url)
    with pytest.raises(ConfigError, match=r"9999.*install a newer hookseal"):
        await upgrade(database_url)

    assert before == await made(database_url)


async def test_an_owner_that_may_create_roles_can_upgrade(bare_postgres: Server) -> None:
    """A database owner who may create roles, without being a superuser, can upgrade and publish."""
    url = await owned(bare_postgres, "CREATEROLE")

    assert revision.EXPECTED == await upgrade(url)
    assert revision.EXPECTED == await upgrade(url)
    await execute(url, "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")


async def test_an_owner_without_the_right_gets_the_statements(bare_postgres: Server) -> None:
    """An owner who may not create roles gets the statements to run, and can upgrade afterwards."""
    url = await owned(bare_postgres)
    with pytest.raises(Refused) as caught:
        await upgrade(url)
    statements = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert [f"CREATE ROLE {role} NOLOGIN;" for role in ROLES] == statements[:-2]
    assert f"GRANT {', '.join(ROLES)} TO owner WITH ADMIN OPTION;" == statements[-1]
    assert 5 == caught.value.exit_code
    assert set() == await made(url)

    await execute(bare_postgres.url, *statements)
    assert revision.EXPECTED == await upgrade(url)
    await execute(url, "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")


async def test_a_second_installation_gets_one_statement(bare_postgres: Server) -> None:
    """If the roles exist and the owner may not grant them, the error has the one statement that allows it."""
    await upgrade(bare_postgres.url)
    url = await owned(bare_postgres, "CREATEROLE")
    with pytest.raises(Refused, match="permission denied") as caught:
        await upgrade(url)
    statements = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert [f"GRANT {', '.join(ROLES)} TO owner WITH ADMIN OPTION;"] == statements

    await execute(bare_postgres.url, *statements)
    assert revision.EXPECTED == await upgrade(url)


async def test_a_role_without_rights_is_refused(own_postgres: Server) -> None:
    await execute(
        own_postgres.url, "CREATE ROLE stranger LOGIN PASSWORD 'hunter2' NOSUPERUSER", "CREATE DATABASE another"
    )
    for name in ("another", "hookseal"):
        with pytest.raises(Refused) as caught:
            await upgrade(as_role(sibling(own_postgres.url, name), "stranger"))
        assert "hunter2" not in str(caught.value)


async def test_a_schema_of_another_role_is_refused(bare_postgres: Server) -> None:
    """A schema of another role is refused, even for a superuser, since its owner could change everything in it."""
    await execute(bare_postgres.url, "CREATE ROLE mallory NOSUPERUSER", "CREATE SCHEMA hookseal AUTHORIZATION mallory")
    with pytest.raises(Refused, match="belongs to another role"):
        await upgrade(bare_postgres.url)

    assert set() == await made(bare_postgres.url)


async def test_a_schema_without_the_right_to_create_is_refused(bare_postgres: Server) -> None:
    url = await owned(bare_postgres, "CREATEROLE")
    await execute(url, "CREATE SCHEMA hookseal", "REVOKE CREATE ON SCHEMA hookseal FROM owner")
    with pytest.raises(Refused, match="WITH ADMIN OPTION"):
        await upgrade(url)


@pytest.mark.req("OPS-09", part="compared")
async def test_a_migrated_database_has_the_current_revision(database_url: str, empty_database_url: str) -> None:
    found = []
    for url in (empty_database_url, database_url):
        connection = await asyncpg.connect(url)
        found.append(await revision.current(connection))
        await connection.close()

    assert [None, revision.EXPECTED] == found


async def stored(connection: "asyncpg.Connection[asyncpg.Record]", *tables: str) -> dict[str, list[dict[str, Any]]]:
    """Return every row of these tables, by default of all, as the columns with their values."""
    names = tables or [
        row[0]
        for row in await connection.fetch(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'hookseal' AND tablename <> 'alembic_version'"
        )
    ]
    return {
        name: [
            json.loads(row[0])
            for row in await connection.fetch(f"SELECT to_jsonb(t)::text FROM hookseal.{name} AS t")  # noqa: S608 -- ours
        ]
        for name in names
    }


@pytest.mark.req("OPS-09", part="frozen")
@pytest.mark.pure
@pytest.mark.parametrize("number", FROZEN)
def test_a_frozen_migration_is_not_edited(number: str) -> None:
    """Databases exist that ran it: a change of the schema is a new migration. All but the newest are frozen."""
    assert {f"{each:04}" for each in range(1, int(revision.EXPECTED))} <= FROZEN.keys()
    assert FROZEN[number] == digest(number)


@pytest.mark.req("OPS-09", part="previous-version")
@pytest.mark.parametrize("column", PlaintextColumn)
async def test_a_database_of_the_first_revision_is_upgraded(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, column: PlaintextColumn
) -> None:
    """With rows in every table, and the plaintext column in any state: what was there stays, and nothing differs.

    `db status` says what to do before.
    """
    monkeypatch.setattr(revision, "EXPECTED", "0001")
    await upgrade(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(ROWS_OF_0001)
        if column is not PlaintextColumn.THERE:
            await connection.execute("SELECT hookseal.forbid_plaintext()")
        if column is PlaintextColumn.GONE:
            await plaintext.remove_forbidden(connection)
        before, file = await stored(connection), await connection.fetchval(FILE_OF_EVENTS)
        assert EMPTY_IN_0001 == {name for name, rows in before.items() if not rows}
        monkeypatch.undo()

        status = await hookseal("db", "status", DATABASE_URL=empty_database_url)
        assert 1 == status.code
        assert status.out.startswith(
            f"revision 0001, this version needs {revision.EXPECTED}: "
            f"the schema is at revision 0001, this version needs {revision.EXPECTED}: run `hookseal db upgrade`\n"
        )
        upgraded = await hookseal("db", "upgrade", "--json", DATABASE_URL=empty_database_url)
        assert (0, "0001", revision.EXPECTED, []) == (
            upgraded.code,
            upgraded.json["previous_revision"],
            upgraded.json["revision"],
            upgraded.json["differences"],
        )
        compared = await fingerprint.compare(connection)
        assert compared is not None
        assert compared.found == compared.expected

        gone = {"endpoints": {"secret"}} if column is not PlaintextColumn.THERE else {}
        after = await stored(connection, *before)
        for name, rows in before.items():
            kept = [{key: row[key] for key in row if key not in gone.get(name, set())} for row in rows]
            assert kept == [{key: row[key] for key in old} for row, old in zip(after[name], kept, strict=True)], name
        assert file == await connection.fetchval(FILE_OF_EVENTS), "the largest table was written anew"
        tenants = await connection.fetch("SELECT tenant_id, created_at FROM hookseal.tenants ORDER BY created_at")
        assert [("acme", datetime(2026, 1, 1, tzinfo=UTC)), ("globex", datetime(2026, 1, 3, tzinfo=UTC))] == [
            tuple(row) for row in tenants
        ]
        assert 2 == await connection.fetchval(
            "SELECT count(*) FROM hookseal.publish('acme', 'invoice.paid', '{}'::json) WHERE delivery_id IS NOT NULL"
        )
    finally:
        await connection.close()
