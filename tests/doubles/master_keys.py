"""Master keys that take each other's place in an installation, by the product's own operations."""

from collections.abc import Sequence
from dataclasses import replace

from hookseal.audit.log import verify
from hookseal.operations.keys import MovedKey, destroy_key, promote_key, retire_key, stage_key
from hookseal.operations.rewrap import finish_rewrap, rewrap_batch
from hookseal.secrets import put_back
from hookseal.secrets.boot import unlock
from hookseal.secrets.context import Purpose
from hookseal.secrets.keyring import KeyRing, MasterKey
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.rewrap import BEGINNING, Batch, Place
from tests.doubles.stored import Installation, keyring
from tests.secrets.samples import master_key

OLD = keyring().sealing
NEW, NEWER = master_key("new"), master_key("newer")

KEEP = "CREATE TABLE kept AS SELECT * FROM hookseal.secret_records"
PUT_BACK = """
UPDATE hookseal.secret_records AS r
   SET sealed = k.sealed, key_id = k.key_id, wrapped_by = k.wrapped_by
  FROM kept AS k
 WHERE (k.tenant_id, k.name, k.version) = (r.tenant_id, r.name, r.version) AND r.sealed IS NOT NULL
"""


async def holding(installation: Installation, *keys: MasterKey) -> Installation:
    """Return a process that starts now on that installation, with these keys."""
    ring = KeyRing(keys[0], tuple(keys[1:]))
    return replace(installation, unlocked=await unlock(installation.pool, Provider.DB, ring))


async def stage(installation: Installation, key: MasterKey) -> MovedKey:
    """Stage the key."""
    async with installation.pool.acquire() as connection:
        return await stage_key(installation.operator(connection), key)


async def promote(installation: Installation, key: MasterKey) -> MovedKey:
    """Promote the key."""
    async with installation.pool.acquire() as connection:
        return await promote_key(installation.operator(connection), key.key_id)


async def retire(installation: Installation, key: MasterKey) -> MovedKey:
    """Retire the key."""
    async with installation.pool.acquire() as connection:
        return await retire_key(installation.operator(connection), key.key_id)


async def destroy(installation: Installation, key: MasterKey) -> MovedKey:
    """Destroy the key."""
    async with installation.pool.acquire() as connection:
        return await destroy_key(installation.operator(connection), key.key_id)


async def changed(installation: Installation, *keys: MasterKey) -> Installation:
    """Stage and promote the last of these keys; return a process that holds them, the last one sealing."""
    await stage(installation, keys[-1])
    process = await holding(installation, *reversed(keys))
    await promote(process, keys[-1])
    return process


async def batch(
    installation: Installation, key: MasterKey, after: Place = BEGINNING, *, wait: bool = False
) -> Batch | None:
    """Re-wrap one batch of what is under the key."""
    async with installation.pool.acquire() as connection:
        return await rewrap_batch(installation.operator(connection), key.key_id, after, wait=wait)


async def rewrap(installation: Installation, key: MasterKey) -> int:
    """Re-wrap all that is under the key, as the command does it; return how many records that were."""
    moved = 0
    for wait in (False, True):
        after: Place | None = BEGINNING
        while after is not None:
            done = await batch(installation, key, after, wait=wait)
            if done is None:
                break
            moved += done.moved
            after = done.last
    return moved


async def finish(installation: Installation, key: MasterKey) -> int:
    """Return how many records are left under the key; none is on record."""
    async with installation.pool.acquire() as connection:
        return (await finish_rewrap(installation.operator(connection), key.key_id)).records


async def replaced(installation: Installation, key: MasterKey) -> int:
    """Re-wrap all, and have it on record that none is left; return how many records that were."""
    moved = await rewrap(installation, key)
    assert 0 == await finish(installation, key)
    return moved


async def opened(installation: Installation) -> dict[SecretRef, bytes]:
    """Return every secret that is stored, each as the store gives it; fail if one is refused."""
    rows = await installation.pool.fetch(
        "SELECT concat_ws(':', provider, tenant_id, name, version) AS ref, purpose"
        " FROM hookseal.secret_records WHERE sealed IS NOT NULL"
    )
    refs = [(SecretRef.parse(row["ref"], reserved=True), Purpose(row["purpose"])) for row in rows]
    return {ref: (await installation.unlocked.store.get(ref, purpose=purpose)).reveal() for ref, purpose in refs}


async def put_back_now(installation: Installation) -> Sequence[str]:
    """Return the endpoints that look put back."""
    return [found.endpoint_id async for found in put_back.found(installation.pool)]


async def under(installation: Installation, key: MasterKey) -> int:
    """Return how many records name the key, inside or beside."""
    number: int = await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.secret_records WHERE key_id = $1 OR substring(sealed FROM 3 FOR 8) = $2",
        key.key_id,
        bytes.fromhex(key.key_id),
    )
    return number


async def require_sound_log(installation: Installation) -> None:
    """Fail unless every chain of the audit log holds."""
    found = await verify(installation.pool, installation.unlocked.integrity)
    assert [None] * len(found) == [each.broken for each in found]
