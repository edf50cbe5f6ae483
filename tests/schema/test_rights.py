"""What each role may do, and what the guards refuse."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest

from hookseal.ground.ids import EndpointId
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import rights
from hookseal.postgres.schema.roles import ROLES
from tests import rows
from tests.doubles.logins import login
from tests.doubles.stored import Installation
from tests.worker.leak_places import dump

pytestmark = pytest.mark.req("OPS-10")


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


# What somebody changes, what each role then has above the smallest set, and what it lacks.
CHANGED = {
    "GRANT UPDATE (url, name) ON hookseal.endpoints TO hookseal_worker":
        (["hookseal_worker: UPDATE (name, url) on table hookseal.endpoints"], []),
    "GRANT TRUNCATE ON hookseal.events TO hookseal_readonly":
        (["hookseal_readonly: TRUNCATE on table hookseal.events"], []),
    "GRANT DELETE ON hookseal.events TO PUBLIC": (["public: DELETE on table hookseal.events"], []),
    "GRANT SELECT ON hookseal.producers TO hookseal_api WITH GRANT OPTION": ([
        "hookseal_api: SELECT (granted_at, role, role_name, tenant_id) on table hookseal.producers",
        "hookseal_api: SELECT WITH GRANT OPTION (granted_at, role, role_name, tenant_id) on table hookseal.producers",
    ], []),
    "GRANT CREATE ON SCHEMA hookseal TO hookseal_producer": ([
        "hookseal_operator: CREATE on schema hookseal",  # it may grant that role, and is a member
        "hookseal_producer: CREATE on schema hookseal",
    ], []),
    # by membership
    "GRANT hookseal_reveal TO hookseal_producer":
        (["hookseal_producer: SELECT (sealed, share) on table hookseal.secret_records"], []),
    "REVOKE UPDATE (url, mac) ON hookseal.endpoints FROM hookseal_api":
        ([], ["hookseal_api: UPDATE (mac, url) on table hookseal.endpoints"]),
    "REVOKE ALL ON FUNCTION hookseal.remove_tokens() FROM hookseal_worker":
        ([], ["hookseal_worker: EXECUTE on function hookseal.remove_tokens()"]),
    "REVOKE SELECT ON hookseal.lines FROM hookseal_backup": (
        [], ["hookseal_backup: SELECT (endpoint_id, last_position, tenant_id) on table hookseal.lines"]
    ),
}  # fmt: skip


@pytest.mark.req("API-09", part="role")
async def test_each_role_has_the_rights_that_its_process_needs(pool: Pool) -> None:
    """The catalog has, for each role, what the one table declares: nothing above it, nothing missing."""
    assert set(rights.processes()) == {*ROLES, rights.EVERYBODY}
    assert rights.Comparison(above=(), missing=()) == await rights.compare(pool)


@pytest.mark.req("API-09", part="role")
async def test_each_right_above_or_missing_is_named(pool: Pool) -> None:
    found = {}
    async with pool.acquire() as connection:
        for change in CHANGED:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(change)
            compared = await rights.compare(connection)
            await transaction.rollback()
            found[change] = [str(each) for each in compared.above], [str(each) for each in compared.missing]

    assert CHANGED == found


@pytest.mark.req("API-09", part="role")
async def test_what_a_role_writes_is_granted_by_column(pool: Pool) -> None:
    """No role may insert or update whole tables, so that a new column is written by nobody until a process needs it."""
    whole = """
        SELECT r.rolname, c.relname, a.privilege_type
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
        WHERE c.relnamespace = 'hookseal'::regnamespace AND a.privilege_type IN ('INSERT', 'UPDATE', 'TRUNCATE')
          AND r.rolname = ANY ($1)
    """
    assert [] == await pool.fetch(whole, list(ROLES))


@pytest.mark.parametrize(
    ("role", "reads"),
    [
        ("hookseal_producer", []),
        ("hookseal_publisher", []),
        ("hookseal_readonly", []),
        ("hookseal_worker", [*_HALVES, "secret_keys.check_value", "events.body"]),
        ("hookseal_api", ["secret_keys.check_value", "events.body"]),
        ("hookseal_api_publisher", []),
        ("hookseal_reveal", ["secret_records.sealed", "secret_records.share"]),
        ("hookseal_backup", _SECRET),
        ("hookseal_operator", ["endpoints.secret", *_HALVES, "secret_keys.check_value", "events.body"]),
    ],
)
async def test_secrets_are_readable_by_few_roles(pool: Pool, role: str, reads: list[str]) -> None:
    """Operators and backups read plaintext secrets. Sealed ones are for workers and the role that reveals, too."""
    assert reads == [column for column in _SECRET if await pool.fetchval(_READS, role, column)]


@pytest.mark.req("OPS-10")
async def test_a_backup_needs_no_other_role(installation: Installation, database_url: str) -> None:
    """`pg_dump` with the login of a backup writes the sealed secrets, too."""
    await installation.endpoint()
    sealed = await installation.pool.fetchval("SELECT encode(min(sealed), 'hex') FROM hookseal.secret_records")
    async with login(installation.pool, database_url, "hookseal_backup") as (_, url):
        assert sealed.encode() in await dump(url, "--schema=hookseal")


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
    "UPDATE hookseal.token_keys SET public_key = public_key",
    "INSERT INTO hookseal.token_keys (key_id, public_key) VALUES ('2', '')",
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
