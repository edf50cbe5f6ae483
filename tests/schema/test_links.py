"""The links of deliveries: the table whose indexes find a delivery by its tenant, event and endpoint."""

import asyncpg
import pytest

Pool = asyncpg.Pool
_STORE = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', hookseal.uuid7(), 'https://a.example/' || n, '{*}' FROM generate_series(1, 2) AS n;
SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json, 'e' || n) FROM generate_series(1, 3) AS n
"""
_REPEAT = """
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, replay_of)
SELECT tenant_id, hookseal.uuid7(), endpoint_id, event_id, CASE WHEN $1::boolean THEN id END
FROM hookseal.deliveries LIMIT 1
"""
_LINKED = "SELECT tenant_id, id, endpoint_id, event_id, replay_of FROM hookseal.delivery_links ORDER BY id"
_STORED = "SELECT tenant_id, id, endpoint_id, event_id, replay_of FROM hookseal.deliveries ORDER BY id"
# An update writes an entry into each of these.
_OF_EVERY_ROW = """
SELECT c.relname::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = 'hookseal.deliveries'::regclass AND i.indpred IS NULL
"""


@pytest.mark.req("DEL-20")
async def test_each_delivery_has_its_link(pool: "Pool[asyncpg.Record]") -> None:
    """A link is added with each delivery, by any statement, and deleted with it."""
    await pool.execute(_STORE)
    await pool.execute(_REPEAT, True)
    linked = await pool.fetch(_LINKED)
    assert linked == await pool.fetch(_STORED)
    assert 3 * 2 + 1 == len(linked)

    await pool.execute("DELETE FROM hookseal.deliveries WHERE event_id <> 'e2'")
    linked = await pool.fetch(_LINKED)
    assert linked == await pool.fetch(_STORED)
    assert ["e2", "e2"] == [row["event_id"] for row in linked]


async def test_an_event_has_one_delivery_for_an_endpoint(pool: "Pool[asyncpg.Record]") -> None:
    """A second delivery of an event to the same endpoint is refused, unless it is a replay; so is one of no event."""
    await pool.execute(_STORE)
    await pool.execute(_REPEAT, True)
    await pool.execute(_REPEAT, True)
    with pytest.raises(asyncpg.UniqueViolationError, match="delivery_links_once"):
        await pool.execute(_REPEAT, False)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="event"):
        await pool.execute(_REPEAT.replace("endpoint_id, event_id, CASE", "endpoint_id, 'no-such', CASE"), False)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="delivery_links"):
        await pool.execute("DELETE FROM hookseal.events")


async def test_a_link_changes_with_its_delivery(pool: "Pool[asyncpg.Record]") -> None:
    """If the owner changes to what a delivery belongs, its link changes, too; an event that is not there is refused."""
    await pool.execute(_STORE)
    await pool.execute("UPDATE hookseal.deliveries SET endpoint_id = gen_random_uuid(), replay_of = id")
    assert await pool.fetch(_LINKED) == await pool.fetch(_STORED)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="event"):
        await pool.execute("UPDATE hookseal.deliveries SET event_id = 'no-such'")


async def test_links_are_truncated_with_deliveries(pool: "Pool[asyncpg.Record]") -> None:
    """Neither is left without the other."""
    await pool.execute(_STORE)
    for statement in ("TRUNCATE hookseal.delivery_links", "TRUNCATE hookseal.events CASCADE"):
        with pytest.raises(asyncpg.ForeignKeyViolationError, match=r"truncate hookseal\.deliveries, too"):
            await pool.execute(statement)
    assert 3 * 2 == len(await pool.fetch(_LINKED))

    await pool.execute("TRUNCATE hookseal.deliveries")
    assert [] == await pool.fetch(_LINKED)
    await pool.execute("TRUNCATE hookseal.events, hookseal.deliveries CASCADE")


async def test_an_update_of_a_delivery_writes_few_indexes(pool: "Pool[asyncpg.Record]") -> None:
    """Only one index has all deliveries. The others have what is pending, held, being sent, or ended."""
    assert ["deliveries_pkey"] == [row[0] for row in await pool.fetch(_OF_EVERY_ROW)]
