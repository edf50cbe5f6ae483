"""What each role may do, and what the guards refuse."""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest

from hookseal.ground.ids import EndpointId
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.logins import login
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("OPS-10")


ROLES = (
    "hookseal_producer",
    "hookseal_publisher",
    "hookseal_readonly",
    "hookseal_worker",
    "hookseal_operator",
    "hookseal_api",
    "hookseal_reveal",
)
# S: select, I: insert, U: update, D: delete, each for all columns. Rights to single columns are in PARTS.
_STATISTICS = {"endpoint_stats": "S", "endpoint_states": "S", "endpoint_backlog": "S"}
WHOLE = {
    "hookseal_producer": {"alembic_version": "S"},
    "hookseal_publisher": {
        "audience": "S", "events": "I", "operator_notices": "DIS", "producers": "S", "subscriptions": "S",
    },
    "hookseal_readonly": {
        "alembic_version": "S", "attempts": "S", "audit_heads": "S", "audit_log": "S", "control": "S",
        **_STATISTICS, "deliveries": "S", "delivery_links": "S", "endpoint_urls": "S", "event_types": "S",
        "held_endpoints": "S", "lanes": "S", "lines": "S", "operator_notices": "S",
        "producers": "S", "refused_outcomes": "S", "replays": "S", "rotation_canaries": "S", "secret_rotations": "S",
        "tenants": "S",
        "workers": "S",
    },
    "hookseal_worker": {
        "alembic_version": "S", "attempt_counts": "DIS", "attempts": "IS", "audience": "S", "audit_heads": "IS",
        "audit_log": "IS", **_STATISTICS,
        "control": "S", "deliveries": "S", "delivery_links": "S", "endpoint_urls": "S", "events": "S",
        "held_endpoints": "DISU", "key_lock": "D", "lanes": "DISU", "lines": "S",
        "operator_notices": "S", "refused_outcomes": "DIS", "replays": "S", "secret_keys": "S",
        "secret_leftovers": "DIS", "secret_records": "IS",
        "secret_rotations": "IS", "workers": "DISU",
    },
    "hookseal_operator": {
        "alembic_version": "S", "api_tokens": "S", "attempts": "S", "audience": "S", "audit_heads": "IS",
        "audit_log": "IS", **_STATISTICS,
        "control": "S", "deliveries": "S", "delivery_links": "S", "endpoint_urls": "S", "endpoints": "DS",
        "event_types": "S",
        "held_endpoints": "DS", "idempotency_keys": "S", "key_lock": "D", "lanes": "DS", "lines": "S",
        "operator_notices": "S", "producers": "DIS", "refused_outcomes": "S", "replays": "S",
        "rotation_canaries": "DIS", "secret_keys": "IS",
        "secret_leftovers": "DIS", "secret_records": "IS", "secret_rotations": "IS", "tenants": "S",
        "workers": "S",
    },
    "hookseal_api": {
        "alembic_version": "S", "api_tokens": "S", "attempts": "S", "audience": "S", "audit_heads": "IS",
        "audit_log": "IS", **_STATISTICS,
        "control": "S", "deliveries": "S", "delivery_links": "S", "endpoint_urls": "S", "endpoints": "D",
        "event_types": "S",
        "held_endpoints": "DS", "idempotency_keys": "S", "key_lock": "D", "lanes": "DS", "lines": "S",
        "operator_notices": "S", "replays": "S", "rotation_canaries": "DIS", "secret_keys": "S",
        "secret_leftovers": "DI", "secret_rotations": "IS", "tenants": "S",
        "workers": "S",
    },
    "hookseal_reveal": {},
}  # fmt: skip
_DECIDED = (
    "uid name description metadata channels event_types timeout_ms max_attempts backoff_base_seconds"
    " backoff_cap_seconds retry_schedule concurrency rate on_dead_letter rotate_every_days"
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
_EVENT = "tenant_id id event_type occurred_at correlation_id traceparent channels tracestate"
_ENDPOINT = (
    f"tenant_id id ordered {_DECIDED} {_POINTER} {_STATE} {_LAST} {_FAILURES} header_names tls_shown attempts_allowed"
    " has_plaintext created_at updated_at shares_url url_since"
)
_RECORD = "tenant_id name version ref endpoint_id provider purpose scheme key_id wrapped_by state created_at changed_at"
_TOKEN = "tenant_id id name scopes created_at expires_at revoked_at last_used_on portal user_name session_id"
_NEW_TOKEN = "tenant_id id name digest scopes expires_at portal user_name session_id refresh_url code_digest made_of"
_END_OF_TOKEN = "expires_at revoked_at last_used_on code_spent_at"
PARTS = {
    ("hookseal_operator", "INSERT", "api_tokens"): _NEW_TOKEN,
    ("hookseal_operator", "UPDATE", "api_tokens"): _END_OF_TOKEN,
    ("hookseal_operator", "INSERT", "idempotency_keys"): "tenant_id actor key_digest call fingerprint",
    ("hookseal_operator", "UPDATE", "idempotency_keys"): "status result_id",
    ("hookseal_operator", "INSERT", "event_types"): "name description schemas deprecated archived",
    ("hookseal_operator", "UPDATE", "event_types"): "description schemas deprecated archived updated_at",
    ("hookseal_operator", "INSERT", "tenants"): "tenant_id uid name metadata",
    ("hookseal_operator", "UPDATE", "tenants"): "uid name metadata created_at updated_at deleted_at",
    ("hookseal_readonly", "SELECT", "api_tokens"): _TOKEN,
    ("hookseal_publisher", "SELECT", "control"): "name until",
    ("hookseal_publisher", "SELECT", "deliveries"):
        "tenant_id id endpoint_id event_id waiting_for state next_attempt_at position",
    ("hookseal_publisher", "SELECT", "delivery_links"): "tenant_id id event_id replay_of",
    ("hookseal_publisher", "INSERT", "deliveries"):
        "tenant_id id endpoint_id event_id rung_at waiting_for held_at last_error position manual_attempts",
    ("hookseal_publisher", "SELECT", "events"): "tenant_id id event_type fingerprint occurred_at",
    ("hookseal_publisher", "SELECT", "tenants"): "tenant_id deleted_at",
    ("hookseal_publisher", "UPDATE", "operator_notices"): "last_at suppressed",
    ("hookseal_readonly", "SELECT", "endpoints"): _ENDPOINT,
    ("hookseal_readonly", "SELECT", "events"): _EVENT,
    ("hookseal_readonly", "SELECT", "secret_keys"): f"key_id created_at {_KEY_LIFE}",
    ("hookseal_readonly", "SELECT", "secret_leftovers"): "tenant_id name version provider why since",
    ("hookseal_readonly", "SELECT", "secret_records"): _RECORD,
    ("hookseal_worker", "UPDATE", "control"): "holder token until",
    ("hookseal_worker", "UPDATE", "deliveries"):
        "state attempts budget_spent next_attempt_at rung_at waiting_for held_at last_error lease_owner lease_token"
        " lease_expires_at claimed_number claimed_at claimed_refs claimed_generation position finished_at"
        " manual_attempts",
    ("hookseal_worker", "UPDATE", "attempt_counts"): "delivered durations",
    ("hookseal_worker", "UPDATE", "refused_outcomes"): "tried_at reason",
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
        "tenant_id id endpoint_id event_id replay_of waiting_for held_at last_error position manual_attempts"
    ),
    ("hookseal_operator", "UPDATE", "deliveries"):
        "state budget_spent next_attempt_at rung_at waiting_for held_at last_error position manual_attempts",
    ("hookseal_operator", "INSERT", "held_endpoints"): "tenant_id endpoint_id released_at",
    ("hookseal_operator", "UPDATE", "held_endpoints"): "released_at probe_at step_seconds",
    ("hookseal_operator", "INSERT", "endpoints"): f"tenant_id id url ordered shares_url {_DECIDED}",
    ("hookseal_operator", "UPDATE", "endpoints"):
        f"{_DECIDED} {_POINTER} {_STATE} {_LAST} header_names tls_shown secret shares_url",
    ("hookseal_operator", "SELECT", "events"): f"{_EVENT} body",
    ("hookseal_operator", "UPDATE", "secret_keys"): _KEY_LIFE,
    ("hookseal_operator", "UPDATE", "secret_leftovers"): "why since provider share",
    ("hookseal_operator", "UPDATE", "secret_records"): "state sealed share provider wrapped_by changed_at",
    ("hookseal_api", "INSERT", "api_tokens"): _NEW_TOKEN,
    ("hookseal_api", "UPDATE", "api_tokens"): _END_OF_TOKEN,
    ("hookseal_api", "INSERT", "idempotency_keys"): "tenant_id actor key_digest call fingerprint",
    ("hookseal_api", "UPDATE", "idempotency_keys"): "status result_id",
    ("hookseal_api", "INSERT", "event_types"): "name description schemas deprecated archived",
    ("hookseal_api", "UPDATE", "event_types"): "description schemas deprecated archived updated_at",
    ("hookseal_api", "INSERT", "tenants"): "tenant_id uid name metadata",
    ("hookseal_api", "UPDATE", "tenants"): "uid name metadata created_at updated_at deleted_at",
    ("hookseal_api", "INSERT", "replays"):
        "tenant_id id endpoint_id event_type event_id states since until end_id rate cursor matched",
    ("hookseal_api", "UPDATE", "replays"): "state ended_at",
    ("hookseal_api", "UPDATE", "audit_heads"): "sequence mac",
    ("hookseal_api", "INSERT", "deliveries"):
        "tenant_id id endpoint_id event_id replay_of waiting_for held_at last_error position manual_attempts",
    ("hookseal_api", "UPDATE", "deliveries"):
        "state budget_spent next_attempt_at rung_at waiting_for held_at last_error position manual_attempts",
    ("hookseal_api", "INSERT", "held_endpoints"): "tenant_id endpoint_id released_at",
    ("hookseal_api", "UPDATE", "held_endpoints"): "released_at probe_at step_seconds",
    ("hookseal_api", "SELECT", "endpoints"): _ENDPOINT,
    ("hookseal_api", "INSERT", "endpoints"): f"tenant_id id url ordered shares_url {_DECIDED}",
    ("hookseal_api", "UPDATE", "endpoints"):
        f"{_DECIDED} {_POINTER} {_STATE} {_LAST} header_names tls_shown shares_url",
    ("hookseal_api", "SELECT", "events"): f"{_EVENT} body",
    ("hookseal_api", "SELECT", "secret_leftovers"): "tenant_id name version provider why since",
    ("hookseal_api", "UPDATE", "secret_leftovers"): "why since provider share",
    ("hookseal_api", "SELECT", "secret_records"): _RECORD,
    ("hookseal_api", "INSERT", "secret_records"):
        "tenant_id name version provider purpose scheme sealed wrapped_by share",
    ("hookseal_api", "UPDATE", "secret_records"): "state changed_at",
    ("hookseal_reveal", "SELECT", "secret_records"): "sealed share",
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
Connection = asyncpg.Connection
_UPDATE = "UPDATE hookseal.endpoints SET {} WHERE id = $1::text::uuid"
_NEXT = "secret_ref = regexp_replace(secret_ref, '[0-9]+$', '9'), generation = generation + 1"
_OTHER = "secret_ref = replace(secret_ref, 'endpoint-0', 'endpoint-1') || '0', generation = generation + 1"
_BACK = "secret_ref = previous_secret_ref, generation = generation + 1"
_KEPT = "previous_secret_ref = secret_ref, previous_scheme = scheme, previous_algorithm = algorithm"
_DAY = "previous_secret_expires_at = now() + interval '25 hours'"
_HOURS = "previous_secret_expires_at = now() + interval '23 hours'"
# Of which endpoint, and what is set.
REFUSED_OF_AN_ENDPOINT = [
    *(("plain", f"{column} = 'current'") for column in ("url", "scheme", "algorithm", "lead")),
    *(("plain", f"{column} = secret_ref") for column in ("headers_ref", "tls_ref")),
    ("disabled", "enabled = true"),
    ("disabled", "disabled_reason = 'nothing'"),
    ("plain", "disabled_at = now()"),
    # a pointer otherwise than a rotation by schedule moves it
    ("plain", "mac = '\\x00'"),
    ("plain", "generation = generation + 1"),
    ("plain", "generation = 9223372036854775807"),
    ("plain", "secret_ref = NULL, generation = generation + 1"),
    ("plain", "secret_updated_at = now()"),
    ("plain", _NEXT),
    ("plain", f"{_NEXT}, {_KEPT}, {_HOURS}"),
    ("plain", f"{_OTHER}, {_KEPT}, {_DAY}"),
    ("rotated", f"{_NEXT}, {_KEPT}, {_DAY}"),
    ("rotated", f"{_BACK}, {_KEPT}, {_DAY}"),
    ("rotated", "previous_secret_ref = NULL, generation = generation + 1"),
]
REFUSED = [
    # the material of secrets
    "UPDATE hookseal.secret_records SET sealed = (SELECT min(sealed) FROM hookseal.secret_records)",
    "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL",
    "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL WHERE state = 'previous'",
    "UPDATE hookseal.secret_records SET state = 'active' WHERE state = 'previous'",
    "UPDATE hookseal.secret_records SET state = 'retired', changed_at = now() - interval '2 days'",
    "UPDATE hookseal.secret_records SET changed_at = now() WHERE tenant_id = '_system'",
    """INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed)
       SELECT tenant_id, name, version + 1, provider, purpose, sealed FROM hookseal.secret_records
        WHERE tenant_id = '_system'""",
    # under the name of another, and what marks the installation at providers
    """INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)
       SELECT tenant_id, sequence + 100, at, 'jane/desk', action, subject, previous_mac, mac, mac_key_id
         FROM hookseal.audit_log""",
    "UPDATE hookseal.control SET token = gen_random_uuid() WHERE name = 'installation'",
]
ACCEPTED_OF_AN_ENDPOINT = [
    ("plain", "enabled = false, disabled_reason = 'x', disabled_at = now()"),
    ("plain", "first_failure_at = now(), last_failure_at = now()"),
    ("plain", f"{_NEXT}, {_KEPT}, {_DAY}, secret_updated_at = now(), mac = '\\x00'"),
]
ACCEPTED = [
    "UPDATE hookseal.secret_records SET state = 'retired', changed_at = now() WHERE state = 'previous'",
    """INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, previous_mac, mac, mac_key_id)
       SELECT tenant_id, sequence + 100, at, session_user || '/w', action, subject, previous_mac, mac, mac_key_id
         FROM hookseal.audit_log""",
]
_DESTROY = "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL WHERE state = 'retired'"
_RETIRED = """
UPDATE hookseal.secret_records SET state = 'retired', changed_at = now() - $1::interval WHERE state <> 'active'
"""


@pytest.mark.req("API-09", part="role")
async def test_each_role_has_its_table_rights(pool: Pool) -> None:
    found: dict[str, dict[str, str]] = {role: defaultdict(str) for role in ROLES}
    for row in await pool.fetch(_RIGHTS, list(ROLES)):
        found[row["role"]][row["name"]] += row["letter"]

    assert WHOLE == {
        role: {name: "".join(sorted(letters)) for name, letters in tables.items()} for role, tables in found.items()
    }


@pytest.mark.req("API-09", part="role")
async def test_each_role_has_its_column_rights(pool: Pool) -> None:
    found = await pool.fetch(_PARTS, list(ROLES))

    assert {right: set(columns.split()) for right, columns in PARTS.items()} == {
        (row["role"], row["word"], row["name"]): set(row["columns"]) for row in found
    }


@pytest.mark.parametrize(
    ("role", "reads"),
    [
        ("hookseal_producer", []),
        ("hookseal_publisher", []),
        ("hookseal_readonly", []),
        ("hookseal_worker", [*_HALVES, "secret_keys.check_value", "events.body"]),
        ("hookseal_api", ["secret_keys.check_value", "events.body"]),
        ("hookseal_reveal", ["secret_records.sealed", "secret_records.share"]),
        ("hookseal_operator", ["endpoints.secret", *_HALVES, "secret_keys.check_value", "events.body"]),
    ],
)
async def test_secrets_are_readable_by_few_roles(pool: Pool, role: str, reads: list[str]) -> None:
    """Only the operator reads plaintext secrets. Sealed ones are for workers, operators and the role that reveals."""
    assert reads == [column for column in _SECRET if await pool.fetchval(_READS, role, column)]


async def test_publishing_functions_have_their_callers(pool: Pool) -> None:
    found = await pool.fetch(
        "SELECT min(f.proname), array_agg(r.rolname::text ORDER BY r.rolname) FROM pg_roles AS r, pg_proc AS f"
        " WHERE r.rolname = ANY ($1) AND f.proname IN"
        " ('publish', 'publish_raw', 'publish_many', 'publish_event', 'publish_events', 'send_example')"
        " AND f.pronamespace = 'hookseal'::regnamespace"
        " AND has_function_privilege(r.oid, f.oid, 'EXECUTE') GROUP BY f.oid",
        list(ROLES),
    )
    may = ["hookseal_operator", "hookseal_producer", "hookseal_publisher"]

    names = ["publish", "publish_event", "publish_events", "publish_many", "publish_raw"]
    not_producers = ("send_example", ["hookseal_api", "hookseal_operator", "hookseal_publisher"])
    assert [*((name, may) for name in names), not_producers] == sorted(map(tuple, found))


async def test_no_role_logs_in(pool: Pool) -> None:
    """The roles are groups: none can log in, and none can create anything in the schema."""
    assert 0 == await pool.fetchval(
        "SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1) AND (rolcanlogin OR rolsuper OR rolcreaterole"
        " OR has_schema_privilege(oid, 'hookseal', 'CREATE'))",
        list(ROLES),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A connection of a login, with the role of workers or of the HTTP API, and the ids of three endpoints."""

    worker: "Connection[asyncpg.Record]"
    api: "Connection[asyncpg.Record]"
    plain: str
    rotated: str
    disabled: str


@pytest.fixture
async def scene(installation: Installation, database_url: str) -> AsyncIterator[Scene]:
    """Yield an endpoint, one in an overlap and a disabled one, all with secrets."""
    made = [
        (await installation.endpoint(url=f"https://receiver.example/{number}")).pointer.endpoint_id
        for number in range(3)
    ]
    await installation.rotate(made[1], overlap_seconds=86_400)
    await rows.change(installation.pool, "endpoints", made[2], enabled=False, disabled_reason="abuse")
    async with (
        login(installation.pool, database_url, "hookseal_worker") as (_, url),
        login(installation.pool, database_url, "hookseal_api") as (_, url_of_api),
    ):
        worker, api = await asyncpg.connect(url), await asyncpg.connect(url_of_api)
        try:
            yield Scene(worker=worker, api=api, plain=made[0], rotated=made[1], disabled=made[2])
        finally:
            await worker.close()
            await api.close()


async def _try(scene: Scene, statement: str, *arguments: str, by: str = "worker") -> str:
    """Run the statement in a transaction that is undone; return how it ended."""
    connection = getattr(scene, by)
    transaction = connection.transaction()
    await transaction.start()
    try:
        done = await connection.execute(statement, *arguments)
    except asyncpg.InsufficientPrivilegeError:
        return "denied"
    else:
        return "nothing" if done.endswith(" 0") else "done"
    finally:
        await transaction.rollback()


async def _set(scene: Scene, endpoint: str, what: str) -> str:
    return await _try(scene, _UPDATE.format(what), getattr(scene, endpoint))


@pytest.mark.req("SEC-02")
async def test_a_worker_writes_only_what_workers_write(scene: Scene) -> None:
    """Every statement that redirects, writes under the name of another, or destroys what is in use is denied."""
    assert dict.fromkeys(REFUSED_OF_AN_ENDPOINT, "denied") == {
        each: await _set(scene, *each) for each in REFUSED_OF_AN_ENDPOINT
    }
    assert dict.fromkeys(REFUSED, "denied") == {each: await _try(scene, each) for each in REFUSED}


@pytest.mark.req("SEC-02")
async def test_a_worker_writes_what_workers_write(scene: Scene) -> None:
    assert dict.fromkeys(ACCEPTED_OF_AN_ENDPOINT, "done") == {
        each: await _set(scene, *each) for each in ACCEPTED_OF_AN_ENDPOINT
    }
    assert dict.fromkeys(ACCEPTED, "done") == {each: await _try(scene, each) for each in ACCEPTED}


@pytest.mark.req("SEC-02")
async def test_a_version_is_destroyed_a_day_after_it_was_retired(scene: Scene, installation: Installation) -> None:
    await installation.pool.execute(_RETIRED, timedelta(hours=23))
    assert "denied" == await _try(scene, _DESTROY)
    await installation.pool.execute(_RETIRED, timedelta(hours=25))
    assert "done" == await _try(scene, _DESTROY)


# What the HTTP API writes of secrets: new versions, and the states that a rotation and a roll back give.
REFUSED_TO_API = [
    *(statement for statement in REFUSED if "'active'" not in statement),
    "SELECT sealed FROM hookseal.secret_records",
    "SELECT share FROM hookseal.secret_leftovers",
    "SELECT secret FROM hookseal.endpoints",
    "SELECT FROM hookseal.producers",
    "UPDATE hookseal.endpoints SET secret = 'x'",
    "UPDATE hookseal.secret_records SET provider = 'aws'",
    """INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed)
       VALUES ('_system', 'integrity', 99, 'db', 'integrity', '\\x00')""",
    "UPDATE hookseal.secret_records SET state = 'active', changed_at = now() WHERE state = 'destroyed'",
    "UPDATE hookseal.secret_keys SET state = 'destroyed'",
    "INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ('0123456789abcdef', 'staged', '')",
    "INSERT INTO hookseal.producers (role_name, tenant_id, role) VALUES (session_user, '*', session_user::regrole)",
    "UPDATE hookseal.control SET epoch = epoch + 1",
    "DELETE FROM hookseal.tenants",
    "UPDATE hookseal.api_tokens SET digest = digest",
    "SELECT hookseal.forbid_plaintext()",
    "SELECT hookseal.remove_events(1, now())",
]
ACCEPTED_OF_API = [
    "UPDATE hookseal.secret_records SET state = 'retired', changed_at = now() WHERE state = 'previous'",
    """UPDATE hookseal.secret_records SET state = 'previous', changed_at = now()
        WHERE state = 'retired' OR state = 'active' AND tenant_id = 'acme'""",
    "UPDATE hookseal.endpoints SET url = 'https://elsewhere.example/', enabled = true WHERE NOT enabled",
]


@pytest.mark.req("SEC-02")
@pytest.mark.req("API-09", part="role")
async def test_the_api_opens_and_replaces_no_secret_of_a_tenant(scene: Scene, installation: Installation) -> None:
    """It reads the installation's own secrets by a function, and those alone; it may roll back, and revive nothing."""
    await installation.rotate(EndpointId(scene.plain))
    await installation.pool.execute(_DESTROY)
    assert dict.fromkeys(REFUSED_TO_API, "denied") == {
        each: await _try(scene, each, by="api") for each in REFUSED_TO_API
    }
    assert dict.fromkeys(ACCEPTED_OF_API, "done") == {
        each: await _try(scene, each, by="api") for each in ACCEPTED_OF_API
    }
    own = await scene.api.fetch("SELECT tenant_id, name, sealed IS NOT NULL AS is_kept FROM hookseal.own_secrets()")
    assert {("_system", "integrity", True), ("_system", "sentinel", True)} == {tuple(row) for row in own}
    assert await installation.pool.fetchval("SELECT count(*) > 2 FROM hookseal.secret_records")
