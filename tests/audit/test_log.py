"""The audit log in PostgreSQL: rows are added with the change, one after the other, and never changed."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.audit.chain import Action
from hookseal.errors import Defect, Malformed, Refused, Unavailable
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from tests.audit.logs import COPIED, KEY, MATERIAL, WHO, altered, append, broken, chain, change, second_opinion, tamper

Pool = asyncpg.Pool


async def stored(pool: "Pool[asyncpg.Record]", tenant: str = "acme") -> list[asyncpg.Record]:
    """Return the rows of the tenant, oldest first."""
    return await pool.fetch("SELECT * FROM hookseal.audit_log WHERE tenant_id = $1 ORDER BY sequence", tenant)


@pytest.mark.req("SEC-14", part="append")
@pytest.mark.req("OPS-10")
async def test_a_row_has_change_time_and_actor(pool: "Pool[asyncpg.Record]") -> None:
    """A row has the change, the database's time and, as actor, the role that logged in and the given name."""
    before = await pool.fetchval("SELECT clock_timestamp()")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL ROLE hookseal_operator")
        assert 1 == await log.append(connection, KEY, WHO, change())
    (row,) = await stored(pool)

    assert f"{await pool.fetchval('SELECT session_user')}/ada@example" == row["actor"]
    assert ("secret.rotated", "endpoint:1", "corr-1") == (row["action"], row["subject"], row["correlation_id"])
    assert ('{"generation":0}', '{"generation":1}') == (row["before"], row["after"])
    assert (bytes(32), "1") == (row["previous_mac"], row["mac_key_id"])
    assert before <= row["at"] <= await pool.fetchval("SELECT clock_timestamp()")


@pytest.mark.req("SEC-14", part="append")
async def test_rows_are_chained_per_tenant(pool: "Pool[asyncpg.Record]") -> None:
    """Each row contains the MAC of the tenant's row before it, and the head that of the last row."""
    assert [1, 1, 2] == await append(pool, change(1), change(1, "globex"), change(2))
    first, second = await stored(pool)
    (head,) = await pool.fetch("SELECT sequence, mac FROM hookseal.audit_heads WHERE tenant_id = 'acme'")

    assert first["mac"] == second["previous_mac"]
    assert (2, second["mac"]) == tuple(head)
    assert [None, None] == [await broken(pool), await broken(pool, "globex")]


@pytest.mark.req("SEC-14", part="append")
async def test_concurrent_appends_follow_each_other(pool: "Pool[asyncpg.Record]") -> None:
    """Fifty concurrent transactions give the numbers 1 to 50, in one chain, at times that never decrease."""
    numbers = await asyncio.gather(*(append(pool, change(number)) for number in range(1, 51)))
    rows = await stored(pool)

    assert [[number] for number in range(1, 51)] == sorted(numbers)
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert None is await broken(pool)


@pytest.mark.req("SEC-14", part="append")
async def test_an_append_waits_for_the_tenants_other_append(pool: "Pool[asyncpg.Record]") -> None:
    """Until a transaction with an append ends, others wait to append for the same tenant, but not for another one."""
    async with pool.acquire() as first, pool.acquire() as second:
        async with first.transaction():
            await log.append(first, KEY, WHO, change())
            async with second.transaction():
                await second.execute("SET LOCAL lock_timeout = '20ms'")
                assert 1 == await log.append(second, KEY, WHO, change(1, "globex"))
                with pytest.raises(Unavailable, match="LockNotAvailable"):
                    await log.append(second, KEY, WHO, change())
        assert [2] == await append(pool, change())


@pytest.mark.req("SEC-14", part="append")
async def test_a_change_that_is_rolled_back_leaves_no_row_and_no_gap(pool: "Pool[asyncpg.Record]") -> None:
    """A row and its number are rolled back with the transaction of the change."""
    await append(pool, change(1))
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert 2 == await log.append(connection, KEY, WHO, change(2))
        await transaction.rollback()

    assert [2] == await append(pool, change(3))
    assert ["endpoint:1", "endpoint:3"] == [row["subject"] for row in await stored(pool)]
    assert None is await broken(pool)


async def test_an_append_outside_a_transaction_is_refused(pool: "Pool[asyncpg.Record]") -> None:
    """An append outside a transaction, whose row could outlive a failed change, is refused."""
    async with pool.acquire() as connection:
        with pytest.raises(Defect, match="transaction"):
            await log.append(connection, KEY, WHO, change())

    assert [] == await stored(pool)


