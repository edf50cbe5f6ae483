"""The rights of each SQL role, read from PostgreSQL: no more than listed. Other tests prove that they suffice."""

from collections import defaultdict

import asyncpg
import pytest

Pool = asyncpg.Pool
ROLES = ("hookseal_producer", "hookseal_publisher", "hookseal_readonly", "hookseal_worker", "hookseal_operator")
# S: select, I: insert, U: update, D: delete, each for all columns. Rights to single columns are in PARTS.
_STATISTICS = {"endpoint_stats": "S", "endpoint_backlog": "S"}
WHOLE = {
    "hookseal_producer": {"alembic_version": "S"},
    "hookseal_publisher": {"audience": "S", "events": "I", "operator_notices": "DIS", "producers": "S"},
    "hookseal_readonly": {
        "alembic_version": "S", "attempts": "S", "audit_heads": "S", "audit_log": "S", "control": "S",
        **_STATISTICS, "deliveries": "S", "delivery_links": "S", "held_endpoints": "S", "lanes": "S", "lines": "S",
        "operator_notices": "S",
        "producers": "S", "replays": "S", "rotation_canaries": "S", "secret_rotations": "S", "workers": "S",
    },
    "hookseal_worker": {
        "alembic_version": "S", "attempt_counts": "DIS", "attempts": "IS", "audience": "S", "audit_heads": "IS",
        "audit_log": "IS", **_STATISTICS,
        "control": "S", "deliveries": "S", "delivery_links": "S", "events": "S", "held_endpoints": "DISU",
        "key_lock": "D", "lanes": "DISU", "lines": "S",
        "operator_notices": "S", "replays": "S", "secret_keys": "S", "secret_leftovers": "DIS", "secret_records": "IS",
        "secret_rotations": "IS", "workers": "DISU",
    },
    "hookseal_operator": {
        "alembic_version": "S", "attempts": "S", "audience": "S", "audit_heads": "IS", "audit_log": "IS", **_STATISTICS,
        "control": "S", "deliveries": "S", "delivery_links": "S", "endpoints": "DS", "held_endpoints": "DS",
        "key_lock": "D", "lanes": "DS", "lines": "S",
        "operator_notices": "S", "producers": "DIS", "replays": "S", "rotation_canaries": "DIS", "secret_keys": "IS",
        "secret_leftovers": "DIS", "secret_records": "IS", "secret_rotations": "IS", "workers": "S",
    },
}  # fmt: skip
_DECIDED = (
    "name event_types timeout_ms max_attempts backoff_base_seconds backoff_cap_seconds retry_schedule concurrency rate"
    " on_dead_letter rotate_every_days"
)
_ROTATED = (
    "secret_ref previous_secret_ref previous_secret_expires_at previous_scheme previous_algorithm secret_provider"
    " secret_updated_at generation mac mac_key_id"
)
_POINTER = f"url scheme algorithm lead headers_ref tls_ref {_ROTATED}"
_KEY_LIFE = "state promoted_at drained_at compromised_at retired_at destroyed_at"
_STATE = "enabled disabled_reason disabled_at"
_LAST = "last_disabled_reason last_disabled_at"
_FAILURES = "first_failure_at last_failure_at"
_EVENT = "tenant_id id event_type occurred_at correlation_id traceparent"
_ENDPOINT = (
    f"tenant_id id ordered {_DECIDED} {_POINTER} {_STATE} {_LAST} {_FAILURES} header_names tls_shown attempts_allowed"
    " has_plaintext created_at"
)
PARTS = {
    ("hookseal_publisher", "SELECT", "control"): "name until",
    ("hookseal_publisher", "SELECT", "deliveries"):
        "tenant_id id endpoint_id event_id waiting_for state next_attempt_at position",
    ("hookseal_publisher", "SELECT", "delivery_links"): "tenant_id id event_id replay_of",
    ("hookseal_publisher", "INSERT", "deliveries"):
        "tenant_id id endpoint_id event_id rung_at waiting_for held_at last_error position",
    ("hookseal_publisher", "SELECT", "events"): "tenant_id id event_type fingerprint",
    ("hookseal_publisher", "UPDATE", "operator_notices"): "last_at suppressed",
    ("hookseal_readonly", "SELECT", "endpoints"): _ENDPOINT,
    ("hookseal_readonly", "SELECT", "events"): _EVENT,
    ("hookseal_readonly", "SELECT", "secret_keys"): f"key_id created_at {_KEY_LIFE}",
    ("hookseal_readonly", "SELECT", "secret_leftovers"): "tenant_id name version provider why since",
    ("hookseal_readonly", "SELECT", "secret_records"):
        "tenant_id name version ref endpoint_id provider purpose scheme key_id wrapped_by state created_at changed_at",
    ("hookseal_worker", "UPDATE", "control"): "holder token until",
    ("hookseal_worker", "UPDATE", "deliveries"):
        "state attempts budget_spent next_attempt_at rung_at waiting_for held_at last_error lease_owner lease_token"
        " lease_expires_at claimed_number claimed_at claimed_refs claimed_generation position finished_at",
    ("hookseal_worker", "UPDATE", "attempt_counts"): "delivered durations",
    ("hookseal_worker", "UPDATE", "replays"): "state paid_until cursor replayed disabled deleted moved_at ended_at",
    ("hookseal_operator", "INSERT", "replays"):
        "tenant_id id endpoint_id event_type event_id states since until end_id rate cursor matched",
    ("hookseal_operator", "UPDATE", "replays"): "state ended_at",
    ("hookseal_worker", "SELECT", "endpoints"): _ENDPOINT,
    ("hookseal_worker", "UPDATE", "endpoints"): f"{_ROTATED} {_STATE} {_FAILURES}",
    ("hookseal_worker", "UPDATE", "audit_heads"): "sequence mac",
    ("hookseal_worker", "UPDATE", "secret_leftovers"): "why since provider share",
    ("hookseal_worker", "UPDATE", "secret_records"): "state sealed share changed_at",
    ("hookseal_operator", "UPDATE", "audit_heads"): "sequence mac",
    ("hookseal_operator", "UPDATE", "control"): "epoch",
    ("hookseal_operator", "INSERT", "deliveries"): (
        "tenant_id id endpoint_id event_id replay_of waiting_for held_at last_error position"
    ),
    ("hookseal_operator", "UPDATE", "deliveries"):
        "state budget_spent next_attempt_at rung_at waiting_for held_at last_error position",
    ("hookseal_operator", "INSERT", "held_endpoints"): "tenant_id endpoint_id released_at",
    ("hookseal_operator", "UPDATE", "held_endpoints"): "released_at probe_at step_seconds",
    ("hookseal_operator", "INSERT", "endpoints"): f"tenant_id id url ordered {_DECIDED}",
    ("hookseal_operator", "UPDATE", "endpoints"):
        f"{_DECIDED} {_POINTER} {_STATE} {_LAST} header_names tls_shown secret",
    ("hookseal_operator", "SELECT", "events"): f"{_EVENT} body",
    ("hookseal_operator", "UPDATE", "secret_keys"): _KEY_LIFE,
    ("hookseal_operator", "UPDATE", "secret_leftovers"): "why since provider share",
    ("hookseal_operator", "UPDATE", "secret_records"): "state sealed share provider wrapped_by changed_at",
}  # fmt: skip
_RIGHTS = """
SELECT r.rolname AS role, c.relname AS name, p.letter
FROM pg_roles AS r, pg_class AS c,
     (VALUES ('SELECT', 'S'), ('INSERT', 'I'), ('UPDATE', 'U'), ('DELETE', 'D')) AS p (word, letter)
WHERE r.rolname = ANY ($1) AND c.relnamespace = 'hookseal'::regnamespace AND c.relkind IN ('r', 'v')
  AND has_table_privilege(r.oid, c.oid, p.word)
"""
_PARTS = """
SELECT r.rolname AS role, p.word, c.relname AS name, array_agg(a.attname::text) AS columns
FROM pg_roles AS r, pg_class AS c, pg_attribute AS a, (VALUES ('SELECT'), ('INSERT'), ('UPDATE')) AS p (word)
WHERE r.rolname = ANY ($1) AND c.relnamespace = 'hookseal'::regnamespace AND c.relkind IN ('r', 'v')
  AND a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  AND has_column_privilege(r.oid, c.oid, a.attnum, p.word) AND NOT has_table_privilege(r.oid, c.oid, p.word)
GROUP BY 1, 2, 3
"""
_SECRET = [
    *("endpoints.secret", "secret_records.sealed", "secret_records.share", "secret_leftovers.share"),
    *("secret_keys.check_value", "events.body"),
]
_HALVES = ["secret_records.sealed", "secret_records.share", "secret_leftovers.share"]
_READS = "SELECT has_column_privilege($1, 'hookseal.' || split_part($2, '.', 1), split_part($2, '.', 2), 'SELECT')"


