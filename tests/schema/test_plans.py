"""Plans that were made for small tables do no harm when these have grown.

PostgreSQL keeps one plan for a prepared statement. If it was made before there were statistics, the index of a tenant
may look as good as that of the id: the statement would read the whole backlog of the tenant for each id.
"""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest

from hookseal.postgres import connect
from hookseal.postgres.pool import Connection
from hookseal.postgres.statements import statements

_FEW, _MANY = 20, 3_000
# No trigger and no foreign key runs: they would take most of the time.
_GROW = """
SET session_replication_role = replica;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
SELECT 'acme', 'e' || n, 'invoice.paid', now(), '', '' FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, next_attempt_at, rung_at)
SELECT 'acme', hookseal.uuid7(), md5('one')::uuid, 'e' || n, now(), now() FROM generate_series({least}, {most}) AS n;
"""
_RINGS = """
SELECT string_agg(tenant_id, E'\n'), string_agg(endpoint_id::text, E'\n'), string_agg(id::text, E'\n')
FROM (SELECT * FROM hookseal.deliveries ORDER BY id LIMIT 50) AS d
"""
_READ = """
SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::integer FROM pg_catalog.pg_stat_xact_all_tables
WHERE schemaname = 'hookseal'
"""
_CLAIM = statements("hookseal.dispatcher.store", "batches.sql")["claim_all"]
_RECORD = statements("hookseal.dispatcher.store", "batches.sql")["record_all"]
_FILES = {"claim_one": "batches", "claim_all": "batches", "record_all": "batches", "leased_still": "batches"} | {
    "park": "lanes", "due": "lanes", "ring_unrung": "ledger", "ring_again": "ledger", "give_back": "ledger",
}  # fmt: skip
_STORE = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
VALUES ('acme', hookseal.uuid7(), 'https://a.example/', '{*}');
SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, 500)
"""
_ENDPOINTS = 50
_STORE_ONE_EVENT = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', hookseal.uuid7(), 'https://a.example/' || n, '{*}' FROM generate_series(1, 50) AS n;
SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)
"""
_NOBODY = "00000000-0000-0000-0000-000000000000"
_OF_A_TENANT = ("deliveries_not_delivered", "endpoints_tenant_id_url_key", "deliveries_pending")


