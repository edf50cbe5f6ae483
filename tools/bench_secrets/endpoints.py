"""The measured endpoints: in an overlap, with secrets sealed in PostgreSQL and pointers with a MAC."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec.structs import replace

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.key.keys import begin
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret

TENANT: Final = TenantId("bench")
_GENERATION: Final = 2
_OVERLAP: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """An installation, and what opens its secrets."""

    pool: Pool
    keyring: KeyRing
    unlocked: Unlocked


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a claim reads of an endpoint, and the ref of its current secret."""

    pointer: Pointer
    ref: SecretRef


async def installed(pool: Pool) -> Installation:
    """Begin an installation in the migrated database of the pool, with a master key that is not saved."""
    keyring = KeyRing(MasterKey(SecretMaterial(os.urandom(KEY_BYTES))))
    async with pool.acquire() as connection:
        await begin(connection, keyring, "bench", os.urandom)
    return Installation(pool=pool, keyring=keyring, unlocked=await unlock(pool, Provider.DB, keyring))


async def endpoints(installation: Installation, algorithm: Algorithm, numbers: range) -> list[Endpoint]:
    """Store two versions of a secret for each number, and return the endpoints that sign with both."""
    return [await _endpoint(installation.unlocked, algorithm, number) for number in numbers]


async def _endpoint(unlocked: Unlocked, algorithm: Algorithm, number: int) -> Endpoint:
    endpoint_id = EndpointId(f"01890a5d-ac96-774b-bcce-{number:012x}")
    name = endpoint_secret_name(endpoint_id)
    old, new = generate_signing_secret(algorithm), generate_signing_secret(algorithm)
    previous = await unlocked.store.put(TENANT, name, old, purpose=Purpose.WEBHOOK_SIGNING, scheme=Scheme.STANDARD)
    current = await unlocked.store.rotate(TENANT, name, new, purpose=Purpose.WEBHOOK_SIGNING, scheme=Scheme.STANDARD)
    now = datetime.now(UTC)
    unsigned = Pointer(
        tenant_id=TENANT,
        endpoint_id=endpoint_id,
        url=f"https://hooks.example.com/tenants/bench/endpoints/{number}",
        scheme=Scheme.STANDARD.value,
        algorithm=algorithm.value,
        secret_ref=str(current),
        previous_secret_ref=str(previous),
        previous_secret_expires_at=now + _OVERLAP,
        previous_scheme=Scheme.STANDARD.value,
        previous_algorithm=algorithm.value,
        previous_due=True,
        headers_ref=None,
        lead="previous",
        generation=_GENERATION,
        mac=None,
        mac_key_id=None,
        cache_epoch=0,
        restore_epoch=0,
        read_at=now,
        audited_generation=_GENERATION,
    )
    mac = unlocked.integrity.mac(unsigned)
    return Endpoint(pointer=replace(unsigned, mac=mac, mac_key_id=unlocked.integrity.key_id), ref=current)
