"""A malicious database writer cannot make revoked or deleted secrets sign again."""

import json

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import KeyRetired, StaleRow
from hookseal.ground.ids import TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.restore import accept_restore
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.envelope import seal
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import Signer, generate_signing_secret
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, keyring
from tests.secrets.samples import SECOND

pytestmark = [pytest.mark.req("SEC-24", part="sql-attacks"), pytest.mark.req("SEC-08")]

TENANT = TenantId("acme")
NEW = NewEndpoint(tenant_id=TENANT, url="https://receiver.example/hook", event_types=("*",))


async def claimed(installation: Installation) -> Pointer:
    """Publish, claim one delivery, and return the claimed pointer."""
    [ring] = await installation.deliveries()
    return await claimed_pointer(installation, ring)


async def claimed_pointer(installation: Installation, ring: Ring) -> Pointer:
    """Claim the delivery and return the claimed pointer."""
    claim = await PostgresLedger(installation.pool, worker="w-1", lease_seconds=45).claim(ring)
    assert claim is not None
    assert claim.target is not None
    return claim.target.pointer


async def signed(unlocked: Unlocked, pointer: Pointer) -> list[str]:
    """Return a worker's signature of the content `x`."""
    async with unlocked.service.signers(pointer) as signers:
        return [signer.sign(b"x") for signer in signers]


def signature_by(secret: SecretMaterial | None, pointer: Pointer) -> str:
    """Return the signature of this secret."""
    assert secret is not None
    signer = Signer("db:x:x:1", secret, Scheme(pointer.scheme), Algorithm.HMAC)
    return signer.sign(b"x")


async def test_a_version_number_is_not_used_again(installation: Installation) -> None:
    """Deleting records frees no version number, so a cached secret never passes for a newer version."""
    added = await installation.add(NEW)
    endpoint = added.pointer.endpoint_id
    leaked = await installation.rotate(endpoint)
    assert [signature_by(leaked.secret, added.pointer)] == await signed(
        installation.unlocked, await claimed(installation)
    )

    await installation.pool.execute("DELETE FROM hookseal.secret_records WHERE version = 2 AND tenant_id = 'acme'")
    revoked = await installation.rotate(endpoint)

    assert str(replace(SecretRef.parse(leaked.secret_ref), version=3)) == revoked.secret_ref
    assert [signature_by(revoked.secret, added.pointer)] == await signed(
        installation.unlocked, await claimed(installation)
    )


async def test_deleted_header_values_are_not_sent(installation: Installation) -> None:
    """After deletion of their records, cached header values are not sent in place of newer ones."""
    added = await installation.add(NEW, headers={"x-token": b"old"})
    async with installation.unlocked.service.headers(await claimed(installation)) as values:
        assert b"old" == values["x-token"].reveal()

    await installation.pool.execute("DELETE FROM hookseal.secret_records WHERE name LIKE 'endpoint-headers%'")
    change = HeaderChange(given={"x-token": SecretMaterial(b"new")}, replaces_all=True)
    async with installation.pool.acquire() as connection:
        await update_endpoint(
            installation.operator(connection),
            TENANT,
            added.pointer.endpoint_id,
            {"headers": change},
            own_drain_seconds=25,
        )

    async with installation.unlocked.service.headers(await claimed(installation)) as values:
        assert b"new" == values["x-token"].reveal()


async def test_a_deleted_endpoint_stays_deleted(installation: Installation) -> None:
    """A deleted row that is put back is refused, even if its generation was lowered before the deletion."""
    added = await installation.add(NEW)
    endpoint = added.pointer.endpoint_id
    await installation.rotate(endpoint)
    [ring] = await installation.deliveries()
    await installation.pool.execute(
        "CREATE TABLE kept AS SELECT * FROM hookseal.endpoints;"
        "CREATE TABLE records AS SELECT * FROM hookseal.secret_records;"
        "UPDATE hookseal.endpoints SET generation = 0"
    )
    async with installation.pool.acquire() as connection:
        await delete_endpoint(installation.operator(connection), TENANT, endpoint)

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
        await signed(installation.unlocked, await claimed_pointer(installation, ring))


