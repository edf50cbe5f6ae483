"""Accepting what was put back, on a real database: what moved meanwhile, and what the log may vouch for."""

import asyncio
import os
from dataclasses import replace

import pytest

from hookseal.audit import log
from hookseal.dispatcher import waiting
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.errors import Conflict, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import rotation
from hookseal.operations.endpoint_update import update_endpoint
from hookseal.operations.endpoints import delete_endpoint
from hookseal.operations.findings import Finding, tell_put_back
from hookseal.operations.integrity import rotate_integrity_key
from hookseal.operations.purge import purge_batch
from hookseal.operations.restore import Accepted, accept_endpoint, accept_restore
from hookseal.secrets import put_back
from hookseal.secrets.boot import unlock
from hookseal.secrets.endpoint_headers import HeaderChange
from hookseal.secrets.errors import SecretDestroyed
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret
from tests.dispatcher.test_ledger_race import somebody_waits
from tests.doubles.stored import Installation, keyring

pytestmark = pytest.mark.req("SEC-24", part="accept")
ACME = TenantId("acme")
_COLUMNS = """
SELECT string_agg(attname, ', ') FROM pg_attribute
WHERE attrelid = 'hookseal.endpoints'::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped
"""


async def test_a_row_that_came_back_meanwhile_stays(installation: Installation) -> None:
    """A row that was lost when it was looked for, and is there again when it would be let go, loses nothing."""
    pool = installation.pool
    await installation.endpoint("aaaa")
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints WHERE tenant_id = 'acme'")
    await pool.execute("DELETE FROM hookseal.endpoints")
    columns = await pool.fetchval(_COLUMNS)
    async with pool.acquire() as accepting, pool.acquire() as other:
        async with other.transaction():
            await log.hold(other, TenantId("aaaa"))  # who accepts has read both, and waits at the first
            accept = asyncio.create_task(accept_restore(installation.operator(accepting), ()))
            await somebody_waits(pool)
            await pool.execute(f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept")  # noqa: S608 -- ours
        await accept

    deleted = await pool.fetch("SELECT tenant_id FROM hookseal.audit_log WHERE action = 'endpoint.deleted'")
    assert ["aaaa"] == [row["tenant_id"] for row in deleted]
    assert "pending" == (await installation.delivery(ring))["state"]
    assert ["active"] == [
        row["state"] for row in await pool.fetch("SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    ]


async def test_many_accept_at_once(installation: Installation) -> None:
    """Of many who accept the same lost endpoint one lets it go."""
    added = await installation.endpoint()
    await installation.pool.execute("DELETE FROM hookseal.endpoints")

    async def accept() -> None:
        async with installation.pool.acquire() as connection:
            await accept_endpoint(installation.operator(connection), ACME, added.pointer.endpoint_id)

    await asyncio.gather(*(accept() for _ in range(3)))

    assert 1 == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.audit_log WHERE action = 'endpoint.deleted'"
    )


async def test_the_log_vouches_for_no_generation_that_nobody_verified(installation: Installation) -> None:
    """A change that leaves the pointer alone says nothing of its generation, which somebody may have forged."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as connection:
        await connection.execute("UPDATE hookseal.endpoints SET generation = 1000000")
        operator = installation.operator(connection)
        await update_endpoint(operator, ACME, endpoint, {"max_attempts": 3}, own_drain_seconds=25)
        await connection.execute("UPDATE hookseal.endpoints SET generation = 1")

        assert [] == [one async for one in put_back.found(connection)]


async def test_who_wakes_waits_for_nobody_in_a_circle(installation: Installation) -> None:
    """Trying one endpoint, trying all, and letting their probes go: no deadlock, however often."""
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
                    await (waiting.probe(connection, ACME, endpoint) if one else waiting.probe_all(connection))

    await asyncio.gather(tried(one=True), tried(one=False), installation.settle())
    await installation.settle()
    assert await installation.pool.fetchval("SELECT count(probe_id) = 1 FROM hookseal.held_endpoints")


async def accepted(installation: Installation) -> Accepted:
    """Accept all."""
    async with installation.pool.acquire() as connection:
        return await accept_restore(installation.operator(connection), ())


async def rotate(installation: Installation, endpoint: EndpointId, *, overlap_seconds: int) -> None:
    """Rotate the endpoint's secret."""
    wanted = Wanted(
        tenant_id=ACME, endpoint_id=endpoint, overlap_seconds=overlap_seconds, secret=generate_signing_secret()
    )
    async with installation.pool.acquire() as connection:
        await rotation.rotate(installation.operator(connection), wanted)


@pytest.mark.parametrize(
    "spoil",
    [
        "DELETE FROM hookseal.secret_records WHERE tenant_id = 'acme'",
        "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL, key_id = NULL WHERE tenant_id = 'acme'",
    ],
)
async def test_material_that_is_gone(installation: Installation, spoil: str) -> None:
    """An endpoint without material is not accepted, and told what to do; that is then the one thing that works."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute(spoil)
    for _ in range(2):
        told = await accepted(installation)
        assert ([], ["record"]) == ([*told.endpoints], [found.kind for found, _ in told.refused])
        assert "rotate it with --overlap 0" in told.refused[0][1]
    with pytest.raises(Conflict, match="rotate with --overlap 0"):
        await rotate(installation, endpoint, overlap_seconds=60)

    await rotate(installation, endpoint, overlap_seconds=0)

    told = await accepted(installation)
    assert ([], []) == ([*told.endpoints], [*told.refused])
    assert [2] == [
        row["version"]
        for row in await installation.pool.fetch(
            "SELECT version FROM hookseal.secret_records WHERE tenant_id = 'acme' AND state = 'active'"
        )
    ]


async def test_header_values_that_were_put_back(installation: Installation) -> None:
    """Their record gets its work back as the signing secret's does, and the log knows the key that sealed it."""
    new = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
    added = await installation.add(new, headers={"x-key": b"value"})
    await installation.pool.execute("UPDATE hookseal.secret_records SET state = 'retired' WHERE tenant_id = 'acme'")

    assert ["record"] == [found.kind for found in (await accepted(installation)).endpoints]

    assert ["active", "active"] == [
        row["state"]
        for row in await installation.pool.fetch("SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    ]
    told = await installation.pool.fetch(
        "SELECT after->>'headers_ref' AS ref, after->>'key_id' AS key FROM hookseal.audit_log"
        " WHERE action = 'restore.accepted' AND after->>'headers_ref' IS NOT NULL"
    )
    assert [(added.pointer.headers_ref, await installation.unlocked.sealing_key_id(installation.pool))] == [
        tuple(row) for row in told
    ]


@pytest.mark.parametrize(
    ("which", "todo"),
    [
        ("secret_ref", "rotate it with --overlap 0"),
        ("previous_secret_ref", "end-overlap"),
        ("headers_ref", "--headers-file"),
    ],
)
async def test_each_ref_whose_material_is_gone(installation: Installation, which: str, todo: str) -> None:
    """It is said of which secret the material is gone; what is said to mend it does, and nothing is audited before."""
    new = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
    endpoint = (await installation.add(new, headers={"x-key": b"value"})).pointer.endpoint_id
    await rotate(installation, endpoint, overlap_seconds=600)
    ref = await installation.pool.fetchval(f"SELECT {which} FROM hookseal.endpoints")  # noqa: S608 -- ours
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET state = 'destroyed', sealed = NULL, key_id = NULL"
        " WHERE concat_ws(':', provider, tenant_id, name, version) = $1",
        ref,
    )
    before = await installation.pool.fetchval("SELECT count(*) FROM hookseal.audit_log WHERE tenant_id = 'acme'")
    for _ in range(2):
        told = await accepted(installation)
        assert ([], [True]) == ([*told.endpoints], [todo in why and ";" not in why for _, why in told.refused])
    assert before == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.audit_log WHERE tenant_id = 'acme'"
    )

    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        if which == "secret_ref":
            with pytest.raises(Conflict, match="roll back with --overlap 0"):
                await rotation.roll_back(operator, tenant=ACME, endpoint_id=endpoint, overlap_seconds=60)
            await rotation.roll_back(operator, tenant=ACME, endpoint_id=endpoint, overlap_seconds=0)
        elif which == "previous_secret_ref":
            with pytest.raises(SecretDestroyed, match="rotate the secret"):
                await rotation.roll_back(operator, tenant=ACME, endpoint_id=endpoint, overlap_seconds=0)
            await rotation.end_overlap(operator, tenant=ACME, endpoint_id=endpoint)
        else:
            anew = HeaderChange(given={"x-key": SecretMaterial(b"value")}, replaces_all=True)
            await update_endpoint(operator, ACME, endpoint, {"headers": anew}, own_drain_seconds=25)

    told = await accepted(installation)
    assert ([], []) == ([*told.endpoints], [*told.refused])


async def test_an_old_row_whose_material_is_gone(installation: Installation) -> None:
    """Its row is accepted, once, for only so it can be mended; and it is said that this does not do."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints")
    await rotate(installation, endpoint, overlap_seconds=0)
    columns = await installation.pool.fetchval(_COLUMNS)
    await installation.pool.execute("DELETE FROM hookseal.secret_records WHERE tenant_id = 'acme' AND version = 1")
    await installation.pool.execute("DELETE FROM hookseal.endpoints")
    await installation.pool.execute(
        f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept"  # noqa: S608 -- ours
    )
    for first in (True, False):
        told = await accepted(installation)
        assert ([], [("record", True, first)]) == (
            [*told.endpoints],
            [(found.kind, "rotate it with --overlap 0" in why, "its row counts" in why) for found, why in told.refused],
        )
    assert 3 == await installation.pool.fetchval("SELECT generation FROM hookseal.endpoints")

    await rotate(installation, endpoint, overlap_seconds=0)
    told = await accepted(installation)
    assert ([], []) == ([*told.endpoints], [*told.refused])


async def rotated_key_and_row(installation: Installation, endpoint: EndpointId) -> None:
    """Rotate the integrity key as another process does, and move the row under the new version."""
    other = replace(installation, unlocked=await unlock(installation.pool, Provider.DB, keyring()))
    async with installation.pool.acquire() as connection:
        operator = other.operator(connection)
        await rotate_integrity_key(operator, os.urandom)
        await update_endpoint(operator, ACME, endpoint, {"url": "https://new.example/"}, own_drain_seconds=25)


@pytest.mark.parametrize("alone", [False, True])
async def test_rows_under_a_newer_integrity_key(alone: bool, installation: Installation) -> None:
    """What moved under a version that this process did not know yet was not altered, and is accepted."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await rotated_key_and_row(installation, endpoint)
    await installation.pool.execute("UPDATE hookseal.secret_records SET state = 'retired' WHERE tenant_id = 'acme'")
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        told = await (accept_endpoint(operator, ACME, endpoint) if alone else accept_restore(operator, ()))
    assert (["record"], []) == ([found.kind for found in told.endpoints], [*told.refused])


async def test_rows_that_move_under_a_newer_integrity_key_meanwhile(installation: Installation) -> None:
    """The last look knows a version that was made since the first one."""
    await installation.endpoint("aaaa")
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("DELETE FROM hookseal.endpoints WHERE tenant_id = 'aaaa'")
    async with installation.pool.acquire() as accepting, installation.pool.acquire() as other:
        async with other.transaction():
            await log.hold(other, TenantId("aaaa"))
            accept = asyncio.create_task(accept_restore(installation.operator(accepting), ()))
            await somebody_waits(installation.pool)
            await rotated_key_and_row(installation, endpoint)
        told = await accept
    assert (["lost"], []) == ([found.kind for found in told.endpoints], [*told.refused])


async def test_what_was_altered_or_never_was(installation: Installation) -> None:
    """An altered row is not accepted, by itself or with all; an endpoint that nobody knows is not found."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.endpoints SET url = 'https://evil.example/'")
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        for told in (await accept_restore(operator, ()), await accept_endpoint(operator, ACME, endpoint)):
            assert [("altered", True)] == [(found.kind, "put back what it was" in why) for found, why in told.refused]
        with pytest.raises(NotFound):
            await accept_endpoint(operator, TenantId("bmce"), endpoint)


async def test_each_finding_is_audited_once(installation: Installation) -> None:
    """Reasons that take turns are told once each, until a restore is accepted; in a new epoch of restores anew."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    findings = [
        Finding(tenant_id=ACME, endpoint_id=endpoint, generation=1, reason=reason, restore_epoch=1)
        for reason in ("one", "other")
    ]
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        assert [True, True, *[False] * 4] == [await tell_put_back(operator, found) for found in findings * 3]
        await installation.pool.execute("UPDATE hookseal.secret_records SET state = 'retired' WHERE tenant_id = 'acme'")
        await accept_restore(operator, ())
        assert [True, False] == [await tell_put_back(operator, findings[0]) for _ in range(2)]
        in_next = replace(findings[0], restore_epoch=2)
        assert [True, False] == [await tell_put_back(operator, in_next) for _ in range(2)]


@pytest.mark.parametrize(("purged", "state"), [(False, "retired"), (True, "destroyed")])
async def test_secrets_of_a_deleted_endpoint(purged: bool, state: str, installation: Installation) -> None:
    """Records that come back without their endpoint are found, and are again what its deletion or a purge made them."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await rotate(installation, endpoint, overlap_seconds=60)
    await installation.pool.execute(
        "CREATE TABLE kept AS SELECT * FROM hookseal.secret_records WHERE tenant_id = 'acme'"
    )
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        await delete_endpoint(operator, ACME, endpoint)
        if purged:
            assert 2 == await purge_batch(operator, ACME, days=0)
        assert [] == [one async for one in put_back.found(connection)]
        await connection.execute(
            "UPDATE hookseal.secret_records AS r SET state = k.state, sealed = k.sealed, key_id = k.key_id"
            " FROM kept AS k WHERE k.tenant_id = r.tenant_id AND k.name = r.name AND k.version = r.version"
        )
        assert [("record", None)] == [(one.kind, one.generation) async for one in put_back.found(connection)]

        assert [endpoint] == [one.endpoint_id for one in (await accepted(installation)).endpoints]
        assert [] == [one async for one in put_back.found(connection)]
        assert [] == [*(await accepted(installation)).endpoints]
        states = await connection.fetch("SELECT DISTINCT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    assert [state] == [row["state"] for row in states]
