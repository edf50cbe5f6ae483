"""A malicious database writer cannot make revoked or deleted secrets sign again."""

import json

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import KeyRetired, StaleRow
from hookseal.ground.ids import TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.restore import accept_restore
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.envelope import seal
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import Signer, generate_signing_secret
from tests import rows
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, keyring
from tests.secrets.samples import SECOND, register

pytestmark = [pytest.mark.req("SEC-24", part="sql-attacks"), pytest.mark.req("SEC-08")]

TENANT = TenantId("acme")
NEW = NewEndpoint(tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",))


def signature_by(secret: SecretMaterial | None, pointer: Pointer) -> str:
    assert secret is not None
    signer = Signer("db:x:x:1", secret, Scheme(pointer.scheme), Algorithm.HMAC)
    return signer.sign(b"x")


async def test_a_version_number_is_not_used_again(installation: Installation) -> None:
    added = await installation.add(NEW)
    endpoint = added.pointer.endpoint_id
    leaked = await installation.rotate(endpoint)
    assert [signature_by(leaked.secret, added.pointer)] == await installation.signed(await installation.claimed())

    await installation.pool.execute("DELETE FROM hookseal.secret_records WHERE version = 2 AND tenant_id = 'acme'")
    revoked = await installation.rotate(endpoint)

    assert str(replace(SecretRef.parse(leaked.secret_ref), version=3)) == revoked.secret_ref
    assert [signature_by(revoked.secret, added.pointer)] == await installation.signed(await installation.claimed())


async def test_deleted_header_values_are_not_sent(installation: Installation) -> None:
    added = await installation.add(NEW, headers={"x-token": b"old"})
    async with installation.unlocked.service.headers(await installation.claimed()) as values:
        assert b"old" == values["x-token"].reveal()

    await installation.pool.execute("DELETE FROM hookseal.secret_records WHERE name LIKE 'endpoint-headers%'")
    change = HeaderChange(given={"x-token": SecretMaterial(b"new")}, replaces_all=True)
    await installation.act(
        update_endpoint, TENANT, added.pointer.endpoint_id, {"headers": change}, own_drain_seconds=25
    )

    async with installation.unlocked.service.headers(await installation.claimed()) as values:
        assert b"new" == values["x-token"].reveal()


async def test_a_deleted_endpoint_stays_deleted(installation: Installation) -> None:
    added = await installation.add(NEW)
    endpoint = added.pointer.endpoint_id
    await installation.rotate(endpoint)
    [ring] = await installation.deliveries()
    await installation.pool.execute(
        "CREATE TABLE kept AS SELECT * FROM hookseal.endpoints;"
        "CREATE TABLE records AS SELECT * FROM hookseal.secret_records;"
        "UPDATE hookseal.endpoints SET generation = 0"
    )
    await installation.act(delete_endpoint, TENANT, endpoint)

    columns = await installation.pool.fetchval(
        "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'hookseal.endpoints'::regclass"
        " AND attnum > 0 AND attgenerated = '' AND NOT attisdropped"
    )
    await installation.pool.execute(
        f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept;"  # noqa: S608 -- columns of ours
        "UPDATE hookseal.secret_records AS r SET state = k.state FROM records AS k"
        " WHERE (k.tenant_id, k.name, k.version) = (r.tenant_id, r.name, r.version);"
        "UPDATE hookseal.deliveries SET state = 'pending', next_attempt_at = now()"
    )
    with pytest.raises(StaleRow, match="stale: it has generation 2, the audit log knows 3"):
        await installation.signed(await installation.claimed(ring))


@pytest.mark.parametrize("generation", [2**63 - 1, -(2**63)])
async def test_a_row_with_any_generation_is_deleted(generation: int, installation: Installation) -> None:
    added = await installation.add(NEW)
    await installation.pool.execute("UPDATE hookseal.endpoints SET generation = $1", generation)
    await installation.act(delete_endpoint, TENANT, added.pointer.endpoint_id)

    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


async def test_a_forged_public_key_is_not_returned(installation: Installation) -> None:
    added = await installation.add(replace(NEW, algorithm=Algorithm.ED25519))
    endpoint = added.pointer.endpoint_id
    first = await installation.rotate(endpoint, rotation_id="r-1")
    answer = json.loads(await installation.pool.fetchval("SELECT answer FROM hookseal.secret_rotations"))
    await installation.pool.execute(
        "UPDATE hookseal.secret_rotations SET answer = $1", json.dumps(answer | {"public_key": "whpk_of-the-attacker"})
    )

    assert first.public_key is not None
    assert first.public_key == (await installation.rotate(endpoint, rotation_id="r-1")).public_key


async def two_keys(installation: Installation, old: MasterKey) -> Installation:
    """Register an older decrypt-only master key, and return a process with both keys."""
    await register(installation.pool, old, "decrypt_only")
    unlocked = await unlock(installation.pool, Provider.DB, KeyRing(keyring().sealing, (old,)))
    return replace(installation, unlocked=unlocked)


async def forged(installation: Installation, added_ref: str, old: MasterKey) -> None:
    """Replace the endpoint's secret by the attacker's, sealed under the older key for the same place."""
    ref = SecretRef.parse(added_ref)
    sealed = seal(KeyRing(old), generate_signing_secret(), SecretContext.of(ref, Purpose.WEBHOOK_SIGNING))
    await installation.pool.execute("UPDATE hookseal.secret_records SET sealed = $1 WHERE tenant_id = 'acme'", sealed)


async def test_a_record_forged_under_an_older_key_does_not_sign(installation: Installation) -> None:
    added = await installation.add(NEW)
    process = await two_keys(installation, SECOND)
    await forged(installation, added.pointer.secret_ref or "", SECOND)

    with pytest.raises(StaleRow, match="another master key than the audit log knows"):
        await process.signed(await process.claimed())


async def test_a_retired_key_opens_nothing(installation: Installation) -> None:
    added = await installation.add(NEW)
    process = await two_keys(installation, SECOND)
    await forged(installation, added.pointer.secret_ref or "", SECOND)
    await rows.change(installation.pool, "secret_keys", SECOND.key_id, state="retired")

    ref = SecretRef.parse(added.pointer.secret_ref or "")
    with pytest.raises(KeyRetired):
        await process.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)


FORGED = """
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)
VALUES ('acme', 1000, now(), 'x', 'secret.rotated', $1, '{"generation": 9223372036854775807}', '', '', '1')
"""


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_forged_maximal_generation_refuses_one_endpoint(deleted: bool, installation: Installation) -> None:
    added = await installation.add(NEW)
    other = await installation.add(replace(NEW, url="https://receiver.example/other"))
    await installation.rotate(other.pointer.endpoint_id)
    await installation.pool.execute(FORGED, f"endpoint:{added.pointer.endpoint_id}")
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET state = 'previous' WHERE name = $1 AND version = 2",
        endpoint_secret_name(other.pointer.endpoint_id),
    )
    if deleted:
        await rows.remove(installation.pool, "endpoints", added.pointer.endpoint_id)

    accepted = await installation.act(accept_restore, ())

    refused = [(found.endpoint_id, "somebody forged a row" in reason) for found, reason in accepted.refused]
    assert [(added.pointer.endpoint_id, True)] == refused
    assert other.pointer.endpoint_id in [found.endpoint_id for found in accepted.endpoints]
