"""docs/tables.md describes the tables as a login with `hookseal_readonly` finds them."""

import re
from pathlib import Path

import asyncpg

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
SHORT = {"int4": "integer", "int8": "bigint", "bool": "boolean"}
# A domain counts as the type below it.
COLUMNS = """
SELECT c.column_name, CASE c.data_type WHEN 'ARRAY' THEN trim(LEADING '_' FROM c.udt_name) ELSE c.udt_name END AS type,
    c.data_type = 'ARRAY' AS is_array
FROM information_schema.columns AS c
WHERE c.table_schema = 'hookseal' AND c.table_name = $1
    AND has_column_privilege('hookseal_readonly', format('hookseal.%I', c.table_name), c.column_name, 'SELECT')
"""
# No trigger and no foreign key runs: they would take most of the time.
GROW = """
SET session_replication_role = replica;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, finished_at)
SELECT 'acme', hookseal.uuid7(), md5((n % 30)::text)::uuid, 'e' || n,
    CASE n % 30 WHEN 0 THEN 'dead_letter' ELSE 'delivered' END, NULL, now()
FROM generate_series(1, 9000) AS n;
INSERT INTO hookseal.delivery_links SELECT tenant_id, id, endpoint_id, event_id FROM hookseal.deliveries;
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)
SELECT tenant_id, id, 1, now(), 'success', '{}', 'w' FROM hookseal.deliveries;
RESET session_replication_role;
ANALYZE hookseal.deliveries, hookseal.delivery_links, hookseal.attempts
"""


def documented() -> dict[str, dict[str, str]]:
    """Return the columns of each table of the page, with their types. One type may be that of several columns."""
    tables: dict[str, dict[str, str]] = {}
    for name, section in re.findall(r"^## `hookseal\.(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        tables[name] = {}
        for columns, types in re.findall(r"^\| (`.+?`) \| ([^|]+) \|", section, re.MULTILINE):
            names, kinds = re.findall(r"`(\w+)`", columns), types.split(", ")
            assert not tables[name].keys() & set(names)
            tables[name] |= zip(names, kinds if len(kinds) > 1 else kinds * len(names), strict=True)
    return tables


async def test_every_readable_column_is_described(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """The page has exactly the columns that the role may read, with their types."""
    assert {"events", "deliveries", "delivery_links", "attempts", "endpoints"} == documented().keys()
    for table, columns in documented().items():
        rows = await pool.fetch(COLUMNS, table)
        found = {row["column_name"]: SHORT.get(row["type"], row["type"]) + "[]" * row["is_array"] for row in rows}
        assert found == columns, table


async def test_the_examples_are_allowed_and_use_indexes(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """The role may execute each example, and an index finds its rows without reading others."""
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(GROW)
        await connection.execute("SET LOCAL ROLE hookseal_readonly")
        examples = list(filter(str.strip, block.split(";")))
        assert 4 == len(examples)
        for statement in examples:
            await connection.fetch(statement)
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}"))
            assert not re.search(r"Seq Scan|Filter|Sort", plan), plan
