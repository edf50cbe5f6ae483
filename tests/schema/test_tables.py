"""The tables: constraints, links, indexes, and the plans of statements."""

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hookseal.dispatcher.core.endpoint_rules import DEFAULT_RETRY_SCHEDULE
from hookseal.dispatcher.core.policy import NOT_SENT
from hookseal.dispatcher.store.ledger import BEGINNING
from hookseal.postgres import connect
from hookseal.postgres.pool import Connection, Pool
from hookseal.postgres.statements import statements
from tests import rows

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
_PRIMARY_KEYS = """
SELECT c.relname::text AS table, array_agg(a.attname::text ORDER BY k.n),
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY k.n)
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indrelid
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
WHERE c.relnamespace = 'hookseal'::regnamespace AND i.indisprimary
GROUP BY c.relname
"""
_GROWN = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, uid, secret)
SELECT 'acme', md5(n::text)::uuid, 'https://a.example/' || n, '{*}', 'u' || n, CASE WHEN n % 50 = 0 THEN 'plain' END
FROM generate_series(1, 2000) AS n;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, correlation_id, body, fingerprint)
SELECT 'acme', 'e' || n, 'invoice.paid', now() - make_interval(secs => n), 'c' || n, '', ''
FROM generate_series(1, 5000) AS n;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, waiting_for)
SELECT 'acme', hookseal.uuid7(), md5((n % 2000 + 1)::text)::uuid, 'e' || (n - 1) / 4 + 1,
       CASE WHEN n % 4 = 0 THEN 'pending' ELSE 'delivered' END, CASE WHEN n % 4 = 0 THEN now() END,
       CASE WHEN n % 40 = 0 THEN 'secret' END
FROM generate_series(1, 20000) AS n;
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker, endpoint_id)
SELECT tenant_id, id, 1, now(), 'delivered', '{}', 'w', endpoint_id FROM hookseal.deliveries;
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)
SELECT CASE n % 2 WHEN 0 THEN 'acme' ELSE 'other' END, n, now() - make_interval(secs => n), 'a', 'x',
       'endpoint:' || md5((n % 2000)::text)::uuid, format('{"generation":%s}', n)::json, '', '', '1'