@pytest.mark.req("SEC-14", part="append")
@pytest.mark.parametrize(
    "forged_head",
    [
        "UPDATE hookseal.audit_heads SET sequence = 1",
        "DELETE FROM hookseal.audit_heads",
        COPIED.format(number=3),
        "DELETE FROM hookseal.audit_log WHERE sequence = 2",
        "DELETE FROM hookseal.audit_log",
        "DELETE FROM hookseal.audit_log WHERE sequence = 2; UPDATE hookseal.audit_heads SET sequence = 1",
        "UPDATE hookseal.audit_heads SET (sequence, mac) = (SELECT 1, mac FROM hookseal.audit_log WHERE sequence = 1)",
        "UPDATE hookseal.audit_heads SET sequence = 3",
        "UPDATE hookseal.audit_heads SET mac = sha256(mac)",
        altered(mac="sha256(mac)"),
        "DELETE FROM hookseal.audit_log; UPDATE hookseal.audit_heads SET sequence = 0",
    ],
    ids=[
        "head set back",
        "head removed",
        "row added by hand",
        "last row removed",
        "all rows removed",
        "last row removed, head set back but for its mac",
        "head of an earlier row",
        "head set forth",
        "head with another mac",
        "last row with another mac",
        "all rows removed, head set back but for its mac",
    ],
)
async def test_a_wrong_head_refuses_the_change(forged_head: str, pool: "Pool[asyncpg.Record]") -> None:
    """If the head does not match the last row in number and MAC, the append and so the change is refused."""
    await chain(pool, 2)
    await tamper(pool, forged_head)
    await pool.execute("CREATE TABLE changed (n integer)")

    async def changing() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO changed VALUES (1)")
            await log.append(connection, KEY, WHO, change(3))

    with pytest.raises(Refused, match="hookseal audit verify"):
        await changing()
    assert 0 == await pool.fetchval("SELECT count(*) FROM changed")
    assert None is not await broken(pool)


@pytest.mark.req("OPS-10")
async def test_a_role_without_the_right_is_refused(pool: "Pool[asyncpg.Record]") -> None:
    """A role that may only read cannot append, one that may not read cannot verify, list or export; errors say so."""
    await chain(pool, 1)
    async with pool.acquire() as connection:
        await connection.execute("SET ROLE hookseal_readonly")
        async with connection.transaction():
            assert [None] == [each.broken for each in await log.verify(connection, KEY)]
            assert 1 == len((await log.page(connection, limit=10, cursor=None))[0])
            assert [1] == [row["sequence"] async for row in log.export(connection)]
            with pytest.raises(Refused, match="SQL role"):
                await log.append(connection, KEY, WHO, change())
        await connection.execute("SET ROLE hookseal_producer")
        with pytest.raises(Refused, match="SQL role"):
            await log.verify(connection, KEY)
        with pytest.raises(Refused, match="SQL role"):
            await log.page(connection, limit=10, cursor=None)
        with pytest.raises(Refused, match="SQL role"):
            await anext(log.export(connection))
        await connection.execute("RESET ROLE")


async def test_an_outage_fails_the_append_and_the_commit(pool: "Pool[asyncpg.Record]", database_url: str) -> None:
    """If PostgreSQL ends the session, the append fails, and so does the commit."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("BEGIN")
    await pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    with pytest.raises(Unavailable, match="audit log"):
        await log.append(connection, KEY, WHO, change())

    assert [] == await stored(pool)


@pytest.mark.req("SEC-14", part="append")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hookseal.audit_log SET actor = 'eve'",
        "UPDATE hookseal.audit_log SET actor = actor",
        "DELETE FROM hookseal.audit_log WHERE sequence = 2",
        "TRUNCATE hookseal.audit_log",
        "MERGE INTO hookseal.audit_log AS l USING (VALUES (1)) AS v (n) ON l.sequence = v.n WHEN MATCHED THEN DELETE",
        "WITH gone AS (DELETE FROM hookseal.audit_log RETURNING sequence) SELECT sequence FROM gone",
    ],
)
async def test_the_log_is_append_only_even_for_its_owner(statement: str, pool: "Pool[asyncpg.Record]") -> None:
    """No statement changes or removes a row, not even the owner's, unless the trigger is disabled first."""
    await chain(pool, 2)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="audit_log is append-only"):
        await pool.execute(statement)

    assert [1, 2] == [row["sequence"] for row in await stored(pool)]
    assert None is await broken(pool)


