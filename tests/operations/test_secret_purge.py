"""Purging retired secrets on a real database: only versions that nothing can need, audited, and resumable."""

import json
from itertools import count
from typing import Any

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import HooksealError, Refused, SecretDestroyed
from hookseal.ground.ids import OPERATOR_TENANT, SYSTEM_TENANT, EndpointId, TenantId
from hookseal.operations.endpoint import endpoints
from hookseal.operations.operator import Operator
from hookseal.operations.secret import purge_batch, purgeable
from hookseal.secrets.core import header_values
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_headers_name, endpoint_secret_name
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.store import records, retention
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.endpoint.test_rotation_crash import CutOff, content

pytestmark = pytest.mark.req("SEC-11")

TENANT = TenantId("acme")
DAYS = 90


async def aged(installation: Installation, *, days: int = DAYS) -> None:
    """Make every version older by that many days."""
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET changed_at = now() - make_interval(secs => $1 * 86400 + 1)", days
    )


async def states(installation: Installation, name: str = "webhook-endpoint-%") -> list[str]:
    """Return the states of the tenant's versions with such names, oldest first."""
    rows = await installation.pool.fetch(
        "SELECT state, sealed IS NULL AND key_id IS NULL AS is_empty FROM hookseal.secret_records"
        " WHERE tenant_id = 'acme' AND name LIKE $1 ORDER BY name, version",
        name,
    )
    assert all(row["is_empty"] == (row["state"] == "destroyed") for row in rows)
    return [row["state"] for row in rows]


async def purged(installation: Installation, tenant: TenantId = TENANT, *, days: int = DAYS) -> int:
    """Destroy a batch; the dry run must have the same number, unless the batch is full."""
    async with installation.pool.acquire() as connection:
        operator = installation.operator(connection)
        dry_run = await purgeable(operator, tenant, days=days)
        done = await purge_batch(operator, tenant, days=days)
    assert done == min(dry_run, retention.BATCH)
    return done


async def epoch(installation: Installation) -> int:
    """Return the cache epoch."""
    found: int = await installation.pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
    return found


async def test_only_long_retired_versions_are_destroyed(installation: Installation) -> None:
    """Only retired versions are destroyed, after their retention, once and audited; the others still sign."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, force=True)
    await installation.rotate(endpoint, overlap_seconds=60, force=True)
    assert ["retired", "previous", "active"] == await states(installation)
    await aged(installation, days=DAYS - 1)
    assert 0 == await purged(installation)
    await aged(installation)
    assert [TENANT] == await retention.tenants(installation.pool, days=DAYS)
    before = await epoch(installation)
    assert 1 == await purged(installation)
    assert ["destroyed", "previous", "active"] == await states(installation)
    assert 0 == await purged(installation)
    assert before + 1 == await epoch(installation)

    ref = SecretRef(provider=Provider.DB, tenant=TENANT, name=endpoint_secret_name(endpoint), version=1)
    entry = (await audited(installation.pool))[-1]
    assert ("secret.destroyed", f"secret:{ref}", {"state": "destroyed"}) == (
        entry["action"],
        entry["subject"],
        entry["after"],
    )
    assert {"state", "retired_at", "key_id"} == entry["before"].keys()
    with pytest.raises(SecretDestroyed):
        await installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
    async with installation.pool.acquire() as connection, connection.transaction():
        found = await pointer.lock(connection, tenant=TENANT, endpoint_id=endpoint)
    async with installation.unlocked.service.signers(found) as signers:
        assert ["3", "2"] == [signer.ref.rpartition(":")[2] for signer in signers]
    assert [None] == [each.broken for each in await log.verify(installation.pool, installation.unlocked.integrity)]


@pytest.mark.parametrize("column", ["secret_ref", "previous_secret_ref", "headers_ref", "tls_ref"])
async def test_a_version_in_a_pointer_is_kept(installation: Installation, column: str) -> None:
    """A version in a pointer is not destroyed, even if its record is retired."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, force=True)
    await aged(installation)
    ref = f"db:acme:{endpoint_secret_name(endpoint)}:1"
    update = f"UPDATE hookseal.endpoints SET {column} = $1 WHERE id = $2::text::uuid"  # noqa: S608 -- our columns
    await installation.pool.execute(update, ref, endpoint)
    assert 0 == await purged(installation)
    await installation.pool.execute(update, None, endpoint)
    assert 1 == await purged(installation)