FROM generate_series(1, 20000) AS n;
INSERT INTO hookseal.api_tokens (tenant_id, id, name, digest, scopes, generation, signature, signature_key_id)
SELECT 'acme', hookseal.uuid7(), 't' || n, sha256(n::text::bytea), '{read}', 1, decode(repeat('00', 64), 'hex'), '1'
FROM generate_series(1, 2000) AS n;
INSERT INTO hookseal.idempotency_keys (tenant_id, actor, key_digest, call, fingerprint)
SELECT 'acme', 'jane', sha256(n::text::bytea), 'endpoint.create', sha256('') FROM generate_series(1, 2000) AS n;
INSERT INTO hookseal.tenants (tenant_id, uid, created_at)
SELECT 't' || n, '-' || n, now() - make_interval(secs => n) FROM generate_series(1, 2000) AS n;
ANALYZE;
"""
_ENDPOINT = "c4ca4238-a0b9-2382-0dcc-509a6f75849b"
_REPEAT_EVENTS = """
SELECT FROM hookseal.delivery_links AS l WHERE l.tenant_id = 'acme' AND l.event_id = 'e7' AND l.replay_of IS NULL
"""
_TIME, _TEXT = datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31Z"
_OF_EVENTS = (
    *("acme", None, None, None, "ffffffff-ffff-ffff-ffff-ffffffffffff", 11, None, 1_000),
    *("00000000-0000-0000-0000-000000000000", None),
)
_OF_ATTEMPTS = (
    *("acme", _ENDPOINT, None, None, None, "-infinity", "infinity", "infinity", _ENDPOINT, 1, 1_000, 11, None),
)
_RING = ("acme", _ENDPOINT, _ENDPOINT, "f")
_CLAIMING = ("w", 45.0, None, 2**25, NOT_SENT)
_LANE = ("acme", _ENDPOINT)
_PLACES = [
    (_REPEAT_EVENTS, (), "delivery_links_once"),
    (("dispatcher.store", "held_deliveries.sql", "cancel"), ("acme", _ENDPOINT), "deliveries_pending"),
    (("dispatcher.store", "held_deliveries.sql", "release"), ("acme", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "held_deliveries.sql", "probe"), ("acme", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "held_deliveries.sql", "count"), ("acme", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "held_deliveries.sql", "count_all"), (), "deliveries_waiting"),
    (("dispatcher.store", "held_endpoints.sql", "probe"), (100, 240.0, 0.25), "deliveries_held"),
    (("dispatcher.store", "held_endpoints.sql", "release_batch"), (1000,), "deliveries_held"),
    (("dispatcher.store", "held_endpoints.sql", "release_strays"), ("", _ENDPOINT, "", 1000), "deliveries_held"),
    (("dispatcher.store", "held_endpoints.sql", "cancel_held"), (7, None, None, 1_000), "deliveries_waiting"),
    (("dispatcher.store", "tokens.sql", "find"), (["00" * 32],), "api_tokens_digest_key"),
    (("dispatcher.store", "tokens.sql", "find"), (["00" * 32],), "audit_log_of_subject"),
    (("dispatcher.store", "tokens.sql", "get"), (_ENDPOINT,), "api_tokens_id_key"),
    (("dispatcher.store", "idempotency.sql", "first"), ("acme", "jane", bytes(32)), "idempotency_keys_pkey"),
    (("dispatcher.store", "tokens.sql", "lock_code"), (bytes(32),), "api_tokens_code_digest_key"),
    (("dispatcher.store", "tokens.sql", "of_portals"), (["00" * 32],), "api_tokens_code_digest_key"),
    (("dispatcher.store", "tokens.sql", "of_portals"), (["00" * 32],), "api_tokens_digest_key"),
    (("dispatcher.store", "tokens.sql", "lock_sessions"), ("acme", _ENDPOINT), "api_tokens_of_a_code"),
    (("dispatcher.store", "tenants.sql", "get"), ("t7",), "tenants_pkey"),
    (("dispatcher.store", "tenants.sql", "get"), ("t7",), "tenants_uid"),
    (("dispatcher.store", "tenants.sql", "oldest"), (_TIME, "t7", 51), "tenants_by_age"),
    (("dispatcher.store", "tenants.sql", "newest"), (_TIME, "t7", 51), "tenants_by_age"),
    (("dispatcher.store", "endpoint_queries.sql", "show"), ("acme", _ENDPOINT, None), "deliveries_pending"),
    (("dispatcher.store", "endpoint_queries.sql", "show"), ("acme", _ENDPOINT, None), "deliveries_in_line"),
    (("dispatcher.store", "endpoint_queries.sql", "find"), ("acme", _ENDPOINT, None), "endpoints_id_key"),
    (("dispatcher.store", "endpoint_queries.sql", "find"), ("acme", None, "u7"), "endpoints_uid"),
    (("dispatcher.store", "endpoints.sql", "at_url"), ("acme", "https://a.example/7", None), "endpoints_url"),
    (("dispatcher.store", "replay.sql", "skip"), ("acme", None, _ENDPOINT), "deliveries_stopping"),
    (("dispatcher.store", "held_endpoints.sql", "move_lines"), ("", _ENDPOINT, 1000), "deliveries_in_line"),
    (("worker.metrics", "database.sql", "lines_stopped"), (100,), "deliveries_stopping"),
    (("dispatcher.store", "delivery_queries.sql", "why"), (_ENDPOINT, 30.0), "deliveries_pkey"),
    (("dispatcher.store", "delivery_queries.sql", "why"), (_ENDPOINT, 30.0), "deliveries_in_line"),
    (("dispatcher.store", "delivery_queries.sql", "page_of_events"), (*_OF_EVENTS, "e7", None), "delivery_links_once"),
    (("dispatcher.store", "delivery_queries.sql", "page_of_events"), (*_OF_EVENTS, None, "c7"), "events_correlated"),
    (
        ("dispatcher.store", "event_queries.sql", "page"),
        ("acme", None, None, None, "-infinity", "infinity", "infinity", "", 1_000, 11),
        "events_newest",
    ),
    (
        ("dispatcher.store", "event_queries.sql", "page_rising"),
        ("acme", None, None, None, "-infinity", "infinity", "-infinity", "", 1_000, 11),
        "events_newest",
    ),
    (
        ("dispatcher.store", "event_queries.sql", "page"),
        ("acme", None, None, "c7", "-infinity", "infinity", "infinity", "", 1_000, 11),
        "events_correlated",
    ),
    (
        ("dispatcher.store", "event_queries.sql", "page"),
        ("acme", None, None, None, _TEXT, _TEXT, _TEXT, "e7", 1_000, 11),
        "events_newest",
    ),
    (("dispatcher.store", "event_queries.sql", "bodies"), ("acme", ["e7"], 1_000), "events_pkey"),
    (("dispatcher.store", "event_queries.sql", "some"), ("acme", ["e7"]), "events_pkey"),
    (("dispatcher.store", "endpoint_queries.sql", "some"), ("acme", [_ENDPOINT]), "endpoints_id_key"),
    (("dispatcher.store", "delivery_queries.sql", "latest"), ("acme", "e7", _ENDPOINT), "delivery_links_once"),
    (("dispatcher.store", "attempt_queries.sql", "page_of_endpoint"), _OF_ATTEMPTS, "attempts_of_endpoint"),
    (("dispatcher.store", "attempt_queries.sql", "page_of_endpoint_rising"), _OF_ATTEMPTS, "attempts_of_endpoint"),
    (("dispatcher.store", "event_queries.sql", "deliveries"), ("acme", "e7", 1_000), "delivery_links_once"),
    (("dispatcher.store", "event_queries.sql", "show"), ("acme", "e7"), "events_pkey"),
    (("dispatcher.store", "event_queries.sql", "everywhere"), ("e7", 10_000, 50), "events_pkey"),
    (("dispatcher.store", "event_queries.sql", "everywhere"), ("c7", 10_000, 50), "events_correlated"),
    (("dispatcher.store", "delivery_queries.sql", "has_endpoint"), (_ENDPOINT, None), "delivery_links_of_endpoint"),
    (("dispatcher.store", "batches.sql", "claim_all"), (*_RING, *_CLAIMING), "audit_log_of_subject"),
    (("dispatcher.store", "batches.sql", "claim_all"), (*_RING, *_CLAIMING), "deliveries_pkey"),
    (("dispatcher.store", "batches.sql", "claim_all"), (*_RING, *_CLAIMING), "deliveries_in_line"),
    (("dispatcher.store", "lanes.sql", "park"), ("acme", _ENDPOINT, _ENDPOINT, "rate"), "deliveries_pkey"),
    (("dispatcher.store", "lanes.sql", "due"), (*_LANE, _ENDPOINT), "deliveries_pkey"),
    (("dispatcher.store", "lanes.sql", "next"), (*_LANE, "32", _ENDPOINT), "deliveries_held"),
    (("dispatcher.store", "lanes.sql", "next"), (*_LANE, "32", _ENDPOINT), "deliveries_in_line"),
    (("dispatcher.store", "lanes.sql", "delete"), (*_LANE, 100, 10.0), "deliveries_held"),
    (("secrets.endpoint", "pointer.sql", "lock"), ("acme", _ENDPOINT), "audit_log_of_subject"),
    (("secrets", "restore.sql", "endpoints"), (None, "acme", _ENDPOINT, 100), "endpoints_pkey"),
    (("audit", "audit.sql", "facts_since"), ("acme", f"endpoint:{_ENDPOINT}", "x", "y"), "audit_log_last_of_subject"),
    (("audit", "audit.sql", "is_recorded"), ("acme", f"endpoint:{_ENDPOINT}", "x", "{}"), "audit_log_last_of_subject"),
    (("secrets.key", "keys.sql", "use"), ("0000000000000001",), "deliveries_pending"),
    (("secrets.key", "keys.sql", "use"), ("0000000000000001",), "deliveries_leased"),
    (("dispatcher.store", "overview.sql", "waiting"), (1000,), "deliveries_waiting"),
    (("worker.metrics", "database.sql", "plaintext_rows"), (), "endpoints_with_plaintext"),
    (("audit", "audit.sql", "page"), (None, None, None, None, 11), "audit_log_newest"),
    (("audit", "audit.sql", "page"), (None, None, "acme", 9_000, 11), "audit_log_newest"),
    (("audit", "audit.sql", "page_of_tenant"), ("acme", None, "acme", 9_000, 11), "audit_log_pkey"),
]
SUM_TOO_LARGE = "{604800,604800,604800,604800,604800}"
RECORD_NAMES = [
    ("webhook-endpoint-01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("endpoint-headers-01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("endpoint-tls-01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057"),
    ("endpoint-tls-01890A5D-ac96-774b-bcce-b302099a8057", None),
    ("endpoint-tls-01890a5d-ac96-774b-bcce-b302099a80571", None),
    ("xendpoint-tls-01890a5d-ac96-774b-bcce-b302099a8057", None),
    ("webhook-endpoint-", None),
    ("integrity", None),
]
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
_FEW, _MANY = 20, 3_000
# No trigger and no foreign key runs: they would take most of the time.
_GROW_DELIVERIES = """
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
_STORE_500 = """
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
_OF_A_TENANT = ("deliveries_not_delivered", "endpoints_url", "deliveries_pending")
FEW, MANY = 6_000, 60_000
_MOST_RATIO = 1.5  # one more level of each index
_AND_BUFFERS = 200  # what a plan of few buffers may read more, a fifth of what a scan of all deliveries does
_AND_ROWS = 1_000  # another join of a table that stays small
# Of every four deliveries two are due, one of them since longer and rung; one is held, or waits in a line; one is
# delivered.
# No trigger and no foreign key runs: they would take most of the time.
_GROW_ALL = """
SET LOCAL session_replication_role = replica;
INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, correlation_id, body, fingerprint)
SELECT 'acme', 'e' || n, 'invoice.paid', now() - interval '40 days' + make_interval(secs => n),
       CASE WHEN n % 2 = 0 THEN 'all' WHEN n % 100 = 1 THEN 'c' || n END, '', ''
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT 'acme', md5(n::text)::uuid, 'https://a.example/' || n, '{{*}}' FROM generate_series({least}, {most}, 100) AS n;
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, ordered, enabled)
SELECT 'held', md5(w)::uuid, 'https://a.example/' || w, '{{*}}', w = 'order', w <> 'endpoint_disabled'
FROM unnest(ARRAY['order', 'concurrency', 'endpoint_disabled']) AS w ON CONFLICT DO NOTHING;
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, released_at)
SELECT tenant_id, id, now() FROM hookseal.endpoints WHERE tenant_id = 'held' ON CONFLICT DO NOTHING;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, waiting_for, held_at, position)
SELECT 'held', hookseal.uuid7(), md5(w)::uuid, 'e' || n, w, now(), CASE WHEN w = 'order' THEN n END
FROM generate_series({least}, {most}, 12) AS n, unnest(ARRAY['order', 'concurrency', 'endpoint_disabled']) AS w;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, rung_at, waiting_for,
    held_at, finished_at, position)