@pytest.mark.req("OPS-10")
async def test_each_role_has_its_table_rights(pool: "Pool[asyncpg.Record]") -> None:
    """Each role has exactly the listed rights to whole tables."""
    found: dict[str, dict[str, str]] = {role: defaultdict(str) for role in ROLES}
    for row in await pool.fetch(_RIGHTS, list(ROLES)):
        found[row["role"]][row["name"]] += row["letter"]

    assert WHOLE == {
        role: {name: "".join(sorted(letters)) for name, letters in tables.items()} for role, tables in found.items()
    }


@pytest.mark.req("OPS-10")
async def test_each_role_has_its_column_rights(pool: "Pool[asyncpg.Record]") -> None:
    """Each role has exactly the listed rights to single columns."""
    rows = await pool.fetch(_PARTS, list(ROLES))

    assert {right: set(columns.split()) for right, columns in PARTS.items()} == {
        (row["role"], row["word"], row["name"]): set(row["columns"]) for row in rows
    }


@pytest.mark.req("OPS-10")
@pytest.mark.parametrize(
    ("role", "reads"),
    [
        ("hookseal_producer", []),
        ("hookseal_publisher", []),
        ("hookseal_readonly", []),
        ("hookseal_worker", [*_HALVES, "secret_keys.check_value", "events.body"]),
        ("hookseal_operator", ["endpoints.secret", *_HALVES, "secret_keys.check_value", "events.body"]),
    ],
)
async def test_secrets_are_readable_by_few_roles(pool: "Pool[asyncpg.Record]", role: str, reads: list[str]) -> None:
    """Only the operator reads plaintext secrets; only the operator and the worker read a body or a sealed secret."""
    assert reads == [column for column in _SECRET if await pool.fetchval(_READS, role, column)]


