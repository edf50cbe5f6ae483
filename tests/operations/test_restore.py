"""Accepting stale rows on a real database: concurrent changes, and what the audit log can prove."""

import asyncio
import os

import pytest

from hookseal.audit import log
from hookseal.dispatcher.store import held
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, NotFound, SecretDestroyed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.audit_reports import Stale, audit_stale
from hookseal.operations.endpoint import rotation
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.operations.restore import Accepted, accept_endpoint, accept_restore
from hookseal.operations.secret import purge_batch
from hookseal.secrets import restore
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from tests import rows
from tests.dispatcher.test_ledger import wait_for_a_blocked_connection
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, keyring

pytestmark = pytest.mark.req("SEC-24", part="accept")
ACME = TenantId("acme")
_COLUMNS = """
SELECT string_agg(attname, ', ') FROM pg_attribute
WHERE attrelid = 'hookseal.endpoints'::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped
"""


async def test_a_row_restored_meanwhile_is_not_deleted(installation: Installation) -> None:
    pool = installation.pool
    await installation.endpoint("aaaa")
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints WHERE tenant_id = 'acme'")
    await pool.execute("DELETE FROM hookseal.endpoints")
    columns = await pool.fetchval(_COLUMNS)
    async with pool.acquire() as accepting, pool.acquire() as other:
        async with other.transaction():
            await log.lock_chain(other, TenantId("aaaa"))  # the acceptance has read both, and waits at the first
            accept = asyncio.create_task(accept_restore(installation.operator(accepting), ()))
            await wait_for_a_blocked_connection(pool)
            await pool.execute(f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept")  # noqa: S608 -- ours
        await accept

    deleted = await pool.fetch("SELECT tenant_id FROM hookseal.audit_log WHERE action = 'endpoint.deleted'")
    assert ["aaaa"] == [row["tenant_id"] for row in deleted]
    assert "pending" == (await installation.delivery(ring))["state"]
    assert ["active"] == [
        row["state"] for row in await pool.fetch("SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    ]


async def test_of_concurrent_acceptances_one_records_the_deletion(installation: Installation) -> None:
    added = await installation.endpoint()
    await installation.pool.execute("DELETE FROM hookseal.endpoints")

    async def accept() -> None:
        await installation.act(accept_endpoint, ACME, added.pointer.endpoint_id)

    await asyncio.gather(*(accept() for _ in range(3)))

    assert 1 == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.audit_log WHERE action = 'endpoint.deleted'"
    )


async def test_an_update_audits_no_unverified_generation(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as connection:
        await connection.execute("UPDATE hookseal.endpoints SET generation = 1000000")
        operator = installation.operator(connection)
        await update_endpoint(operator, ACME, endpoint, {"max_attempts": 3}, own_drain_seconds=25)
        await connection.execute("UPDATE hookseal.endpoints SET generation = 1")

        assert [] == [one async for one in restore.find_stale(connection)]


async def test_concurrent_releases_do_not_deadlock(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.deliveries()
    await installation.pool.execute(
        "INSERT INTO hookseal.deliveries"
        " (tenant_id, id, endpoint_id, event_id, replay_of, state, waiting_for, next_attempt_at)"
        " SELECT tenant_id, gen_random_uuid(), endpoint_id, event_id, id, 'pending', 'secret', now()"
        " FROM hookseal.deliveries, generate_series(1, 2000); ANALYZE hookseal.deliveries"
    )

    async def tried(*, one: bool) -> None:
        async with installation.pool.acquire() as connection:
            for _ in range(15):
                async with installation.operator(connection).changing():
                    await (held.probe(connection, ACME, endpoint) if one else held.probe_all(connection))

    await asyncio.gather(tried(one=True), tried(one=False), installation.settle())
    await installation.settle()
    assert await installation.pool.fetchval("SELECT count(probe_id) = 1 FROM hookseal.held_endpoints")


async def accepted(installation: Installation) -> Accepted:
    return await installation.act(accept_restore, ())


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM hookseal.secret_records WHERE tenant_id = 'acme'",
        "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL WHERE tenant_id = 'acme'",
    ],
)
async def test_an_endpoint_without_its_secret_is_not_accepted(installation: Installation, statement: str) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute(statement)
    for _ in range(2):
        answer = await accepted(installation)
        assert ([], ["record"]) == ([*answer.endpoints], [found.kind for found, _ in answer.refused])
        assert "rotate it with --overlap 0" in answer.refused[0][1]
    with pytest.raises(Conflict) as caught:
        await installation.rotate(endpoint, overlap_seconds=60)
    assert "rotate with --overlap 0" == caught.value.advice

    await installation.rotate(endpoint, overlap_seconds=0)

    answer = await accepted(installation)
    assert ([], []) == ([*answer.endpoints], [*answer.refused])
    assert [2] == [
        row["version"]
        for row in await installation.pool.fetch(
            "SELECT version FROM hookseal.secret_records WHERE tenant_id = 'acme' AND state = 'active'"
        )
    ]


async def test_accepting_activates_header_values(installation: Installation) -> None:
    new = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
    added = await installation.add(new, headers={"x-key": b"value"})
    await installation.pool.execute("UPDATE hookseal.secret_records SET state = 'retired' WHERE tenant_id = 'acme'")

    assert ["record"] == [found.kind for found in (await accepted(installation)).endpoints]

    assert ["active", "active"] == [
        row["state"]
        for row in await installation.pool.fetch("SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    ]
    answer = await installation.pool.fetch(
        "SELECT after->>'headers_ref' AS ref, after->>'key_id' AS key FROM hookseal.audit_log"
        " WHERE action = 'restore.accepted' AND after->>'headers_ref' IS NOT NULL"
    )
    assert [(added.pointer.headers_ref, await installation.unlocked.sealing_key_id(installation.pool))] == [
        tuple(row) for row in answer
    ]


@pytest.mark.parametrize(
    ("which", "todo"),
    [
        ("secret_ref", "rotate it with --overlap 0"),
        ("previous_secret_ref", "end-overlap"),
        ("headers_ref", "--headers-file"),
    ],
)
async def test_a_missing_secret_has_its_repair(installation: Installation, which: str, todo: str) -> None:
    new = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
    endpoint = (await installation.add(new, headers={"x-key": b"value"})).pointer.endpoint_id
    await installation.rotate(endpoint, overlap_seconds=600)
    ref = await installation.pool.fetchval(f"SELECT {which} FROM hookseal.endpoints")  # noqa: S608 -- ours
    await rows.change(installation.pool, "secret_records", ref, state="destroyed", sealed=None)
    before = await installation.pool.fetchval("SELECT count(*) FROM hookseal.audit_log WHERE tenant_id = 'acme'")
    for _ in range(2):
        answer = await accepted(installation)
        assert ([], [True]) == ([*answer.endpoints], [todo in why and ";" not in why for _, why in answer.refused])
    assert before == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.audit_log WHERE tenant_id = 'acme'"
    )

    if which == "secret_ref":
        with pytest.raises(Conflict) as caught:
            await installation.act(rotation.roll_back, tenant=ACME, endpoint_id=endpoint, overlap_seconds=60)
        assert "roll back with --overlap 0" == caught.value.advice
        await installation.act(rotation.roll_back, tenant=ACME, endpoint_id=endpoint, overlap_seconds=0)
    elif which == "previous_secret_ref":
        with pytest.raises(SecretDestroyed, match="rotate the secret"):
            await installation.act(rotation.roll_back, tenant=ACME, endpoint_id=endpoint, overlap_seconds=0)
        await installation.act(rotation.end_overlap, tenant=ACME, endpoint_id=endpoint)
    else:
        anew = HeaderChange(given={"x-key": SecretMaterial(b"value")}, replaces_all=True)
        await installation.act(update_endpoint, ACME, endpoint, {"headers": anew}, own_drain_seconds=25)

    answer = await accepted(installation)
    assert ([], []) == ([*answer.endpoints], [*answer.refused])


async def test_an_old_row_without_its_secret_is_accepted_once(installation: Installation) -> None:
    """Its row is accepted once, so that it can be repaired, and the error says that a rotation is still needed."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints")
    await installation.rotate(endpoint, overlap_seconds=0)
    columns = await installation.pool.fetchval(_COLUMNS)
    await installation.pool.execute("DELETE FROM hookseal.secret_records WHERE tenant_id = 'acme' AND version = 1")
    await installation.pool.execute("DELETE FROM hookseal.endpoints")
    await installation.pool.execute(
        f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept"  # noqa: S608 -- ours
    )
    for first in (True, False):
        answer = await accepted(installation)
        assert ([], [("record", True, first)]) == (
            [*answer.endpoints],
            [
                (found.kind, "rotate it with --overlap 0" in why, "its row counts" in why)
                for found, why in answer.refused
            ],
        )
    assert 3 == await installation.pool.fetchval("SELECT generation FROM hookseal.endpoints")

    await installation.rotate(endpoint, overlap_seconds=0)
    answer = await accepted(installation)
    assert ([], []) == ([*answer.endpoints], [*answer.refused])


async def rotated_key_and_row(installation: Installation, endpoint: EndpointId) -> None:
    """Rotate the integrity key as another process, and move the row under the new version."""
    other = replace(installation, unlocked=await unlock(installation.pool, Provider.DB, keyring()))
    await other.act(rotate_integrity_key, os.urandom)
    await other.act(update_endpoint, ACME, endpoint, {"url": "https://new.example/"}, own_drain_seconds=25)


@pytest.mark.parametrize("alone", [False, True])
async def test_a_row_under_a_newer_integrity_key_is_accepted(alone: bool, installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await rotated_key_and_row(installation, endpoint)
    await installation.pool.execute("UPDATE hookseal.secret_records SET state = 'retired' WHERE tenant_id = 'acme'")
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        answer = await (accept_endpoint(operator, ACME, endpoint) if alone else accept_restore(operator, ()))
    assert (["record"], []) == ([found.kind for found in answer.endpoints], [*answer.refused])


async def test_the_final_check_uses_newer_versions(installation: Installation) -> None:
    await installation.endpoint("aaaa")
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("DELETE FROM hookseal.endpoints WHERE tenant_id = 'aaaa'")
    async with installation.pool.acquire() as accepting, installation.pool.acquire() as other:
        async with other.transaction():
            await log.lock_chain(other, TenantId("aaaa"))
            accept = asyncio.create_task(accept_restore(installation.operator(accepting), ()))
            await wait_for_a_blocked_connection(installation.pool)
            await rotated_key_and_row(installation, endpoint)
        answer = await accept
    assert (["lost"], []) == ([found.kind for found in answer.endpoints], [*answer.refused])


async def test_an_altered_or_unknown_endpoint_is_not_accepted(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.endpoints SET url = 'https://evil.example/'")
    for answer in (await installation.act(accept_restore, ()), await installation.act(accept_endpoint, ACME, endpoint)):
        assert [("altered", True)] == [(found.kind, "restore what it was" in why) for found, why in answer.refused]
    with pytest.raises(NotFound):
        await installation.act(accept_endpoint, TenantId("bmce"), endpoint)


async def test_each_finding_is_audited_once(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    findings = [
        Stale(tenant_id=ACME, endpoint_id=endpoint, generation=1, reason=reason, restore_epoch=1)
        for reason in ("one", "other")
    ]
    assert [True, True, *[False] * 4] == [await installation.act(audit_stale, found) for found in findings * 3]
    await installation.pool.execute("UPDATE hookseal.secret_records SET state = 'retired' WHERE tenant_id = 'acme'")
    await installation.act(accept_restore, ())
    assert [True, False] == [await installation.act(audit_stale, findings[0]) for _ in range(2)]
    in_next = replace(findings[0], restore_epoch=2)
    assert [True, False] == [await installation.act(audit_stale, in_next) for _ in range(2)]


@pytest.mark.parametrize(("purged", "state"), [(False, "retired"), (True, "destroyed")])
async def test_restored_secrets_of_a_deleted_endpoint_are_destroyed_again(
    purged: bool, state: str, installation: Installation
) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, overlap_seconds=60)
    await installation.pool.execute(
        "CREATE TABLE kept AS SELECT * FROM hookseal.secret_records WHERE tenant_id = 'acme'"
    )
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        await delete_endpoint(operator, ACME, endpoint)
        if purged:
            assert 2 == await purge_batch(operator, ACME, days=0)
        assert [] == [one async for one in restore.find_stale(connection)]
        await connection.execute(
            "UPDATE hookseal.secret_records AS r SET state = k.state, sealed = k.sealed"
            " FROM kept AS k WHERE k.tenant_id = r.tenant_id AND k.name = r.name AND k.version = r.version"
        )
        assert [("record", None)] == [(one.kind, one.generation) async for one in restore.find_stale(connection)]

        assert [endpoint] == [one.endpoint_id for one in (await accepted(installation)).endpoints]
        assert [] == [one async for one in restore.find_stale(connection)]
        assert [] == [*(await accepted(installation)).endpoints]
        states = await connection.fetch("SELECT DISTINCT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    assert [state] == [row["state"] for row in states]


async def states(installation: Installation) -> list[str]:
    """Return the state of each version of acme's secret, oldest first."""
    found = await installation.pool.fetch(
        "SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
    )
    return [row["state"] for row in found]


async def test_an_accepted_overlap_sets_the_states_of_its_records(installation: Installation) -> None:
    """A row from an overlap that was revoked later is accepted, and both of its secrets sign again."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, overlap_seconds=600)
    await installation.pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints")
    await installation.rotate(endpoint, overlap_seconds=0)
    assert ["retired", "retired", "active"] == await states(installation)
    await installation.pool.execute(
        "UPDATE hookseal.endpoints AS e SET secret_ref = k.secret_ref, generation = k.generation, mac = k.mac,"
        " previous_secret_ref = k.previous_secret_ref, previous_scheme = k.previous_scheme,"
        " previous_secret_expires_at = k.previous_secret_expires_at, previous_algorithm = k.previous_algorithm"
        " FROM kept AS k"
    )
    assert [endpoint] == [one.endpoint_id for one in (await accepted(installation)).endpoints]
    assert ["previous", "active", "retired"] == await states(installation)
    async with installation.pool.acquire() as connection:
        assert [] == [one async for one in restore.find_stale(connection)]


@pytest.mark.req("SEC-24", part="stale")
async def test_a_restored_record_is_destroyed_again(installation: Installation) -> None:
    """A destroyed record that came back is stale and, once accepted, destroyed again; a deleted one is stale, too."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, overlap_seconds=0)
    await installation.pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.secret_records")
    assert 1 == await installation.act(purge_batch, ACME, days=0)
    await installation.pool.execute(
        "UPDATE hookseal.secret_records AS r SET state = k.state, sealed = k.sealed"
        " FROM kept AS k WHERE k.tenant_id = r.tenant_id AND k.name = r.name AND k.version = r.version"
    )
    async with installation.pool.acquire() as connection:
        assert ["record"] == [one.kind async for one in restore.find_stale(connection)]
        await accepted(installation)
        assert [] == [one async for one in restore.find_stale(connection)]
        assert ["destroyed", "active"] == await states(installation)
        await rows.remove(connection, "secret_records", where="tenant_id = 'acme' AND version = 2")
        assert 1 == len([one async for one in restore.find_stale(connection)])


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_an_integrity_key_number_is_not_used_twice(installation: Installation) -> None:
    """A version number whose record was deleted is not used again, since old MACs would then not verify."""
    await installation.act(rotate_integrity_key, os.urandom)
    await rows.remove(installation.pool, "secret_records", where="name = 'integrity' AND version = 2")
    assert "3" == (await installation.act(rotate_integrity_key, os.urandom)).key_id