async def test_a_version_in_a_claim_is_kept(installation: Installation) -> None:
    """A version in a claim is not destroyed until the claim has ended or its lease has expired."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    ledger = PostgresLedger(installation.pool, worker="w1", lease_seconds=45)
    [ring] = await installation.deliveries()
    claim = await ledger.claim(ring)
    assert claim is not None
    await installation.rotate(endpoint, force=True)
    assert 0 == await purged(installation, days=0)
    assert await ledger.release(claim, None)
    assert 1 == await purged(installation, days=0)

    assert await ledger.claim(ring) is not None
    await installation.rotate(endpoint, force=True)
    assert 0 == await purged(installation, days=0)
    await installation.pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")
    assert 1 == await purged(installation, days=0)
    assert ["destroyed", "destroyed", "active"] == await states(installation)


async def headed(installation: Installation, endpoint: EndpointId) -> None:
    """Give the endpoint a new version of its header values; the version before is retired at once."""
    name = endpoint_headers_name(endpoint)
    material = header_values.written({"x-key": SecretMaterial(b"value")})
    async with installation.pool.acquire() as connection, connection.transaction():
        store = installation.unlocked.store_on(connection)
        found = await pointer.lock(connection, tenant=TENANT, endpoint_id=endpoint)
        keep = store.put if found.headers_ref is None else store.rotate
        ref = await keep(TENANT, name, material, purpose=Purpose.ENDPOINT_HEADERS)
        await records.arrange(connection, active=ref, previous=None)
        await pointer.move(connection, installation.unlocked.integrity, found, headers_ref=str(ref))


async def test_header_values_are_purged(installation: Installation) -> None:
    """Header values are purged, too, but not while a claim from before their replacement is in flight."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await headed(installation, endpoint)
    ledger = PostgresLedger(installation.pool, worker="w1", lease_seconds=45)
    [early] = await installation.deliveries()
    before = await ledger.claim(early)
    assert before is not None
    await headed(installation, endpoint)
    assert ["retired", "active"] == await states(installation, "endpoint-headers-%")
    assert 0 == await purged(installation, days=0)
    [late] = await installation.deliveries()
    assert await ledger.claim(late) is not None
    assert await ledger.release(before, None)
    assert 1 == await purged(installation, days=0)
    assert ["destroyed", "active"] == await states(installation, "endpoint-headers-%")

    assert await ledger.claim(early) is not None
    async with installation.pool.acquire() as connection:
        await endpoints.delete_endpoint(installation.operator(connection), TENANT, endpoint)
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET state = 'retired' WHERE state = 'active' AND tenant_id = 'acme'"
    )
    assert 0 == await purged(installation, days=0)
    await installation.pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")
    assert 2 == await purged(installation, days=0)


async def test_the_installations_secrets_are_kept(installation: Installation) -> None:
    """Secrets of the installation are never purged, in whatever state their records are."""
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET state = 'retired', changed_at = now() - interval '900 days'"
    )
    assert [] == await retention.tenants(installation.pool, days=0)
    assert 0 == await purged(installation, SYSTEM_TENANT, days=0)


async def test_the_operators_endpoints_secrets_are_purged(installation: Installation) -> None:
    """The retired secrets of the operator's own endpoints are purged as those of other tenants are."""
    endpoint = (await installation.endpoint(OPERATOR_TENANT)).pointer.endpoint_id
    await installation.rotate(endpoint, tenant=OPERATOR_TENANT)
    await aged(installation)

    assert [OPERATOR_TENANT] == await retention.tenants(installation.pool, days=DAYS)
    assert 1 == await purged(installation, OPERATOR_TENANT)


