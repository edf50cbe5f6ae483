"""Look-ups in large tables read only the rows that they need, by an index."""

from datetime import UTC, datetime

import asyncpg
import pytest

from hookseal.postgres.statements import statements

Pool = asyncpg.Pool
_GROWN = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)
SELECT 'acme', md5(n::text)::uuid, 'https://a.example/' || n, '{*}', CASE WHEN n % 50 = 0 THEN 'plain' END
FROM generate_series(1, 2000) AS n;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, correlation_id, body, fingerprint)
SELECT 'acme', 'e' || n, 'invoice.paid', now(), 'c' || n, '', '' FROM generate_series(1, 5000) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, waiting_for)
SELECT 'acme', hookseal.uuid7(), md5((n % 2000 + 1)::text)::uuid, 'e' || (n - 1) / 4 + 1,
       CASE WHEN n % 4 = 0 THEN 'pending' ELSE 'delivered' END, CASE WHEN n % 4 = 0 THEN now() END,
       CASE WHEN n % 40 = 0 THEN 'secret' END
FROM generate_series(1, 20000) AS n;
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)
SELECT CASE n % 2 WHEN 0 THEN 'acme' ELSE 'other' END, n, now() - make_interval(secs => n), 'a', 'x',
       'endpoint:' || md5((n % 2000)::text)::uuid, format('{"generation":%s}', n)::json, '', '', '1'
