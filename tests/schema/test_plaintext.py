"""The column of plaintext secrets is removed once it is forbidden, and everything else about endpoints stays."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from hookseal.dispatcher.store import endpoint_queries
from hookseal.embedded.server import Server
from hookseal.errors import Busy, Refused
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import plaintext, rights
from hookseal.postgres.schema.plaintext import PlaintextColumn
from hookseal.postgres.schema.upgrade import upgrade
from tests import rows
from tests.doubles.legacy import legacy
from tests.doubles.stored import begin
from tests.schema.test_upgrade import made

pytestmark = pytest.mark.req("SEC-12")

FORBID = "SELECT hookseal.forbid_plaintext()"
INSERT = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)
VALUES ('acme', gen_random_uuid(), 'https://receiver.example/older', '{*}', $1)
"""
_COLUMNS = "SELECT attname::text FROM pg_attribute WHERE attrelid = 'hookseal.endpoints'::regclass AND attnum > 0"


async def columns(pool: Pool) -> set[str]:
    """Return the columns of the table of endpoints."""
    return {row["attname"] for row in await pool.fetch(f"{_COLUMNS} AND NOT attisdropped")}


async def state(pool: Pool) -> PlaintextColumn | None:
    async with pool.acquire() as connection:
        return await plaintext.state(connection)


async def test_the_column_stays_until_it_is_forbidden(pool: Pool, database_url: str) -> None:
    """An upgrade keeps the column until plaintext is forbidden, then removes it; a further upgrade does nothing."""
    before = await columns(pool)
    await upgrade(database_url)
    assert (PlaintextColumn.THERE, before) == (await state(pool), await columns(pool))
    await pool.execute(FORBID)
    assert PlaintextColumn.FORBIDDEN is await state(pool)

    await upgrade(database_url)
    assert (PlaintextColumn.GONE, before - {"secret"}) == (await state(pool), await columns(pool))
    after = await made(database_url)
    await upgrade(database_url)
    assert after == await made(database_url)


async def test_a_refused_plaintext_is_printed_nowhere(own_postgres: Server) -> None:
    """Neither what the client gets nor the log of PostgreSQL has the row, although the log says all that it can."""
    secret = "an-old-system-wrote-this"
    connection = await asyncpg.connect(own_postgres.url)
    try:
        await connection.execute("SET log_error_verbosity = 'verbose'; SET log_min_error_statement = 'error'")
        added = await rows.endpoint(connection)
        await connection.execute(FORBID)
        said = []
        for statement in (INSERT, "UPDATE hookseal.endpoints SET secret = $1"):
            with pytest.raises(asyncpg.CheckViolationError) as caught:
                await connection.execute(statement, secret)
            assert "endpoints_no_plaintext" == caught.value.constraint_name
            said.append(repr(caught.value.as_dict()))
    finally:
        await connection.close()
    log = own_postgres.log.read_text(encoding="utf-8")
    assert 2 == log.count('violates check constraint "endpoints_no_plaintext"')
    assert "UPDATE hookseal.endpoints SET secret = $1" in log
    for text in (log, *said):
        assert secret not in text
        assert str(added) not in text


async def test_without_a_schema_there_is_no_column(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await plaintext.state(connection) is None
        await plaintext.remove_forbidden(connection)
    finally:
        await connection.close()


async def test_without_the_column_endpoints_work(pool: Pool, database_url: str) -> None:
    """Without the column endpoints are added, shown and counted as before, and none can claim to have plaintext."""
    await pool.execute(FORBID)
    await upgrade(database_url)
    installation = await begin(pool)
    added = await installation.endpoint()

    async with pool.acquire() as connection:
        shown = await endpoint_queries.show(connection, added.pointer.tenant_id, endpoint_id=added.pointer.endpoint_id)
    assert shown is not None
    assert shown["has_plaintext"] is False
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.endpoints WHERE has_plaintext")
    with pytest.raises(asyncpg.CheckViolationError):
        await rows.change(pool, "endpoints", has_plaintext=True)
    with pytest.raises(asyncpg.UndefinedColumnError):
        await legacy(pool)


async def test_the_index_stays_after_the_removal(pool: Pool, database_url: str) -> None:
    await pool.execute(FORBID)
    await upgrade(database_url)

    assert await pool.fetchval("SELECT to_regclass('hookseal.endpoints_with_plaintext') IS NOT NULL")


@pytest.mark.req("OPS-10")
async def test_other_columns_keep_their_rights(pool: Pool, database_url: str) -> None:
    await pool.execute(FORBID)
    await upgrade(database_url)

    assert rights.Comparison(above=(), missing=()) == await rights.compare(pool)


async def test_concurrent_upgrades_remove_the_column_once(pool: Pool, database_url: str) -> None:
    await pool.execute(FORBID)
    await asyncio.gather(*(upgrade(database_url) for _ in range(3)))

    assert PlaintextColumn.GONE is await state(pool)


async def test_a_locked_table_is_busy(pool: Pool, database_url: str) -> None:
    """If the table stays locked, the upgrade ends as `Busy` without a change, and can be repeated."""
    await pool.execute(FORBID)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints")
        with pytest.raises(Busy, match="which is held by process"):
            await upgrade(database_url)
        assert PlaintextColumn.FORBIDDEN is await state(pool)
    await upgrade(database_url)
    assert PlaintextColumn.GONE is await state(pool)


async def test_only_the_owner_removes_the_column(pool: Pool, database_url: str) -> None:
    await pool.execute(FORBID)
    name = urlsplit(database_url).path.removeprefix("/")
    await pool.execute(f"CREATE ROLE {name}_other LOGIN PASSWORD 'hunter2' NOSUPERUSER")
    try:
        parts = urlsplit(database_url)
        with pytest.raises(Refused):
            await upgrade(parts._replace(netloc=f"{name}_other:hunter2@{parts.hostname}:{parts.port}").geturl())
        assert PlaintextColumn.FORBIDDEN is await state(pool)
    finally:
        await pool.execute(f"DROP ROLE {name}_other")
