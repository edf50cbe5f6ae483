"""The TLS identity of an endpoint: sealed, under the MAC, audited by name, and retired with the endpoint."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hookseal.audit.chain import Action
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Malformed, NotFound, SecretTampered, StaleRow
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.update import Updated, update_endpoint
from hookseal.operations.restore import accept_endpoint
from hookseal.operations.secret import purge_batch
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras.tls_context import EndpointTls
from hookseal.secrets.extras.tls_identity import TlsChange, TlsIdentity, shown
from hookseal.secrets.key.compromise import Remedy
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.logbook import audited
from tests.doubles.master_keys import NEW as NEW_KEY
from tests.doubles.master_keys import OLD as OLD_KEY
from tests.doubles.master_keys import changed, holding, replaced
from tests.doubles.stored import Installation
from tests.operations.endpoint.test_headers import everything
from tests.operations.key.test_compromise import replace_exposed
from tests.worker.canary import client_key, search

pytestmark = pytest.mark.req("DEL-13", part="client-keys")

TENANT = TenantId("acme")
NEW = NewEndpoint(tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",))
AUTHORITY, OTHER = Authority(), Authority("other")
CLIENT, NEXT = AUTHORITY.client("first"), AUTHORITY.client("next")
BOTH = identity(CLIENT, AUTHORITY)
SEEN = {"client key": CLIENT.key, "next client key": NEXT.key}


async def added(installation: Installation, tls: TlsIdentity = BOTH) -> Pointer:
    """Add an endpoint with this identity."""
    return (await installation.add(NEW, tls=tls)).pointer


async def updated(installation: Installation, endpoint: EndpointId, change: TlsChange, **to: Any) -> Updated:
    """Change the identity, and these fields."""
    return await installation.act(update_endpoint, TENANT, endpoint, to | {"tls": change}, own_drain_seconds=25)


async def pointed(installation: Installation, endpoint: EndpointId) -> Pointer:
    async with installation.pool.acquire() as connection, connection.transaction():
        return await pointer.lock(connection, tenant=TENANT, endpoint_id=endpoint)


async def identity_of(installation: Installation, endpoint: EndpointId) -> EndpointTls | None:
    """Return the TLS identity that a worker would use now."""
    async with installation.unlocked.service.tls(await pointed(installation, endpoint)) as found:
        return found


async def states(installation: Installation) -> list[str]:
    """Return the states of the versions, oldest first."""
    rows = await installation.pool.fetch(
        "SELECT state FROM hookseal.secret_records WHERE name LIKE 'endpoint-tls-%' ORDER BY version"
    )
    return [row["state"] for row in rows]


async def shown_in_the_row(installation: Installation) -> Any:
    """Return the readable columns of the row."""
    return json.loads(await installation.pool.fetchval("SELECT tls_shown FROM hookseal.endpoints") or "null")


async def test_an_identity_is_stored_sealed(installation: Installation) -> None:
    found = await added(installation)

    assert f"db:acme:endpoint-tls-{found.endpoint_id}:1" == found.tls_ref
    installation.unlocked.integrity.verify(found)
    assert shown(BOTH) == await shown_in_the_row(installation)
    tls = await identity_of(installation, found.endpoint_id)
    assert tls is not None
    assert (found.tls_ref, 1) == (tls.key, len(tls.context.get_ca_certs()))
    (entry,) = await audited(installation.pool)
    assert (found.tls_ref, shown(BOTH)) == (entry["after"]["tls_ref"], entry["after"]["tls"])
    canaries = [client_key(name, key) for name, key in SEEN.items()]
    assert [] == search({"all rows": (await everything(installation.pool)).encode()}, canaries)


async def test_an_invalid_certificate_adds_nothing(installation: Installation) -> None:
    for days in ((-9, -1), (1, 9)):
        with pytest.raises(Malformed, match="certificate 1 of the file"):
            await added(installation, identity(AUTHORITY.client(days=days), None))
    assert (0, []) == (
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints"),
        await states(installation),
    )


async def test_each_part_is_replaced_kept_or_removed(installation: Installation) -> None:
    """Each part can be replaced, kept or removed: a new version, one generation, audited by fingerprint."""
    endpoint = (await added(installation)).endpoint_id
    first = await identity_of(installation, endpoint)
    after = identity(NEXT, AUTHORITY)
    assert after.client is not None
    answer = await updated(installation, endpoint, TlsChange(client=after.client))
    assert (("tls",), 2, shown(BOTH), shown(after)) == (
        answer.changed,
        answer.generation,
        answer.before["tls"],
        answer.after["tls"],
    )
    assert ["retired", "active"] == await states(installation)
    second = await identity_of(installation, endpoint)
    assert first is not None
    assert second is not None
    assert (first.key, first.context) != (second.key, second.context)
    *_, entry = await audited(installation.pool)
    ref = f"db:acme:endpoint-tls-{endpoint}"
    assert (f"{ref}:1", f"{ref}:2", True) == (
        entry["before"]["tls_ref"],
        entry["after"]["tls_ref"],
        entry["after"]["key_id"] is not None,
    )

    nothing = await updated(installation, endpoint, TlsChange(client=after.client))
    assert Updated(changed=(), generation=2) == nothing
    await updated(installation, endpoint, TlsChange(without_client=True))
    assert {"client_certificate": None, "authorities": (shown(BOTH) or {})["authorities"]} == await shown_in_the_row(
        installation
    )
    await updated(installation, endpoint, TlsChange(without_authorities=True))
    assert None is (await pointed(installation, endpoint)).tls_ref
    assert (None, None) == (await identity_of(installation, endpoint), await shown_in_the_row(installation))
    assert {"retired"} == set(await states(installation))
    for change in (TlsChange(without_client=True), TlsChange(without_authorities=True)):
        with pytest.raises(NotFound):
            await updated(installation, endpoint, change)


async def test_a_new_identity_releases_a_held_delivery(installation: Installation) -> None:
    endpoint = (await added(installation)).endpoint_id
    [ring] = await installation.deliveries()
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
        " WHERE name LIKE 'endpoint-tls-%'"
    )
    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret', next_attempt_at = now() + interval '1 h'"
    )
    with pytest.raises(SecretTampered):
        await updated(installation, endpoint, TlsChange(client=BOTH.client))
    await updated(installation, endpoint, TlsChange(client=BOTH.client, authorities=BOTH.authorities))
    await installation.settle()
    row = await installation.delivery(ring)
    assert row["waiting_for"] is None
    assert row["next_attempt_at"] <= datetime.now(UTC) + timedelta(seconds=1)


async def test_a_database_writer_cannot_change_an_identity(installation: Installation) -> None:
    found = await added(installation)
    stranger = replace(NEW, url="https://receiver.example/other")
    others = (await installation.add(stranger, tls=identity(NEXT, OTHER))).pointer.tls_ref
    pool = installation.pool
    for text in (None, others, found.secret_ref, "x"):
        await pool.execute(
            "UPDATE hookseal.endpoints SET tls_ref = $1 WHERE id = $2::text::uuid", text, found.endpoint_id
        )
        altered = await pointed(installation, found.endpoint_id)
        with pytest.raises(SecretTampered, match="altered"):
            async with installation.unlocked.service.signers(altered):
                pytest.fail("signed")
    await pool.execute(
        "UPDATE hookseal.endpoints SET tls_ref = $1 WHERE id = $2::text::uuid", found.tls_ref, found.endpoint_id
    )
    await pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints WHERE tls_ref = $1", found.tls_ref)
    await updated(installation, found.endpoint_id, TlsChange(client=identity(NEXT, None).client))
    await pool.execute(
        "UPDATE hookseal.endpoints AS e SET tls_ref = k.tls_ref, generation = k.generation, mac = k.mac"
        " FROM kept AS k WHERE k.id = e.id"
    )
    with pytest.raises(StaleRow):
        await identity_of(installation, found.endpoint_id)


async def test_a_stale_record_is_refused_until_accepted(installation: Installation) -> None:
    found = await added(installation)
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET state = 'retired' WHERE name LIKE 'endpoint-tls-%'"
    )
    with pytest.raises(StaleRow, match="is retired and its endpoint has it as active"):
        await identity_of(installation, found.endpoint_id)
    accepted = await installation.act(accept_endpoint, TENANT, found.endpoint_id)
    assert (1, 0) == (len(accepted.endpoints), len(accepted.refused))
    assert await identity_of(installation, found.endpoint_id) is not None


async def test_a_deleted_record_is_not_accepted(installation: Installation) -> None:
    found = await added(installation)
    await installation.pool.execute("DELETE FROM hookseal.secret_records WHERE name LIKE 'endpoint-tls-%'")
    accepted = await installation.act(accept_endpoint, TENANT, found.endpoint_id)
    [(_, why)] = accepted.refused
    assert "--client-cert" in why
    await updated(installation, found.endpoint_id, TlsChange(client=BOTH.client, without_authorities=True))
    assert f"db:acme:endpoint-tls-{found.endpoint_id}:2" == (await pointed(installation, found.endpoint_id)).tls_ref


async def test_unused_versions_are_purged(installation: Installation) -> None:
    endpoint = (await added(installation)).endpoint_id
    ledger = PostgresLedger(installation.pool, worker="w1", lease_seconds=45)
    [ring] = await installation.deliveries()
    claim = await ledger.claim(ring)
    assert claim is not None
    assert claim.target is not None
    assert f"db:acme:endpoint-tls-{endpoint}:1" == claim.target.pointer.tls_ref
    await updated(installation, endpoint, TlsChange(client=identity(NEXT, None).client))

    async def purged() -> int:
        return await installation.act(purge_batch, TENANT, days=0)

    assert (0, ["retired", "active"]) == (await purged(), await states(installation))
    await ledger.release(claim, None)
    assert (1, ["destroyed", "active"]) == (await purged(), await states(installation))
    await installation.act(delete_endpoint, TENANT, endpoint)
    assert ["destroyed", "retired"] == await states(installation)
    assert 2 == await purged()
    assert ["destroyed", "destroyed"] == await states(installation)
    *_, deleted = [row for row in await audited(installation.pool) if row["action"] == Action.ENDPOINT_DELETED]
    assert f"db:acme:endpoint-tls-{endpoint}:2" == deleted["before"]["tls_ref"]


@pytest.mark.req("SEC-05")
async def test_a_re_wrap_includes_identities(installation: Installation) -> None:
    """A re-wrap includes TLS identities; after a leak of the key each is named until its owner replaces it."""
    endpoint = (await added(installation)).endpoint_id
    process = await changed(installation, OLD_KEY, NEW_KEY)
    for _ in range(2):
        [tls] = [each for each in await replace_exposed(process) if each.exposed.remedy is Remedy.NEW_CLIENT_KEY]
        assert ((await pointed(installation, endpoint)).tls_ref, None) == (tls.exposed.ref, tls.error)
    await replaced(process, OLD_KEY)
    after = await holding(installation, NEW_KEY)
    assert await identity_of(after, endpoint) is not None
    await updated(after, endpoint, TlsChange(client=identity(NEXT, None).client))
    assert {Remedy.NONE} == {each.exposed.remedy for each in await replace_exposed(after)}
