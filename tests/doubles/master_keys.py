"""Changes of the master key of an installation, by the product's own operations."""

from collections.abc import Sequence
from dataclasses import replace

from hookseal.audit.log import verify
from hookseal.operations.key.keys import (
    MovedKey,
    destroy_key,
    finish_rewrap,
    promote_key,
    retire_key,
    rewrap_batch,
    stage_key,
)
from hookseal.secrets import restore
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.key.rewrap import BEGINNING, Batch, Cursor
from tests.doubles.stored import Installation, keyring
from tests.secrets.samples import master_key

OLD = keyring().sealing
NEW, NEWER = master_key("new"), master_key("newer")

KEEP = "CREATE TABLE kept AS SELECT * FROM hookseal.secret_records"
PUT_BACK = """
UPDATE hookseal.secret_records AS r
   SET sealed = k.sealed, wrapped_by = k.wrapped_by
  FROM kept AS k
 WHERE (k.tenant_id, k.name, k.version) = (r.tenant_id, r.name, r.version) AND r.sealed IS NOT NULL
"""


async def holding(installation: Installation, *keys: MasterKey) -> Installation:
    """Return that installation as a newly started process with these keys sees it."""
    ring = KeyRing(keys[0], tuple(keys[1:]))
    return replace(installation, unlocked=await unlock(installation.pool, Provider.DB, ring))


async def stage(installation: Installation, key: MasterKey) -> MovedKey:
    async with installation.pool.acquire() as connection:
        return await stage_key(installation.operator(connection), key)


async def promote(installation: Installation, key: MasterKey) -> MovedKey:
    async with installation.pool.acquire() as connection:
        return await promote_key(installation.operator(connection), key.key_id)


async def retire(installation: Installation, key: MasterKey) -> MovedKey:
    async with installation.pool.acquire() as connection:
        return await retire_key(installation.operator(connection), key.key_id)


async def destroy(installation: Installation, key: MasterKey) -> MovedKey:
    async with installation.pool.acquire() as connection:
        return await destroy_key(installation.operator(connection), key.key_id)


async def changed(installation: Installation, *keys: MasterKey) -> Installation:
    """Stage and promote the last of these keys; return a process with all of them, which seals with the last one."""
    await stage(installation, keys[-1])
    process = await holding(installation, *reversed(keys))
    await promote(process, keys[-1])
    return process


async def batch(
    installation: Installation, key: MasterKey, after: Cursor = BEGINNING, *, wait: bool = False
) -> Batch | None:
    """Re-wrap one batch of the records under the key."""
    async with installation.pool.acquire() as connection:
        return await rewrap_batch(installation.operator(connection), key.key_id, after, wait=wait)


async def rewrap(installation: Installation, key: MasterKey) -> int:
    """Re-wrap all records under the key, as the command does; return their number."""
    moved = 0
    for wait in (False, True):
        after: Cursor | None = BEGINNING
        while after is not None:
            done = await batch(installation, key, after, wait=wait)
            if done is None:
                break
            moved += done.moved
            after = done.last
    return moved


async def finish(installation: Installation, key: MasterKey) -> int:
    """Finish the re-wrap; return the number of records left under the key."""
    async with installation.pool.acquire() as connection:
        return (await finish_rewrap(installation.operator(connection), key.key_id)).records


async def replaced(installation: Installation, key: MasterKey) -> int:
    """Re-wrap all records and finish; return their number."""
    moved = await rewrap(installation, key)
    assert 0 == await finish(installation, key)
    return moved


async def opened(installation: Installation) -> dict[SecretRef, bytes]:
    """Return every stored secret, opened; fail if one is refused."""
    rows = await installation.pool.fetch("SELECT ref, purpose FROM hookseal.secret_records WHERE sealed IS NOT NULL")
    refs = [(SecretRef.parse(row["ref"], reserved=True), Purpose(row["purpose"])) for row in rows]
    return {ref: (await installation.unlocked.store.get(ref, purpose=purpose)).reveal() for ref, purpose in refs}


async def stale_now(installation: Installation) -> Sequence[str]:
    return [found.endpoint_id async for found in restore.find_stale(installation.pool)]


async def under(installation: Installation, key: MasterKey) -> int:
    """Return the number of records whose own bytes name the key."""
    number: int = await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.secret_records WHERE substring(sealed FROM 3 FOR 8) = $1",
        bytes.fromhex(key.key_id),
    )
    return number


async def require_sound_log(installation: Installation) -> None:
    """Fail unless the audit log of every tenant is intact."""
    found = await verify(installation.pool, installation.unlocked.integrity)
    assert [None] * len(found) == [each.broken for each in found]