async def test_a_deleted_endpoints_secrets_are_purged(installation: Installation) -> None:
    """The secrets of a deleted endpoint are purged; what they signed stays on record."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as connection:
        await endpoints.delete_endpoint(installation.operator(connection), TENANT, endpoint)
    await aged(installation)
    assert 1 == await purged(installation)
    assert ["destroyed"] == await states(installation)


async def test_a_long_list_is_purged_in_batches(installation: Installation) -> None:
    """Batches destroy a long list, each raises the cache epoch once, and another tenant's are not touched."""
    name = endpoint_secret_name((await installation.endpoint()).pointer.endpoint_id)
    await installation.endpoint("globex")
    await installation.pool.execute(
        "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, state)"
        " SELECT r.tenant_id, r.name, n, r.provider, r.purpose, r.sealed, 'retired'"
        " FROM hookseal.secret_records AS r, generate_series(2, 121) AS n"
        " WHERE r.purpose = 'webhook-signing' AND (r.name = $1 OR n < 5)",
        name,
    )
    await aged(installation)
    assert ["acme", "globex"] == await retention.tenants(installation.pool, days=DAYS)
    before = await epoch(installation)
    assert [50, 50, 20, 0] == [await purged(installation) for _ in range(4)]
    assert 3 == await epoch(installation) - before
    assert 120 == [row["action"] for row in await audited(installation.pool)].count("secret.destroyed")
    assert [TenantId("globex")] == await retention.tenants(installation.pool, days=DAYS)
    assert 3 == await purged(installation, TenantId("globex"))


async def test_a_purge_interrupted_at_any_statement_changes_nothing(
    installation: Installation, database_url: str
) -> None:
    """Cut before any of its statements, a batch has destroyed nothing; the next one destroys all."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    for _ in range(2):
        await installation.rotate(endpoint, force=True)
    await aged(installation)
    before: dict[str, list[dict[str, Any]]] = await content(installation)
    for statements in count():
        connection = await asyncpg.connect(database_url, connection_class=CutOff)
        connection.left = iter(range(statements))
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="ada@desk")
        try:
            assert 2 == await purge_batch(operator, TENANT, days=DAYS)
        except (HooksealError, asyncpg.InterfaceError, OSError):
            assert before == await content(installation), f"cut off before statement {statements + 1}"
        else:
            break
        finally:
            await connection.end(installation.pool)
    assert statements > 5
    assert ["destroyed", "destroyed", "active"] == await states(installation)


async def test_without_its_audit_row_nothing_is_destroyed(installation: Installation) -> None:
    """If the log of the tenant refuses rows, nothing is destroyed."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, force=True)
    await aged(installation)
    await installation.pool.execute("UPDATE hookseal.audit_heads SET sequence = 1 WHERE tenant_id = 'acme'")
    async with installation.pool.acquire() as connection:
        with pytest.raises(Refused):
            await purge_batch(installation.operator(connection), TENANT, days=DAYS)
    assert ["retired", "active"] == await states(installation)
    rows = await installation.pool.fetch("SELECT after::text FROM hookseal.audit_log WHERE tenant_id = 'acme'")
    assert "destroyed" not in json.dumps([row["after"] for row in rows])


async def test_a_locked_version_is_skipped(installation: Installation) -> None:
    """A locked version is skipped until the next purge, without waiting."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    for _ in range(2):
        await installation.rotate(endpoint, force=True)
    await aged(installation)
    async with installation.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM hookseal.secret_records WHERE tenant_id = 'acme' AND version = 1 FOR UPDATE"
        )
        assert 1 == await purged(installation)
    assert ["retired", "destroyed", "active"] == await states(installation)
    assert 1 == await purged(installation)
