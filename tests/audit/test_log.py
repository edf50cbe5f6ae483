"""The audit log as it is written and shown."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.audit.chain import Action, cursor_of, place_of, to_display
from hookseal.errors import Defect, Malformed, Refused, Unavailable, with_advice
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.postgres.pool import Connection, Pool
from tests.audit.logs import (
    COPIED,
    KEY,
    MATERIAL,
    WHO,
    altered,
    append,
    broken,
    chain,
    change,
    second_opinion,
    tamper,
    tampered,
)

ROW = {
    "tenant_id": "acme",
    "sequence": 7,
    "at": "2026-01-02T03:04:05.678901Z",
    "actor": "hookseal/ada",
    "action": "secret.rotated",
    "subject": "endpoint:1",
    "before": None,
    "after": '{"generation":2}',
    "correlation_id": None,
}
LAST_REMOVED = "DELETE FROM hookseal.audit_log WHERE sequence = 2"
ALL_REMOVED = "DELETE FROM hookseal.audit_log"
FORGED_HEADS = {
    "head set back": ["UPDATE hookseal.audit_heads SET sequence = 1"],
    "head removed": ["DELETE FROM hookseal.audit_heads"],
    "row added by hand": [COPIED.format(number=3)],
    "last row removed": [LAST_REMOVED],
    "all rows removed": [ALL_REMOVED],
    "last row removed, head set back but for its mac": [LAST_REMOVED, "UPDATE hookseal.audit_heads SET sequence = 1"],
    "head of an earlier row": [
        "UPDATE hookseal.audit_heads SET (sequence, mac) = (SELECT 1, mac FROM hookseal.audit_log WHERE sequence = 1)"
    ],
    "head set forth": ["UPDATE hookseal.audit_heads SET sequence = 3"],
    "head with another mac": ["UPDATE hookseal.audit_heads SET mac = sha256(mac)"],
    "last row with another mac": [altered(mac="sha256(mac)")],
    "all rows removed, head set back but for its mac": [ALL_REMOVED, "UPDATE hookseal.audit_heads SET sequence = 0"],
}


async def stored(pool: Pool, tenant: str = "acme") -> list[asyncpg.Record]:
    """Return the rows of the tenant, oldest first."""
    return await pool.fetch("SELECT * FROM hookseal.audit_log WHERE tenant_id = $1 ORDER BY sequence", tenant)


@pytest.mark.req("SEC-14", part="append")
@pytest.mark.req("OPS-10")
async def test_a_row_has_change_time_and_actor(pool: Pool) -> None:
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
async def test_rows_are_chained_per_tenant(pool: Pool) -> None:
    """Each row contains the MAC of the tenant's row before it, and the head that of the last row."""
    assert [1, 1, 2] == await append(pool, change(1), change(1, "globex"), change(2))
    first, second = await stored(pool)
    (head,) = await pool.fetch("SELECT sequence, mac FROM hookseal.audit_heads WHERE tenant_id = 'acme'")

    assert first["mac"] == second["previous_mac"]
    assert (2, second["mac"]) == tuple(head)
    assert [None, None] == [await broken(pool), await broken(pool, "globex")]


@pytest.mark.req("SEC-14", part="append")
async def test_concurrent_appends_follow_each_other(pool: Pool) -> None:
    """Fifty concurrent transactions give the numbers 1 to 50, in one chain, at times that never decrease."""
    numbers = await asyncio.gather(*(append(pool, change(number)) for number in range(1, 51)))
    rows = await stored(pool)

    assert [[number] for number in range(1, 51)] == sorted(numbers)
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert None is await broken(pool)


@pytest.mark.req("SEC-14", part="append")
async def test_an_append_waits_for_the_tenants_other_append(pool: Pool) -> None:
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
async def test_a_change_that_is_rolled_back_leaves_no_row_and_no_gap(pool: Pool) -> None:
    await append(pool, change(1))
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert 2 == await log.append(connection, KEY, WHO, change(2))
        await transaction.rollback()

    assert [2] == await append(pool, change(3))
    assert ["endpoint:1", "endpoint:3"] == [row["subject"] for row in await stored(pool)]
    assert None is await broken(pool)


