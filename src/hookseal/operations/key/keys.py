"""Changes the states of master keys, and rotates the integrity key, each in one transaction with its audit row."""

from collections.abc import Callable
from dataclasses import dataclass

from hookseal.audit.entry import Action
from hookseal.dispatcher.endpoint_rules import LIVE_SECONDS
from hookseal.ground.errors import Refused
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.operations.operator import Operator, limit_transaction
from hookseal.postgres.handles import Connection
from hookseal.postgres.translate import translated
from hookseal.secrets.boot import unlock
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.key import keys, moves, rules, stores
from hookseal.secrets.key.keys import KeyStatus
from hookseal.secrets.key.moves import KeyLife
from hookseal.secrets.key.rules import KeyState
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, Purpose, SecretRef
from hookseal.secrets.sealing import active_key
from hookseal.secrets.sealing.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.store.port import SecretStore
from hookseal.secrets.store.postgres import PostgresStore


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedKey:
    """A master key after a command; `was` is its state before, None if it was not registered."""

    life: KeyLife
    was: KeyState | None


async def begin(
    connection: Connection,
    keyring: KeyRing | None,
    who: str,
    random_bytes: Callable[[int], bytes],
    *,
    provider: Provider = Provider.DB,
    outside: Outside | None = None,
) -> KeyStatus:
    """Initialise the installation: register the master key, and create its own secrets; all of it or nothing.

    With a provider outside PostgreSQL no key is registered. If the secrets of the installation are kept by such a
    provider already, only its first master key is registered, for a move to `db`. Raises `Conflict` if it was
    initialised before, what the provider raises, and `Unavailable`.
    """
    ring = keyring if provider is Provider.DB else None
    with translated():
        async with connection.transaction():
            await limit_transaction(connection)
            store = await _new_store(connection, ring, provider, outside)
            made = await keys.initialise(connection, ring, store, random_bytes)
            unlocked = await unlock(connection, provider, ring, outside=outside)
            await Operator(connection=connection, unlocked=unlocked, who=who).audit(
                Action.KEY_INITIALISED,
                of=f"key:{made.key_id or provider}",
                after={
                    "key_id": made.key_id,
                    "state": made.state,
                    "integrity_ref": str(made.integrity_ref),
                    "sentinel_ref": str(made.sentinel_ref),
                },
            )
    return made


async def _new_store(
    connection: Connection, ring: KeyRing | None, provider: Provider, outside: Outside | None
) -> SecretStore:
    if ring is not None:
        return PostgresStore(connection, ring)
    return await stores.opened(connection, provider, None, outside, is_begun=False)


async def stage_key(operator: Operator, key: MasterKey) -> MovedKey:
    """Register the next master key as staged; from then on every worker may have it.

    Raises `Conflict` if it was active before or is compromised, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        found = await moves.known(connection, key.key_id)
        state = None if found is None else found.state
        is_compromised = found is not None and found.compromised_at is not None
        if rules.must_register(state, key.key_id, is_compromised=is_compromised):
            await moves.register(connection, key)
            await operator.audit(Action.KEY_STAGED, of=f"key:{key.key_id}", after={"state": "staged"})
        return MovedKey(life=await moves.life(connection, key.key_id), was=state)


async def promote_key(operator: Operator, key_id: str) -> MovedKey:
    """Make the key the active one, for every process; the key that was active only opens from now on.

    Raises `NotFound`, `Conflict` if a live worker does not have it, or if it is retired or compromised, `Refused` if
    this process does not have it, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        found = await moves.life(connection, key_id)
        lacking = await moves.workers_without(connection, key_id, live_seconds=LIVE_SECONDS)
        if rules.must_promote(
            found.state,
            key_id,
            is_compromised=found.compromised_at is not None,
            held=_holds(operator, key_id),
            lacking=lacking,
        ):
            before = await active_key.lock_shared(connection)
            await moves.promote(connection, key_id)
            facts = {"state": found.state, "active_key_id": before}
            after = {"state": "active", "active_key_id": key_id}
            await operator.audit(Action.KEY_PROMOTED, of=f"key:{key_id}", before=facts, after=after)
        return MovedKey(life=await moves.life(connection, key_id), was=found.state)


async def retire_key(operator: Operator, key_id: str) -> MovedKey:
    """Stop using this key for decryption, in every process.

    Raises `NotFound`, `Conflict` if it is active or a record needs it, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        found = await moves.life(connection, key_id)
        if rules.must_retire(found.state, key_id, await moves.use(connection, key_id)):
            await moves.retire(connection, key_id)
            before = {"state": found.state, "drained_at": found.drained_at}
            await operator.audit(Action.KEY_RETIRED, of=f"key:{key_id}", before=before, after={"state": "retired"})
        return MovedKey(life=await moves.life(connection, key_id), was=found.state)


async def destroy_key(operator: Operator, key_id: str) -> MovedKey:
    """Mark the key as destroyed: a process that still has it does not start.

    Raises `NotFound`, `Conflict` if it is not retired or if a process has it, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        found = await moves.life(connection, key_id)
        holding = await moves.workers_with(connection, key_id, live_seconds=LIVE_SECONDS)
        if rules.must_destroy(found.state, key_id, held=_holds(operator, key_id), holding=holding):
            await moves.destroy(connection, key_id)
            before = {"state": found.state}
            await operator.audit(Action.KEY_DESTROYED, of=f"key:{key_id}", before=before, after={"state": "destroyed"})
        return MovedKey(life=await moves.life(connection, key_id), was=found.state)


def ring_of(operator: Operator) -> KeyRing:
    """Return the master keys of this process, with the roles that they had when it started."""
    ring = operator.unlocked.keyring
    if ring is None:
        raise Refused("this process has no master keys: they belong to SECRETS_PROVIDER db")
    return ring


def _holds(operator: Operator, key_id: str) -> bool:
    return key_id in {key.key_id for key in ring_of(operator).keys}


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedIntegrity:
    """The version that makes MACs now, and the ids of those that only verify, oldest first."""

    key_id: str
    ref: SecretRef
    older: tuple[str, ...]


async def rotate_integrity_key(operator: Operator, random_bytes: Callable[[int], bytes]) -> RotatedIntegrity:
    """Store a new version of the integrity key; the older ones stay, to verify their MACs.

    Another process learns the new version when it reads a row that names it. Raises what the store raises, and
    `Unavailable`.
    """
    integrity = operator.unlocked.integrity
    material = SecretMaterial(random_bytes(KEY_BYTES))
    async with operator.changing() as connection:
        store = operator.unlocked.store_on(connection)
        ref = await store.rotate(SYSTEM_TENANT, INTEGRITY_NAME, material, purpose=Purpose.INTEGRITY)
        older = [version.ref for version in await store.versions(SYSTEM_TENANT, INTEGRITY_NAME) if version.ref != ref]
        after = {"key_id": str(ref.version), "integrity_ref": str(ref)}
        await operator.audit(Action.INTEGRITY_ROTATED, of="integrity", before={"key_id": integrity.key_id}, after=after)
    integrity.adopt(str(ref.version), material)  # not before the commit, because others could not verify its MACs
    integrity.make_under(str(ref.version))
    return RotatedIntegrity(key_id=integrity.key_id, ref=ref, older=tuple(str(one.version) for one in older))