SELECT 'acme', hookseal.uuid7(), md5((n - n % 100 + 1)::text)::uuid, 'e' || n,
       CASE WHEN n % 4 = 3 THEN 'delivered' ELSE 'pending' END,
       CASE WHEN n % 4 < 3 THEN now() - make_interval(hours => 1 + n % 4, secs => -n / 1e6) END,
       CASE WHEN n % 4 = 1 THEN now() END,
       CASE WHEN n % 8 = 2 THEN 'order' WHEN n % 4 = 2 THEN 'secret' END, CASE WHEN n % 4 = 2 THEN now() END,
       CASE WHEN n % 4 = 3 THEN now() END, CASE WHEN n % 8 = 2 THEN n END
FROM generate_series({least}, {most}) AS n;
INSERT INTO hookseal.lanes (tenant_id, endpoint_id)
SELECT 'lanes', md5(n::text)::uuid FROM generate_series({least}, {most}, 10) AS n
UNION ALL SELECT 'held', md5('concurrency')::uuid ON CONFLICT DO NOTHING;
INSERT INTO hookseal.lines (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints ON CONFLICT DO NOTHING;
INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at, lease_owner, lease_token,
    lease_expires_at, claimed_number, claimed_at, claimed_refs)
SELECT 'acme', hookseal.uuid7(), gen_random_uuid(), 'e' || n, 'sending', NULL, 'w', gen_random_uuid(), now(), 1, now(),
       '{{}}'