@pytest.mark.req("OPS-10")
async def test_publishing_functions_have_their_callers(pool: "Pool[asyncpg.Record]") -> None:
    """Only the roles of producers, publishers and operators may call the functions that publish."""
    rows = await pool.fetch(
        "SELECT f.proname, array_agg(r.rolname::text ORDER BY r.rolname) FROM pg_roles AS r, pg_proc AS f"
        " WHERE r.rolname = ANY ($1) AND f.proname IN ('publish', 'publish_raw', 'publish_many')"
        " AND f.pronamespace = 'hookseal'::regnamespace"
        " AND has_function_privilege(r.oid, f.oid, 'EXECUTE') GROUP BY 1",
        list(ROLES),
    )
    may = ["hookseal_operator", "hookseal_producer", "hookseal_publisher"]

    assert {"publish": may, "publish_raw": may, "publish_many": may} == dict(map(tuple, rows))


@pytest.mark.req("OPS-10")
async def test_no_role_logs_in(pool: "Pool[asyncpg.Record]") -> None:
    """The roles are groups: none can log in, and none can create anything in the schema."""
    assert 0 == await pool.fetchval(
        "SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1) AND (rolcanlogin OR rolsuper OR rolcreaterole"
        " OR has_schema_privilege(oid, 'hookseal', 'CREATE'))",
        list(ROLES),
    )