@pytest.mark.parametrize("generation", [2**63 - 1, -(2**63)])
async def test_a_row_with_any_generation_is_deleted(generation: int, installation: Installation) -> None:
    """A row with an extreme generation can still be deleted."""
    added = await installation.add(NEW)
    await installation.pool.execute("UPDATE hookseal.endpoints SET generation = $1", generation)
    async with installation.pool.acquire() as connection:
        await delete_endpoint(installation.operator(connection), TENANT, added.pointer.endpoint_id)

    assert 0 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.endpoints")


async def test_a_forged_public_key_is_not_returned(installation: Installation) -> None:
    """A repeated rotation returns the public key of the signing version, whatever the table of rotations contains."""
    added = await installation.add(replace(NEW, algorithm=Algorithm.ED25519))
    endpoint = added.pointer.endpoint_id
    first = await installation.rotate(endpoint, rotation_id="r-1")
    answer = json.loads(await installation.pool.fetchval("SELECT answer FROM hookseal.secret_rotations"))
    await installation.pool.execute(
        "UPDATE hookseal.secret_rotations SET answer = $1", json.dumps(answer | {"public_key": "whpk_of-the-attacker"})
    )

    assert first.public_key is not None
    assert first.public_key == (await installation.rotate(endpoint, rotation_id="r-1")).public_key


async def two_keys(installation: Installation, old: MasterKey) -> Unlocked:
    """Register an older decrypt-only master key, and return the secrets of a process with both keys."""
    await installation.pool.execute(
        "INSERT INTO hookseal.secret_keys (key_id, state, check_value) VALUES ($1, 'decrypt_only', $2)",
        old.key_id,
        old.check_value,
    )
    ring = KeyRing(keyring().sealing, (old,))
    return await unlock(installation.pool, Provider.DB, ring)


async def forged(installation: Installation, added_ref: str, old: MasterKey) -> None:
    """Replace the endpoint's secret by the attacker's, sealed under the older key for the same place."""
    ref = SecretRef.parse(added_ref)
    sealed = seal(KeyRing(old), generate_signing_secret(), SecretContext.of(ref, Purpose.WEBHOOK_SIGNING))
    await installation.pool.execute("UPDATE hookseal.secret_records SET sealed = $1 WHERE tenant_id = 'acme'", sealed)


async def test_a_record_forged_under_an_older_key_does_not_sign(installation: Installation) -> None:
    """A forged secret under an older master key, which still opens, does not sign."""
    added = await installation.add(NEW)
    unlocked = await two_keys(installation, SECOND)
    await forged(installation, added.pointer.secret_ref or "", SECOND)

    with pytest.raises(StaleRow, match="another master key than the audit log knows"):
        await signed(unlocked, await claimed(installation))


async def test_a_retired_key_opens_nothing(installation: Installation) -> None:
    """A record under a key that was retired after the process started does not open."""
    added = await installation.add(NEW)
    unlocked = await two_keys(installation, SECOND)
    await forged(installation, added.pointer.secret_ref or "", SECOND)
    await installation.pool.execute(
        "UPDATE hookseal.secret_keys SET state = 'retired' WHERE key_id = $1", SECOND.key_id
    )

    ref = SecretRef.parse(added.pointer.secret_ref or "")
    with pytest.raises(KeyRetired):
        await unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)


FORGED = """
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)
VALUES ('acme', 1000, now(), 'x', 'secret.rotated', $1, '{"generation": 9223372036854775807}', '', '', '1')
"""


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_forged_maximal_generation_refuses_one_endpoint(deleted: bool, installation: Installation) -> None:
    """A forged maximal generation refuses that endpoint's acceptance only, and the reason says so."""
    added = await installation.add(NEW)
    other = await installation.add(replace(NEW, url="https://receiver.example/other"))
    await installation.rotate(other.pointer.endpoint_id)
    await installation.pool.execute(FORGED, f"endpoint:{added.pointer.endpoint_id}")
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET state = 'previous' WHERE name = $1 AND version = 2",
        endpoint_secret_name(other.pointer.endpoint_id),
    )
    if deleted:
        await installation.pool.execute(
            "DELETE FROM hookseal.endpoints WHERE id = $1::text::uuid", added.pointer.endpoint_id
        )

    async with installation.pool.acquire() as connection:
        accepted = await accept_restore(installation.operator(connection), ())

    refused = [(found.endpoint_id, "somebody forged a row" in reason) for found, reason in accepted.refused]
    assert [(added.pointer.endpoint_id, True)] == refused
    assert other.pointer.endpoint_id in [found.endpoint_id for found in accepted.endpoints]