FROM generate_series({least}, 200) AS n;
INSERT INTO hookseal.delivery_links (tenant_id, id, endpoint_id, event_id)
SELECT tenant_id, id, endpoint_id, event_id FROM hookseal.deliveries ON CONFLICT DO NOTHING;
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, released_at)
SELECT 'acme', md5((100 * n + 1)::text)::uuid, CASE WHEN n > 10 THEN now() END FROM generate_series({least}, 20) AS n;
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)
SELECT tenant_id, id, 1, now(), 'delivered', '{{}}', 'w' FROM hookseal.deliveries WHERE state = 'delivered'
ON CONFLICT DO NOTHING;
INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker, endpoint_id)
SELECT tenant_id, id, 2, created_at + make_interval(secs => row_number() OVER ()), 'delivered', '{{}}', 'w',
       md5('1')::uuid
FROM hookseal.deliveries WHERE state = 'delivered'
ON CONFLICT DO NOTHING;
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)
SELECT 'acme', n, now(), 'a', 'secret.rotated', 'x', '', '', '1' FROM generate_series({least}, {most}, 10) AS n;
"""
_LEADS = "UPDATE hookseal.control SET token = $1::text::uuid, until = now() + interval '1 h' WHERE name = 'outbox'"
# Deliveries that stay as they are, though their endpoint is released: how many there are must not count.
_RELEASED_FIRST = "UPDATE hookseal.held_endpoints SET released_at = '2001-01-01Z' WHERE endpoint_id = md5('{}')::uuid"
_TOKEN = "00000000-0000-4000-8000-000000000000"
_FIRST, _LAST = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
_NO_ENDPOINT = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
_OLDEST = """
SELECT string_agg(tenant_id, E'\n'), string_agg(endpoint_id::text, E'\n'), string_agg(id::text, E'\n')
FROM (SELECT * FROM hookseal.deliveries
      WHERE state = 'pending' AND waiting_for IS NULL ORDER BY next_attempt_at LIMIT 50) AS d