async def test_a_claim_is_planned_anew_after_it_was_slow(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a table has grown, and nothing has analysed it yet, one claim has the old plan, and the next has not."""
    monkeypatch.setattr(connect, "PLANS_LAST_SECONDS", 0.0)
    monkeypatch.setattr(connect, "SLOW_SECONDS", 60.0)
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=1) as grower,
        connect.connection_pool(database_url, size=1) as pool,
    ):

        async def rows_read() -> int:
            rings = await grower.fetchrow(_RINGS)
            assert rings is not None
            async with pool.acquire() as connection:
                transaction = connection.transaction()
                await transaction.start()
                before: int = await connection.fetchval(_READ)
                await connection.fetch(_CLAIM, *rings, "false", "w", 45.0, None, 2**25)
                after: int = await connection.fetchval(_READ)
                await transaction.rollback()
                return after - before

        for table in ("deliveries", "events"):  # to analyse one would end the old plan
            await grower.execute(f"ALTER TABLE hookseal.{table} SET (autovacuum_enabled = off)")
        await grower.execute(_GROW.format(least=1, most=_FEW))
        await pool.execute("SET plan_cache_mode = force_generic_plan")  # after five uses PostgreSQL does so by itself
        await rows_read()
        await grower.execute(_GROW.format(least=_FEW + 1, most=_MANY))
        old = await rows_read()
        monkeypatch.setattr(connect, "SLOW_SECONDS", 0.0)
        await rows_read()
        new = await rows_read()

    assert old > 1.5 * _MANY  # else the old plan was a good one, too
    assert new < _MANY / 2


async def test_a_connection_discards_plans_that_may_be_old(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does so when it is released. The next use of a statement makes a plan, and discards nothing."""
    monkeypatch.setattr(connect, "PLANS_LAST_SECONDS", 0.0)
    sent = list[str]()
    connection = await connect.connect(database_url)
    connection.add_query_logger(lambda query: sent.append(query.query))
    for seconds in (0.0, 0.0, 0.03, 0.03, 0.03, 0.03):
        await connection.execute(f"SELECT pg_sleep({seconds})")
        await asyncio.sleep(0)  # the driver reports the time in the next turn of the event loop
        await connection.reset()
    await asyncio.sleep(0)
    await connection.close()

    fast, slow = "SELECT pg_sleep(0.0)", "SELECT pg_sleep(0.03)"
    assert [fast, fast, slow, slow, "DISCARD PLANS", slow, slow, "DISCARD PLANS"] == sent


async def test_what_succeeded_does_not_fail_because_plans_cannot_be_discarded(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the connection ends before it discards its plans, the caller sees no error, and the pool opens another one."""
    monkeypatch.setattr(connect, "PLANS_LAST_SECONDS", 0.0)

    async def terminate(process: int) -> None:
        other = await asyncpg.connect(database_url)
        await other.execute("SELECT pg_terminate_backend($1, 5000)", process)
        await other.close()

    async with connect.connection_pool(database_url, size=1) as pool:
        async with pool.acquire(timeout=5.0) as connection:
            for _ in range(2):
                await connection.execute("SELECT pg_sleep(0.03)")
            with ThreadPoolExecutor() as thread:  # so that this loop has not seen the end yet when it discards
                thread.submit(asyncio.run, terminate(connection.get_server_pid())).result()
        assert 1 == await pool.fetchval("SELECT 1")


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize("name", _FILES)
async def test_a_plan_without_statistics_reads_no_tenant(pool: "asyncpg.Pool[asyncpg.Record]", name: str) -> None:
    """No plan for any arguments goes through everything that a tenant has."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_STORE)
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        plan = await _plan(connection, name)

    assert "deliveries" in plan
    of_a_tenant = _OF_A_TENANT[:-1] if name == "ring_unrung" else _OF_A_TENANT  # it looks at the pending of all
    assert not [index for index in of_a_tenant if f" using {index} " in plan], plan


@pytest.mark.req("DEL-09")
@pytest.mark.parametrize("name", _FILES)
async def test_a_plan_for_new_tables_finds_rows_by_an_index(database_url: str, name: str) -> None:
    """Workers plan their statements when they start, maybe before the first delivery; the plans then stay for long."""
    connection = await connect.connect(database_url, plans_once=True)
    await connection.execute(
        "TRUNCATE hookseal.events, hookseal.deliveries CASCADE"
    )  # as if nothing had ever been in it, or analysed it
    plan = await _plan(connection, name)
    await connection.close()

    reads = re.findall(r"(\w+ (?:Only )?Scan .*on (?:deliveries|events)\b.*)\n +(.*)", plan)
    assert reads
    whole = [node for node, detail in reads if not detail.startswith(("Index Cond", "Recheck Cond", "TID Cond"))]
    assert not [node for node in whole if " deliveries_leased " not in node], plan  # it has what is being sent


async def test_a_claim_finds_each_of_many_endpoints_by_a_hash(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """A claim of deliveries to as many endpoints does not go through all endpoints for each delivery."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_STORE_ONE_EVENT)
        rings = await connection.fetchrow(_RINGS)
        assert rings is not None
        text = await connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {_CLAIM}", *rings, "false", "w", 45.0, None, 2**25
        )
        claimed = await connection.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state = 'sending'")

    compared = re.findall(r'"Rows Removed by Join Filter": (\d+)', text)
    assert claimed == _ENDPOINTS
    assert compared
    assert sum(map(int, compared)) < _ENDPOINTS


async def test_an_outcome_is_recorded_without_a_trigger(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """No trigger and no foreign key runs for an attempt that succeeds or is to be repeated."""
    states = ("delivered", "pending")
    async with pool.acquire() as connection:  # no transaction: PostgreSQL checks again what the same one has written
        await connection.execute(_STORE)
        rings = await connection.fetchrow(_RINGS.replace("50", str(len(states))))
        assert rings is not None
        claimed = await connection.fetch(_CLAIM, *rings, "false", "w", 45.0, None, 2**25)
        each = (("60", "12", "204", outcome, "-") for outcome in states)
        columns = (
            *zip(*(("acme", row["delivery_id"], row["lease_token"]) for row in claimed), strict=True),
            states,
            *zip(*each, strict=True),
        )
        text = await connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {_RECORD}", *map("\n".join, columns), [None] * 2, [None] * 2, "w"
        )
        recorded = await connection.fetch("SELECT state, finished_at FROM hookseal.deliveries WHERE attempts = 1")

    assert [] == json.loads(text)[0]["Triggers"]
    assert {("delivered", True), ("pending", False)} == {(state, at is not None) for state, at in recorded}


async def test_looks_at_one_lane_share_a_plan(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """After the first five, PostgreSQL makes no new plan for a look at one lane."""
    look = statements("hookseal.dispatcher.store", "lanes.sql")["next"]
    async with pool.acquire() as connection:
        await connection.execute("TRUNCATE hookseal.events, hookseal.deliveries CASCADE")
        for _ in range(12):
            assert [] == await connection.fetch(look, "acme", _NOBODY, "5", _NOBODY)
        row = await connection.fetchrow(
            "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement = $1", look
        )
    assert (5, 7) == tuple(row or ())


async def _plan(connection: Connection, name: str) -> str:
    """Return the plan of this statement for any arguments."""
    text = statements("hookseal.dispatcher.store", f"{_FILES[name]}.sql")[name]
    prepared = await connection.prepare(text)
    nothing = ", ".join(["NULL"] * len(prepared.get_parameters()))
    await connection.execute(f"PREPARE planned AS {text}")
    rows = await connection.fetch(f"EXPLAIN EXECUTE planned({nothing})")
    await connection.execute("DEALLOCATE planned")
    return "\n".join(row[0] for row in rows)