async def test_an_append_outside_a_transaction_is_refused(pool: Pool) -> None:
    """An append outside a transaction, whose row could outlive a failed change, is refused."""
    async with pool.acquire() as connection:
        with pytest.raises(Defect, match="transaction"):
            await log.append(connection, KEY, WHO, change())

    assert [] == await stored(pool)


@pytest.mark.req("SEC-14", part="append")
async def test_a_wrong_head_refuses_the_change(pool: Pool) -> None:
    """If the head does not match the last row in number and MAC, the append and so the change is refused."""
    await chain(pool, 2)
    await pool.execute("CREATE TABLE changed (n integer)")

    async def refusal_of_a_change(connection: Connection) -> str:
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO changed VALUES (1)")
                await log.append(connection, KEY, WHO, change(3))
        except Refused as error:
            return with_advice(error)
        return "none"

    for name, statements in FORGED_HEADS.items():
        async with tampered(pool, *statements) as connection:
            assert "hookseal audit verify" in await refusal_of_a_change(connection), name
            assert 0 == await connection.fetchval("SELECT count(*) FROM changed"), name
            assert None is not await broken(connection), name


@pytest.mark.req("OPS-10")
async def test_a_role_without_the_right_is_refused(pool: Pool) -> None:
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


async def test_an_outage_fails_the_append_and_the_commit(pool: Pool, database_url: str) -> None:
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
async def test_the_log_is_append_only_even_for_its_owner(statement: str, pool: Pool) -> None:
    """No statement changes or removes a row, not even the owner's, unless the trigger is disabled first."""
    await chain(pool, 2)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="audit_log is append-only"):
        await pool.execute(statement)

    assert [1, 2] == [row["sequence"] for row in await stored(pool)]
    assert None is await broken(pool)


async def test_the_cursor_visits_every_row_once(pool: Pool) -> None:
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


async def test_tenant_and_action_filter_the_rows(pool: Pool) -> None:
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
async def test_a_page_size_out_of_range_is_refused(limit: int, pool: Pool) -> None:
    with pytest.raises(Malformed, match="1 to 1000"):
        await log.page(pool, limit=limit, cursor=None)


@pytest.mark.req("SEC-14", part="export")
async def test_an_export_has_what_its_macs_need(pool: Pool) -> None:
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
async def test_an_altered_row_is_still_shown(at: str, pool: Pool) -> None:
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


def test_facts_are_shown_as_json_and_no_mac() -> None:
    assert ROW | {"after": {"generation": 2}} == to_display({**ROW, "mac": b"1", "previous_mac": b"0"})


@pytest.mark.parametrize(
    "text",
    [
        '{"generation": 2}',
        '{"a":1,"a":2}',
        '{"a":1e999}',
        '{"a":"\u00e9"}',
        '{"a":"\\ud800"}',
        '{"a":' + "[" * 16 + "]" * 16 + "}",
        "null",
        "[]",
        '{"a":' + "9" * 5000 + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_foreign_json_is_shown_as_text(text: str) -> None:
    assert text == to_display({**ROW, "after": text})["after"]


@pytest.mark.parametrize("text", ['{"a":' + "[" * 15 + "]" * 15 + "}", '{"a":{"b":[["c",1]]},"d":1}'])
def test_nested_facts_are_shown_as_json(text: str) -> None:
    assert json.loads(text) == to_display({**ROW, "after": text})["after"]


@pytest.mark.parametrize(("tenant", "sequence"), [("acme", 1), ("_system", 2**63 - 1), ("a/b/\u00e9", -(2**63))])
def test_a_cursor_leads_back_to_its_row(tenant: str, sequence: int) -> None:
    assert (tenant, sequence) == place_of(cursor_of({"tenant_id": tenant, "sequence": sequence}))


@pytest.mark.parametrize(
    "cursor",
    ["", "!", "\u00e9", *(base64.b64encode(text).decode() for text in (b"acme", b"acme/", b"acme/x", b"7", b"\xff/1"))],
)
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Malformed) as refused:
        place_of(cursor)
    assert "cursor" == refused.value.field


@pytest.mark.parametrize("text", [b"acme/9223372036854775808", b"acme/-9223372036854775809", b"a\0/1"])
def test_a_cursor_outside_postgresqls_range_is_refused(text: bytes) -> None:
    """A number too large and a tenant with a NUL never reach the database."""
    with pytest.raises(Malformed):
        place_of(base64.b64encode(text).decode())