"""


@pytest.mark.req("DEL-14", part="schedules")
async def test_an_invalid_schedule_is_refused(pool: Pool) -> None:
    """The database refuses a retry schedule unless it has 1 to 30 entries of 1 s to 7 d, at most 30 d in all."""
    for schedule in ("{}", "{0}", "{604801}", "{1,NULL}", "{{1},{2}}", SUM_TOO_LARGE, f"{{{','.join(['1'] * 31)}}}"):
        with pytest.raises(asyncpg.CheckViolationError):
            await rows.endpoint(pool, retry_schedule=rows.Sql(f"'{schedule}'"))


async def test_a_schedule_says_how_many_attempts(pool: Pool) -> None:
    """An endpoint with a schedule has one attempt more than the schedule has entries, whatever `max_attempts` is.

    An endpoint that an older system inserts without retry settings has the same default as one that is added.
    """
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, max_attempts, retry_schedule)"
        " VALUES ('acme', gen_random_uuid(), 'https://a.example/', '{*}', 3, '{5,300}'),"
        " ('acme', gen_random_uuid(), 'https://b.example/', '{*}', 4, NULL)"
    )
    (inserted,) = await pool.fetch(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
        " VALUES ('acme', gen_random_uuid(), 'https://c.example/', '{*}') RETURNING retry_schedule"
    )

    assert DEFAULT_RETRY_SCHEDULE == tuple(inserted["retry_schedule"])
    assert [3, 4, 11] == [
        row[0] for row in await pool.fetch("SELECT attempts_allowed FROM hookseal.endpoints ORDER BY url")
    ]


@pytest.mark.req("SEC-22")
@pytest.mark.parametrize("column", ["ref", "endpoint_id", "key_id"])
async def test_generated_columns_cannot_be_written(pool: Pool, column: str) -> None:
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await pool.execute(f"UPDATE hookseal.secret_records SET {column} = NULL")  # noqa: S608 -- ours
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await pool.execute(
            f"INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, {column})"  # noqa: S608 -- ours
            " VALUES ('acme', 'n', 1, 'db', 'p', '', NULL)"
        )


@pytest.mark.req("SEC-22")
async def test_the_endpoint_of_a_record_is_read_from_its_name(pool: Pool) -> None:
    """The endpoint of a record is read from its name, if well formed; its ref and key come from the row itself."""
    sealed = bytes.fromhex("010100112233aabbccddee")
    for name, endpoint in RECORD_NAMES:
        ref = await rows.secret_record(pool, name, 7, sealed=sealed)
        row = await pool.fetchrow(
            "SELECT endpoint_id::text, key_id FROM hookseal.secret_records WHERE ref = $1", f"db:acme:{name}:7"
        )
        assert (f"db:acme:{name}:7", endpoint, "00112233aabbccdd") == (ref, *(row or ()))


@pytest.mark.req("DEL-20")
async def test_each_delivery_has_its_link(pool: Pool) -> None:
    await pool.execute(_STORE)
    await pool.execute(_REPEAT, True)
    linked = await pool.fetch(_LINKED)
    assert linked == await pool.fetch(_STORED)
    assert 3 * 2 + 1 == len(linked)

    await rows.remove(pool, "deliveries", where="event_id <> 'e2'")
    linked = await pool.fetch(_LINKED)
    assert linked == await pool.fetch(_STORED)
    assert ["e2", "e2"] == [row["event_id"] for row in linked]


async def test_an_event_has_one_delivery_for_an_endpoint(pool: Pool) -> None:
    await pool.execute(_STORE)
    await pool.execute(_REPEAT, True)
    await pool.execute(_REPEAT, True)
    with pytest.raises(asyncpg.UniqueViolationError, match="delivery_links_once"):
        await pool.execute(_REPEAT, False)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="event"):
        await pool.execute(_REPEAT.replace("endpoint_id, event_id, CASE", "endpoint_id, 'no-such', CASE"), False)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="delivery_links"):
        await rows.remove(pool, "events")


async def test_a_link_changes_with_its_delivery(pool: Pool) -> None:
    """If the owner changes to what a delivery belongs, its link changes, too; an event that is not there is refused."""
    await pool.execute(_STORE)
    await rows.change(pool, "deliveries", endpoint_id=rows.Sql("gen_random_uuid()"), replay_of=rows.Sql("id"))
    assert await pool.fetch(_LINKED) == await pool.fetch(_STORED)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="event"):
        await rows.change(pool, "deliveries", event_id="no-such")


async def test_links_are_truncated_with_deliveries(pool: Pool) -> None:
    await pool.execute(_STORE)
    for statement in ("TRUNCATE hookseal.delivery_links", "TRUNCATE hookseal.events CASCADE"):
        with pytest.raises(asyncpg.ForeignKeyViolationError, match=r"truncate hookseal\.deliveries, too"):
            await pool.execute(statement)
    assert 3 * 2 == len(await pool.fetch(_LINKED))

    await pool.execute("TRUNCATE hookseal.deliveries")
    assert [] == await pool.fetch(_LINKED)
    await pool.execute("TRUNCATE hookseal.events, hookseal.deliveries CASCADE")


async def test_tables_have_their_storage_settings(pool: Pool) -> None:
    """A table is vacuumed when few of its rows are dead, and keeps room for new versions (decision 23)."""
    found = await pool.fetch("SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'hookseal'::regnamespace")
    often = "autovacuum_vacuum_scale_factor=0.05"
    assert {
        "attempt_counts": ["fillfactor=70"],
        "attempts": [often],
        "deliveries": ["fillfactor=75", often],
        "delivery_links": [often],
        "events": [often],
    } == {row["relname"]: row["reloptions"] for row in found if row["reloptions"]}


async def test_an_update_of_a_delivery_writes_few_indexes(pool: Pool) -> None:
    """Only one index has all deliveries. The others have what is pending, held, being sent, or ended."""
    assert ["deliveries_pkey"] == [row[0] for row in await pool.fetch(_OF_EVERY_ROW)]


@pytest.mark.req("DEL-20")
async def test_each_look_up_has_its_index(pool: Pool) -> None:
    """No look-up of a publish, an operator or the leader scans or sorts a whole table."""
    await pool.execute(_GROWN)
    for asked, arguments, index in _PLACES:
        statement = asked if isinstance(asked, str) else statements(f"hookseal.{asked[0]}", asked[1])[asked[2]]
        found = await pool.fetch(f"EXPLAIN {statement}", *arguments)
        plan = "\n".join(row[0] for row in found)

        assert index in plan, f"{asked}\n{plan}"
        for table in ("deliveries", "delivery_links", "audit_log", "endpoints", "events"):
            assert f"Seq Scan on {table}" not in plan, f"{asked}\n{plan}"


@pytest.mark.parametrize("key_id", ["0000000000000001", "0000000000000009"])
async def test_the_check_for_a_needed_key_uses_indexes(pool: Pool, key_id: str) -> None:
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


async def test_every_readable_column_is_described(pool: Pool) -> None:
    """The page has exactly the columns that the role may read, with their types."""
    described = {"events", "deliveries", "delivery_links", "attempts", "endpoint_urls", "endpoints"}
    assert described == documented().keys()
    for table, columns in documented().items():
        kept = await pool.fetch(COLUMNS, table)
        found = {row["column_name"]: SHORT.get(row["type"], row["type"]) + "[]" * row["is_array"] for row in kept}
        assert found == columns, table


async def test_the_examples_are_allowed_and_use_indexes(pool: Pool) -> None:
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
                await connection.fetch(_CLAIM, *rings, "false", *_CLAIMING)
                after: int = await connection.fetchval(_READ)
                await transaction.rollback()
                return after - before

        for table in ("deliveries", "events"):  # to analyse one would end the old plan
            await grower.execute(f"ALTER TABLE hookseal.{table} SET (autovacuum_enabled = off)")
        await grower.execute(_GROW_DELIVERIES.format(least=1, most=_FEW))
        await pool.execute("SET plan_cache_mode = force_generic_plan")  # after five uses PostgreSQL does so by itself
        await rows_read()
        await grower.execute(_GROW_DELIVERIES.format(least=_FEW + 1, most=_MANY))
        old = await rows_read()
        monkeypatch.setattr(connect, "SLOW_SECONDS", 0.0)
        await rows_read()
        new = await rows_read()

    assert old > 1.5 * _MANY  # else the old plan was a good one, too
    assert new < _MANY / 2


async def test_a_connection_discards_plans_that_may_be_old(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does so when it is released. The next use of a statement makes a plan, and discards nothing."""
    monkeypatch.setattr(connect, "PLANS_LAST_SECONDS", 0.0)
    monkeypatch.setattr(connect, "SLOW_SECONDS", 0.5)  # on a busy machine any statement may take 0.02 s
    sent = list[str]()
    connection = await connect.connect(database_url)
    connection.add_query_logger(lambda query: sent.append(query.query))
    for seconds in (0.0, 0.0, 0.5, 0.5, 0.5, 0.5):
        await connection.execute(f"SELECT pg_sleep({seconds})")
        await asyncio.sleep(0)  # the driver reports the time in the next turn of the event loop
        await connection.reset()
    await asyncio.sleep(0)
    await connection.close()

    fast, slow = "SELECT pg_sleep(0.0)", "SELECT pg_sleep(0.5)"
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
async def test_a_plan_without_statistics_reads_no_tenant(pool: Pool, name: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_STORE_500)
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


