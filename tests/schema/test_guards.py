"""What the role of workers may not write, although it may write the columns: tried with SQL, by a real login."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import asyncpg
import pytest

from tests.doubles.logins import login
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("OPS-10"), pytest.mark.req("SEC-02")]
Connection = asyncpg.Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A connection of a login with the role of workers, and the ids of three endpoints."""

    worker: "Connection[asyncpg.Record]"
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
    await installation.pool.execute(
        "UPDATE hookseal.endpoints SET enabled = false, disabled_reason = 'abuse' WHERE id = $1::text::uuid", made[2]
    )
    async with login(installation.pool, database_url, "hookseal_worker") as (_, url):
        worker = await asyncpg.connect(url)
        try:
            yield Scene(worker=worker, plain=made[0], rotated=made[1], disabled=made[2])
        finally:
            await worker.close()


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


async def _try(scene: Scene, statement: str, *arguments: str) -> str:
    """Run the statement in a transaction that is undone; return how it ended."""
    transaction = scene.worker.transaction()
    await transaction.start()
    try:
        done = await scene.worker.execute(statement, *arguments)
    except asyncpg.InsufficientPrivilegeError:
        return "denied"
    else:
        return "nothing" if done.endswith(" 0") else "done"
    finally:
        await transaction.rollback()


async def _set(scene: Scene, endpoint: str, what: str) -> str:
    return await _try(scene, _UPDATE.format(what), getattr(scene, endpoint))


async def test_a_worker_writes_only_what_workers_write(scene: Scene) -> None:
    """Every statement that redirects, writes under the name of another, or destroys what is in use is denied."""
    assert dict.fromkeys(REFUSED_OF_AN_ENDPOINT, "denied") == {
        each: await _set(scene, *each) for each in REFUSED_OF_AN_ENDPOINT
    }
    assert dict.fromkeys(REFUSED, "denied") == {each: await _try(scene, each) for each in REFUSED}


async def test_a_worker_writes_what_workers_write(scene: Scene) -> None:
    """The guards let pass what a worker does by itself."""
    assert dict.fromkeys(ACCEPTED_OF_AN_ENDPOINT, "done") == {
        each: await _set(scene, *each) for each in ACCEPTED_OF_AN_ENDPOINT
    }
    assert dict.fromkeys(ACCEPTED, "done") == {each: await _try(scene, each) for each in ACCEPTED}


async def test_a_version_is_destroyed_a_day_after_it_was_retired(scene: Scene, installation: Installation) -> None:
    """A worker destroys what was retired more than a day ago, and nothing that was retired later."""
    await installation.pool.execute(_RETIRED, timedelta(hours=23))
    assert "denied" == await _try(scene, _DESTROY)
    await installation.pool.execute(_RETIRED, timedelta(hours=25))
    assert "done" == await _try(scene, _DESTROY)