async def test_the_cursor_visits_every_row_once(pool: "Pool[asyncpg.Record]") -> None:
    """The cursor visits every row exactly once, newest first, over all tenants, during concurrent appends."""
    for number in range(1, 6):
        await append(pool, change(number, "acme" if number % 2 else "globex"))
    seen: list[str] = []
    cursor = None
    while True:
        items, cursor = await log.page(pool, limit=2, cursor=cursor)
        seen += [item["subject"] for item in items]
        await append(pool, change(99))
        if cursor is None:
            break

    assert [f"endpoint:{number}" for number in (5, 4, 3, 2, 1)] == seen


async def test_tenant_and_action_filter_the_rows(pool: "Pool[asyncpg.Record]") -> None:
    """Tenant and action each filter the rows, also together."""
    await append(
        pool,
        change(1),
        change(2, action=Action.CACHE_CLEARED),
        change(3, "globex"),
        change(4, "_system", action=Action.CACHE_CLEARED),
    )
    acme, cleared = TenantId("acme"), Action.CACHE_CLEARED
    for tenant, action, expected in (
        (None, None, [4, 3, 2, 1]),
        (acme, None, [2, 1]),
        (SYSTEM_TENANT, None, [4]),
        (None, cleared, [4, 2]),
        (acme, cleared, [2]),
        (acme, Action.ENDPOINT_DELETED, []),
        (TenantId("never-seen"), None, []),
    ):
        items, cursor = await log.page(pool, tenant=tenant, action=action, limit=10, cursor=None)
        assert (None, expected) == (cursor, [int(item["subject"].partition(":")[2]) for item in items])


@pytest.mark.parametrize("limit", [0, 1001, -1])
async def test_a_page_size_out_of_range_is_refused(limit: int, pool: "Pool[asyncpg.Record]") -> None:
    """A page has 1 to 1000 rows."""
    with pytest.raises(Malformed, match="1 to 1000"):
        await log.page(pool, limit=limit, cursor=None)


@pytest.mark.req("SEC-14", part="export")
async def test_an_export_has_what_its_macs_need(pool: "Pool[asyncpg.Record]") -> None:
    """Every row is exported, oldest first, and the same MACs can be computed from it with the key."""
    await chain(pool, 1_001)
    await append(pool, change(1, "aaa"), change(1, "globex"))
    rows = [row async for row in log.export(pool)]
    mac = "00" * 32
    for row in rows[1:1_002]:
        at = datetime.fromisoformat(row["at"]) - datetime(1970, 1, 1, tzinfo=UTC)
        facts = {name: f'{{"generation":{row[name]["generation"]}}}' for name in ("before", "after")}
        assert mac == row["previous_mac"]
        mac = second_opinion(MATERIAL.reveal(), {**row, **facts, "at_us": at // timedelta(microseconds=1)})
        assert mac == row["mac"]

    assert ["aaa", *["acme"] * 1_001, "globex"] == [row["tenant_id"] for row in rows]
    assert [*range(1, 1_002)] == [row["sequence"] for row in rows[1:-1]]
    assert ["globex"] == [row["tenant_id"] async for row in log.export(pool, tenant=TenantId("globex"))]
    assert [] == [row async for row in log.export(pool, tenant=TenantId("never-seen"))]


@pytest.mark.req("SEC-14", part="export")
@pytest.mark.parametrize("at", ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31"])
async def test_an_altered_row_is_still_shown(at: str, pool: "Pool[asyncpg.Record]") -> None:
    """A time out of Python's range and facts that are not JSON stop neither a page nor an export."""
    await chain(pool, 3)
    await tamper(pool, altered(at=f"'{at}'", before="' [1e999]'"))
    exported = [row async for row in log.export(pool)]
    seen, cursor = await log.page(pool, limit=1, cursor=None)
    while cursor is not None:
        items, cursor = await log.page(pool, limit=1, cursor=cursor)
        seen += items

    assert (2, Action.SECRET_ROTATED, " [1e999]") == tuple(
        exported[1][name] for name in ("sequence", "action", "before")
    )
    assert [1, 2, 3] == sorted(row["sequence"] for row in seen)