@pytest.mark.req("DEL-09")
async def test_each_row_of_a_new_table_is_found_by_its_key(pool: Pool) -> None:
    """Before the first ANALYZE several indexes seem to cost the same. One by the tenant would read all of its rows."""
    found = {}
    async with pool.acquire() as connection:
        keys = [each for each in await connection.fetch(_PRIMARY_KEYS) if each["table"] != "alembic_version"]
        await connection.execute("SET session_replication_role = replica")  # no trigger refuses what follows
        await connection.execute(f"TRUNCATE {', '.join(each['table'] for each in keys)}")  # as if nothing was analysed
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for table, columns, types in keys:
            conditions = " AND ".join(f"{column} = ${number}" for number, column in enumerate(columns, start=1))
            await connection.execute(f"PREPARE {table} ({', '.join(types)}) AS SELECT FROM {table} WHERE {conditions}")
            plan = await connection.fetchval(
                f"EXPLAIN (FORMAT json) EXECUTE {table} ({', '.join('NULL' for _ in columns)})"
            )
            by = json.loads(plan)[0]["Plan"].get("Index Cond", "")
            found[table] = re.search(rf"\b{columns[-1]}\b", by) is not None

    assert found.keys() >= {"events", "endpoints", "deliveries", "attempts"}
    assert [] == [table for table, by_key in found.items() if not by_key]