FROM generate_series(1, 20000) AS n;
ANALYZE;
"""
_ENDPOINT = "c4ca4238-a0b9-2382-0dcc-509a6f75849b"
_REPEAT = """
SELECT FROM hookseal.delivery_links AS l WHERE l.tenant_id = 'acme' AND l.event_id = 'e7' AND l.replay_of IS NULL
"""
_TIME = datetime(2026, 1, 31, tzinfo=UTC)
_OF_EVENTS = (
    *("acme", None, None, None, "ffffffff-ffff-ffff-ffff-ffffffffffff", 11, None, 1_000),
    "00000000-0000-0000-0000-000000000000",
)
_RING = ("acme", _ENDPOINT, _ENDPOINT, "f")
_LANE = ("acme", _ENDPOINT)
_PLACES = [
    (_REPEAT, (), "delivery_links_once"),
    (("dispatcher.store", "held_deliveries.sql", "cancel"), ("acme", _ENDPOINT), "deliveries_pending"),
    (("dispatcher.store", "held_deliveries.sql", "release"), ("acme", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "held_deliveries.sql", "probe"), ("acme", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "held_deliveries.sql", "count"), ("acme", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "held_deliveries.sql", "count_all"), (), "deliveries_waiting"),
    (("dispatcher.store", "held_endpoints.sql", "probe"), (100, 240.0, 0.25), "deliveries_held"),
    (("dispatcher.store", "held_endpoints.sql", "release_batch"), (1000,), "deliveries_held"),
    (("dispatcher.store", "held_endpoints.sql", "release_strays"), ("", _ENDPOINT, "", 1000), "deliveries_held"),
    (("dispatcher.store", "held_endpoints.sql", "cancel_held"), (7, None, None, 1_000), "deliveries_waiting"),
    (("dispatcher.store", "endpoint_queries.sql", "show"), ("acme", _ENDPOINT), "deliveries_pending"),
    (("dispatcher.store", "endpoint_queries.sql", "show"), ("acme", _ENDPOINT), "deliveries_in_line"),
    (("dispatcher.store", "replay.sql", "skip"), ("acme", None, _ENDPOINT), "deliveries_stopping"),
    (("dispatcher.store", "held_endpoints.sql", "move_lines"), ("", _ENDPOINT, 1000), "deliveries_in_line"),
    (("worker.metrics", "database.sql", "lines_stopped"), (), "deliveries_stopping"),
    (("dispatcher.store", "delivery_queries.sql", "why"), (_ENDPOINT, 30.0), "deliveries_pkey"),
    (("dispatcher.store", "delivery_queries.sql", "why"), (_ENDPOINT, 30.0), "deliveries_in_line"),
    (("dispatcher.store", "delivery_queries.sql", "page_of_events"), (*_OF_EVENTS, "e7", None), "delivery_links_once"),
    (("dispatcher.store", "delivery_queries.sql", "page_of_events"), (*_OF_EVENTS, None, "c7"), "events_correlated"),
    (("dispatcher.store", "event_queries.sql", "page"), ("acme", *[None] * 6, 1_000, 11), "events_newest"),
    (
        ("dispatcher.store", "event_queries.sql", "page"),
        ("acme", None, "c7", *[None] * 4, 1_000, 11),
        "events_correlated",
    ),
    (
        ("dispatcher.store", "event_queries.sql", "page"),
        ("acme", None, None, _TIME, _TIME, _TIME, "e7", 1_000, 11),
        "events_newest",
    ),
    (("dispatcher.store", "event_queries.sql", "deliveries"), ("acme", "e7", 1_000), "delivery_links_once"),
    (("dispatcher.store", "event_queries.sql", "show"), ("acme", "e7"), "events_pkey"),
    (("dispatcher.store", "delivery_queries.sql", "has_endpoint"), (_ENDPOINT, None), "delivery_links_of_endpoint"),
    (("dispatcher.store", "batches.sql", "claim_all"), (*_RING, "w", 45.0, None, 1_000), "audit_log_of_subject"),
    (("dispatcher.store", "batches.sql", "claim_all"), (*_RING, "w", 45.0, None, 1_000), "deliveries_pkey"),
    (("dispatcher.store", "batches.sql", "claim_all"), (*_RING, "w", 45.0, None, 1_000), "deliveries_in_line"),
    (("dispatcher.store", "lanes.sql", "park"), ("acme", _ENDPOINT, _ENDPOINT, "rate"), "deliveries_pkey"),
    (("dispatcher.store", "lanes.sql", "due"), (*_LANE, _ENDPOINT), "deliveries_pkey"),
    (("dispatcher.store", "lanes.sql", "next"), (*_LANE, "32", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "lanes.sql", "next"), (*_LANE, "32", _ENDPOINT), "deliveries_in_line"),
    (("dispatcher.store", "lanes.sql", "delete"), (*_LANE, 100, 10.0), "deliveries_held"),
    (("secrets.endpoint", "pointer.sql", "lock"), ("acme", _ENDPOINT), "audit_log_of_subject"),
    (("secrets", "restore.sql", "endpoints"), (None, "acme", _ENDPOINT, 100), "endpoints_pkey"),
    (("audit", "audit.sql", "facts_since"), ("acme", f"endpoint:{_ENDPOINT}", "x", "y"), "audit_log_last_of_subject"),
    (("audit", "audit.sql", "is_recorded"), ("acme", f"endpoint:{_ENDPOINT}", "x", "{}"), "audit_log_last_of_subject"),
    (("secrets.key", "moves.sql", "use"), ("0000000000000001",), "deliveries_pending"),
    (("secrets.key", "moves.sql", "use"), ("0000000000000001",), "deliveries_leased"),
    (("worker.metrics", "database.sql", "waiting"), (1000,), "deliveries_waiting"),
    (("worker.metrics", "database.sql", "plaintext_rows"), (), "endpoints_with_plaintext"),
    (("audit", "audit.sql", "page"), (None, None, None, None, 11), "audit_log_newest"),
    (("audit", "audit.sql", "page"), (None, None, "acme", 9_000, 11), "audit_log_newest"),
    (("audit", "audit.sql", "page_of_tenant"), ("acme", None, "acme", 9_000, 11), "audit_log_pkey"),
]


@pytest.mark.req("DEL-20")
async def test_each_look_up_has_its_index(pool: "Pool[asyncpg.Record]") -> None:
    """No look-up of a publish, an operator or the leader scans or sorts a whole table."""
    await pool.execute(_GROWN)
    for asked, arguments, index in _PLACES:
        statement = asked if isinstance(asked, str) else statements(f"hookseal.{asked[0]}", asked[1])[asked[2]]
        rows = await pool.fetch(f"EXPLAIN {statement}", *arguments)
        plan = "\n".join(row[0] for row in rows)

        assert index in plan, f"{asked}\n{plan}"
        for table in ("deliveries", "delivery_links", "audit_log", "endpoints", "events"):
            assert f"Seq Scan on {table}" not in plan, f"{asked}\n{plan}"


@pytest.mark.parametrize("key_id", ["0000000000000001", "0000000000000009"])
async def test_the_check_for_a_needed_key_uses_indexes(pool: "Pool[asyncpg.Record]", key_id: str) -> None:
    """Whether any record needs a master key is found by an index."""
    await pool.execute(
        "INSERT INTO hookseal.secret_records"
        " (tenant_id, name, version, provider, purpose, scheme, sealed, state)"
        " SELECT 'acme', 'n', n, 'db', 'webhook_signing', 'standard',"
        " decode('0101' || lpad((n % 3)::text, 16, '0'), 'hex'), 'retired'"
        " FROM generate_series(1, 20000) AS n"
    )
    await pool.execute("ANALYZE hookseal.secret_records")
    statement = statements("hookseal.secrets.key", "keys.sql")["needed"]

    plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {statement}", [key_id]))
    assert "secret_records_of_key" in plan, plan