async def test_a_claim_finds_each_of_many_endpoints_by_a_hash(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(_STORE_ONE_EVENT)
        rings = await connection.fetchrow(_RINGS)
        assert rings is not None
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {_CLAIM}", *rings, "false", *_CLAIMING)
        claimed = await connection.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state = 'sending'")

    compared = re.findall(r'"Rows Removed by Join Filter": (\d+)', text)
    assert claimed == _ENDPOINTS
    assert compared
    assert sum(map(int, compared)) < _ENDPOINTS


async def test_an_outcome_is_recorded_without_a_trigger(pool: Pool) -> None:
    """No trigger and no foreign key runs for an attempt that succeeds or is to be repeated."""
    states = ("delivered", "pending")
    async with pool.acquire() as connection:  # no transaction: PostgreSQL checks again what the same one has written
        await connection.execute(_STORE_500)
        rings = await connection.fetchrow(_RINGS.replace("50", str(len(states))))
        assert rings is not None
        claimed = await connection.fetch(_CLAIM, *rings, "false", *_CLAIMING)
        each = (("60", "12", "204", outcome, "-", "f") for outcome in states)
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


async def test_looks_at_one_lane_share_a_plan(pool: Pool) -> None:
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
    found = await connection.fetch(f"EXPLAIN EXECUTE planned({nothing})")
    await connection.execute("DEALLOCATE planned")
    return "\n".join(row[0] for row in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A statement with its arguments, and what is done before it, in its transaction."""

    room: str
    file: str
    name: str
    arguments: tuple[Any, ...]
    before: str = ""

    @property
    def text(self) -> str:
        return statements(f"hookseal.{self.room}", f"{self.file}.sql")[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a statement reads."""

    buffers: int
    rows: float
    plan: dict[str, Any] = field(repr=False)


def _repeated(now: Any, rings: Sequence[str]) -> list[Read]:
    """Return what workers repeat, several times a second or a minute."""
    start = (BEGINNING.due_at, BEGINNING.delivery_id)
    ledger = {
        "ring_unrung": (100, 0.0, None, _TOKEN, "", None, None),
        "standing": (500, None),
        "rung_before": (100, now, *start, now, 100),
        "end_lost_leases": (100, 30.0, None, None),
        "refused": (100,),
    }
    held = {
        "probe": (10, 240.0, 0.25),
        "release_strays": ("", _FIRST, "", 10),
        "cancel_held": (0, None, None, 100),
        "move_lines": ("", _FIRST, 50),
    }
    crowded = ("held", str(UUID(hashlib.md5(b"concurrency", usedforsecurity=False).hexdigest())))
    lanes = {
        "page": ("", _FIRST, 100),
        "next": (*crowded, "50", _FIRST),
        "delete": (*crowded, 100, 10.0),
        "park": (*rings, "\n".join("rate" for _ in rings[2].splitlines())),
        "due": tuple(rings),
    }
    figures = {"lines_stopped": (100,), "retention_lag_seconds": (30,)}
    counts = {
        "oldest_due_seconds": (),
        "due": (100,),
        "not_due": (100,),
        "waiting": (100,),
        "oldest_waiting": (20,),
        "keys": (),
    }
    backlog = {"by_tenant": (100, 5, 100, 20)}
    return [
        *(Read(room="dispatcher.store", file="ledger", name=name, arguments=given) for name, given in ledger.items()),
        *(
            Read(room="dispatcher.store", file="held_endpoints", name=name, arguments=given)
            for name, given in held.items()
        ),
        *(Read(room="dispatcher.store", file="lanes", name=name, arguments=given) for name, given in lanes.items()),
        *(
            Read(
                room="dispatcher.store",
                file="held_endpoints",
                name="release_batch",
                arguments=(100,),
                before=_RELEASED_FIRST.format(waiting_for),
            )
            for waiting_for in ("order", "concurrency", "endpoint_disabled")
        ),
        *(Read(room="worker.metrics", file="database", name=name, arguments=given) for name, given in figures.items()),
        *(Read(room="dispatcher.store", file="overview", name=name, arguments=given) for name, given in counts.items()),
        *(Read(room="dispatcher.store", file="backlog", name=name, arguments=given) for name, given in backlog.items()),
        Read(
            room="dispatcher.store",
            file="batches",
            name="claim_all",
            arguments=(*rings, "false", *_CLAIMING),
        ),
        Read(
            room="dispatcher.store",
            file="batches",
            name="claim_all",
            arguments=(*(each.split("\n")[0] for each in rings), "f", *_CLAIMING),
        ),
        Read(room="dispatcher.store", file="history", name="fill_attempts", arguments=()),
        Read(room="dispatcher.store", file="history", name="remove_deliveries", arguments=(30, "-infinity")),
        Read(room="dispatcher.store", file="history", name="remove_events", arguments=(30, "-infinity")),
        Read(room="dispatcher.store", file="history", name="remove_idempotency_keys", arguments=()),
    ]


def _lists() -> list[Read]:
    """Return the lists of operators, with each filter, also where nothing matches."""

    def page(of: str, *conditions: Any, signed_by: str | None = None, channel: str | None = None) -> Read:
        given = (*conditions, _LAST, 51, signed_by, 1_000, _FIRST, channel)
        return Read(room="dispatcher.store", file="delivery_queries", name=f"page_of_{of}", arguments=given)

    def of_events(*named: str | None) -> Read:
        given = ("acme", None, None, None, _LAST, 51, None, 1_000, _FIRST, None, *named)
        return Read(room="dispatcher.store", file="delivery_queries", name="page_of_events", arguments=given)

    def events(
        kinds: list[str] | None, correlation: str | None, until: str = "infinity", *, name: str = "page"
    ) -> Read:
        start = "infinity" if name == "page" else "-infinity"
        given = ("acme", kinds, "no-such" if kinds else None, correlation, "-infinity", until, start, "", 1_000, 51)
        return Read(room="dispatcher.store", file="event_queries", name=name, arguments=given)

    endpoint = "c4ca4238-a0b9-2382-0dcc-509a6f75849b"

    def attempts(
        of: str, *conditions: Any, since: str = "-infinity", channel: str | None = None, oldest_first: bool = False
    ) -> Read:
        end = ("-infinity", _FIRST, 0) if oldest_first else ("infinity", _LAST, 2**31 - 1)
        event = ("e7", oldest_first) if of == "event" else ()
        given = ("acme", *conditions, since, "infinity", *end, 1_000, 51, channel, *event)
        name = f"page_of_{of}" + ("_rising" if oldest_first and of == "endpoint" else "")
        return Read(room="dispatcher.store", file="attempt_queries", name=name, arguments=given)

    def attempt(name: str, *more: Any) -> Read:
        given = ("acme", _NO_ENDPOINT, 1, *more)
        return Read(room="dispatcher.store", file="attempt_queries", name=name, arguments=given)

    audit = {"page": (None, "key.promoted", None, None, 51), "page_of_tenant": ("acme", "key.promoted", None, None, 51)}
    status = {
        "in_trouble": (11, 50, 50),
        "workers": (30.0, 50),
        "replays": (10,),
        "rest": (50,),
        "first_attempts": (10, 300.0, NOT_SENT),
    }
    of_all, of_nobody = (None, False, None, 51), ("nobody", None, None, 51)
    endpoints = {"page": of_all, "page_rising": of_all} | {
        "page_of_tenant": of_nobody, "page_of_tenant_rising": of_nobody, "find": ("acme", None, "no-such"),
        "page_in_states": (None, ["held", "stopped", "failing", "disabled"], None, 51, 100),
        "stats_in_states": (None, ["held", "stopped", "failing", "disabled"], None, 5, 100), "stats_of_all": (None, 5),
    }  # fmt: skip
    return [
        attempts("endpoint", endpoint, None, None, None),
        attempts("endpoint", endpoint, None, None, None, oldest_first=True),
        attempts("endpoint", endpoint, ["no.such"], None, None),
        attempts("endpoint", endpoint, None, None, None, channel="no-such"),
        attempts("endpoint", endpoint, ["no.such"], False, 5, oldest_first=True),
        attempts("endpoint", endpoint, None, None, None, since="2030-01-01Z"),
        attempts("event", None, None, None, None),
        attempts("event", endpoint, None, False, 5, oldest_first=True),
        Read(room="dispatcher.store", file="overview", name="overview", arguments=(50, 30.0)),
        *(Read(room="dispatcher.store", file="status", name=name, arguments=given) for name, given in status.items()),
        Read(room="dispatcher.store", file="backlog", name="of_tenants", arguments=(100, ["acme", "held", "no"], 20)),
        attempt("show"),
        attempt("time_of", None, None),
        page("all", None, None, None, None),
        page("all", None, None, "no.such", None),
        page("tenant", "acme", None, None, None),
        page("tenant", "nobody", None, None, None),
        page("tenant", "acme", None, "no.such", ["sending"]),
        page("tenant", "acme", None, None, None, channel="no-such"),
        page("endpoint", None, endpoint, None, None, channel="no-such"),
        page("endpoint", None, endpoint, None, None),
        page("endpoint", None, _NO_ENDPOINT, None, ["delivered"]),
        page("endpoint", "acme", endpoint, None, None, signed_by="db:acme:x:1"),
        page("states", None, None, None, ["dead_letter"]),
        page("states", "acme", endpoint, None, ["failed"]),
        page("states", "acme", None, None, ["dead_letter", "failed", "cancelled"]),
        Read(
            room="dispatcher.store",
            file="delivery_queries",
            name="count_unfinished",
            arguments=(["pending"], 1_000),
        ),
        Read(
            room="dispatcher.store",
            file="delivery_queries",
            name="count_unfinished",
            arguments=(["pending", "sending"], 1_000),
        ),
        page("few", None, None, None, ["sending"]),
        page("few", "acme", None, None, ["pending", "sending"]),
        Read(room="dispatcher.store", file="delivery_queries", name="latest", arguments=("acme", "e7", endpoint)),
        Read(
            room="dispatcher.store",
            file="delivery_queries",
            name="count_by_state",
            arguments=("acme", endpoint, _FIRST, _LAST, 1_000),
        ),
        of_events("e7", None),
        of_events("no-such", None),
        of_events(None, "c101"),
        of_events(None, "all"),
        events(None, None),
        events(None, None, name="page_rising"),
        events(["no.such"], None),
        events(["no.such"], None, name="page_rising"),
        events(None, "all"),
        events(["no.such"], "c101"),
        events(None, None, "2020-01-01Z"),
        Read(room="dispatcher.store", file="event_queries", name="everywhere", arguments=("no-such", 20, 50)),
        *(Read(room="audit", file="audit", name=name, arguments=given) for name, given in audit.items()),
        *(
            Read(room="dispatcher.store", file="endpoint_queries", name=name, arguments=given)
            for name, given in endpoints.items()
        ),
    ]


async def _grown(pool: Pool, least: int, most: int) -> list[tuple[Read, Cost]]:
    """Grow the tables, and return what each statement then reads."""
    async with pool.acquire() as connection:
        # While a table is small, a scan of it looks as cheap as the index that serves when it is large.
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        async with connection.transaction():
            await connection.execute(_GROW_ALL.format(least=least, most=most))
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute(_LEADS, _TOKEN)
        now = await connection.fetchval("SELECT now()")
        rings = tuple(await connection.fetchrow(_OLDEST) or ())
        repeated = [(read, await _cost_of_one_plan(connection, read)) for read in _repeated(now, rings)]
        return repeated + [(read, await _cost(connection, read, read.text, *read.arguments)) for read in _lists()]


async def _cost_of_one_plan(connection: Any, read: Read) -> Cost:
    """Do it with a plan for any arguments, and with bitmaps, as in workers: a bitmap reads all before the first row."""
    given = ", ".join(map(_literal, read.arguments))
    await connection.execute(
        f"SET enable_bitmapscan = on; SET plan_cache_mode = force_generic_plan; PREPARE repeated AS {read.text}"
    )
    cost = await _cost(connection, read, f"EXECUTE repeated ({given})" if given else "EXECUTE repeated")
    await connection.execute("DEALLOCATE repeated; RESET plan_cache_mode; SET enable_bitmapscan = off")
    return cost


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    return repr(value) if isinstance(value, int | float) else f"'{value}'"


async def _cost(connection: Any, read: Read, text: str, *arguments: Any) -> Cost:
    """Return what the second run of a statement reads. Nothing that it writes stays."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {text}"
    plan: dict[str, Any] = {}
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        if read.before:
            await connection.execute(read.before)
        plan = json.loads(await connection.fetchval(explain, *arguments))[0]["Plan"]
        await transaction.rollback()
    return Cost(buffers=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], rows=_rows(plan), plan=plan)


def _rows(plan: dict[str, Any]) -> float:
    """Return how many rows all nodes of the plan have read or passed by."""
    passed: float = sum(number for name, number in plan.items() if name.startswith("Rows Removed"))
    own: float = (plan["Actual Rows"] + passed) * plan["Actual Loops"]
    return own + sum(_rows(inner) for inner in plan.get("Plans", ()))


@pytest.mark.req("DEL-20")
async def test_repeated_statements_do_not_read_more_as_tables_grow(pool: Pool) -> None:
    """Claim, outbox, sweep, holding, measuring, retention and every list read as much, however much is stored."""
    few = await _grown(pool, 1, FEW)
    many = await _grown(pool, FEW + 1, MANY)

    grown = [
        f"{read.name}{read.arguments} {read.before}: {before} -> {after}\n{json.dumps(after.plan, indent=1)}"
        for (read, before), (_, after) in zip(few, many, strict=True)
        if after.buffers > _MOST_RATIO * before.buffers + _AND_BUFFERS or after.rows > before.rows + _AND_ROWS
    ]
    assert not grown, "\n".join(grown)
