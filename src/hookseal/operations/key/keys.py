"""Changes the states of master keys, and rotates the integrity key, each in one transaction with its audit row."""

from collections.abc import Callable
from dataclasses import dataclass

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.errors import Defect, HooksealError, InDoubt, Refused
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint.rotation import end_overlap, rotate_secret
from hookseal.operations.operator import Operator, limit_transaction
from hookseal.operations.tokens import publish_key
from hookseal.postgres.pool import Connection
from hookseal.postgres.translate import translated
from hookseal.secrets.boot import unlock
from hookseal.secrets.core import key_rules
from hookseal.secrets.core.key_rules import KeyState, Use
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.core.trust import IntegrityKey
from hookseal.secrets.endpoint.rotation import RotationRequest
from hookseal.secrets.integrity_versions import INTEGRITY_NAME
from hookseal.secrets.key import active_key, compromise, keys, rewrap, stores
from hookseal.secrets.key.compromise import Exposed, Remedy
from hookseal.secrets.key.keys import KeyLife, KeyStatus
from hookseal.secrets.key.rewrap import Batch, Cursor, Unopened
from hookseal.secrets.key.stores import Outside
from hookseal.secrets.resolve import epoch
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
    used = keyring if provider is Provider.DB else None
    with translated():
        async with connection.transaction():
            await limit_transaction(connection)
            store = await _new_store(connection, used, provider, outside)
            status = await keys.initialise(connection, used, store, random_bytes)
            unlocked = await unlock(connection, provider, used, outside=outside)
            await publish_key(connection, unlocked.integrity)
            await Operator(connection=connection, unlocked=unlocked, who=who).audit(
                Action.KEY_INITIALISED,
                of=f"key:{status.key_id or provider}",
                after={
                    "key_id": status.key_id,
                    "state": status.state,
                    "integrity_ref": str(status.integrity_ref),
                    "sentinel_ref": str(status.sentinel_ref),
                },
            )
    return status


async def _new_store(
    connection: Connection, keyring: KeyRing | None, provider: Provider, outside: Outside | None
) -> SecretStore:
    if keyring is not None:
        return PostgresStore(connection, keyring)
    return await stores.opened(connection, provider, None, outside, is_begun=False)


async def stage_key(operator: Operator, key: MasterKey) -> MovedKey:
    """Register the next master key as staged; from then on every worker may have it.

    Raises `Conflict` if it was active before or is compromised, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        life = await keys.known(connection, key.key_id)
        state = None if life is None else life.state
        is_compromised = life is not None and life.compromised_at is not None
        if key_rules.must_register(state, key.key_id, is_compromised=is_compromised):
            await keys.register(connection, key)
            await operator.audit(Action.KEY_STAGED, of=f"key:{key.key_id}", after={"state": "staged"})
        return MovedKey(life=await keys.life(connection, key.key_id), was=state)


async def promote_key(operator: Operator, key_id: str) -> MovedKey:
    """Make the key the active one, for every process; the key that was active only opens from now on.

    Raises `NotFound`, `Conflict` if a live worker does not have it, or if it is retired or compromised, `Refused` if
    this process does not have it, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        life = await keys.life(connection, key_id)
        lacking = await keys.workers_without(connection, key_id, live_seconds=LIVE_SECONDS)
        if key_rules.must_promote(
            life.state,
            key_id,
            is_compromised=life.compromised_at is not None,
            held=_holds(operator, key_id),
            lacking=lacking,
        ):
            before = await active_key.lock_shared(connection)
            await keys.promote(connection, key_id)
            facts = {"state": life.state, "active_key_id": before}
            after = {"state": "active", "active_key_id": key_id}
            await operator.audit(Action.KEY_PROMOTED, of=f"key:{key_id}", before=facts, after=after)
        return MovedKey(life=await keys.life(connection, key_id), was=life.state)


async def retire_key(operator: Operator, key_id: str) -> MovedKey:
    """Stop using this key for decryption, in every process.

    Raises `NotFound`, `Conflict` if it is active or a record needs it, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        life = await keys.life(connection, key_id)
        if key_rules.must_retire(life.state, key_id, await keys.use(connection, key_id)):
            await keys.write_change(connection, key_id, "retired")
            before = {"state": life.state, "drained_at": life.drained_at}
            await operator.audit(Action.KEY_RETIRED, of=f"key:{key_id}", before=before, after={"state": "retired"})
        return MovedKey(life=await keys.life(connection, key_id), was=life.state)


async def destroy_key(operator: Operator, key_id: str) -> MovedKey:
    """Mark the key as destroyed: a process that still has it does not start.

    Raises `NotFound`, `Conflict` if it is not retired or if a process has it, and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        life = await keys.life(connection, key_id)
        holding = await keys.workers_with(connection, key_id, live_seconds=LIVE_SECONDS)
        if key_rules.must_destroy(life.state, key_id, held=_holds(operator, key_id), holding=holding):
            await keys.write_change(connection, key_id, "destroyed")
            before = {"state": life.state}
            await operator.audit(Action.KEY_DESTROYED, of=f"key:{key_id}", before=before, after={"state": "destroyed"})
        return MovedKey(life=await keys.life(connection, key_id), was=life.state)


def keyring_of(operator: Operator) -> KeyRing:
    """Return the master keys of this process, with the roles that they had when it started."""
    keyring = operator.unlocked.keyring
    if keyring is None:
        raise Refused("this process has no master keys: they belong to SECRETS_PROVIDER db")
    return keyring


def _holds(operator: Operator, key_id: str) -> bool:
    return key_id in {key.key_id for key in keyring_of(operator).keys}


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
    material = SecretMaterial(random_bytes(KEY_BYTES))
    async with operator.changing() as connection:
        integrity = operator.unlocked.integrity
        store = operator.unlocked.store_on(connection)
        ref = await store.rotate(SYSTEM_TENANT, INTEGRITY_NAME, material, purpose=Purpose.INTEGRITY)
        older = [version.ref for version in await store.versions(SYSTEM_TENANT, INTEGRITY_NAME) if version.ref != ref]
        after = {"key_id": str(ref.version), "integrity_ref": str(ref)}
        rotated = IntegrityKey(key_id=str(ref.version), material=material)
        await publish_key(connection, rotated)
        await operator.audit(Action.INTEGRITY_ROTATED, of="integrity", before={"key_id": integrity.key_id}, after=after)
    integrity.adopt(str(ref.version), material)  # not before the commit, because others could not verify its MACs
    integrity.make_under(str(ref.version))
    return RotatedIntegrity(key_id=integrity.key_id, ref=ref, older=tuple(str(one.version) for one in older))


async def records_of(operator: Operator, key_id: str) -> int:
    """Return how many records are under that key. Raises `NotFound` and `Unavailable`."""
    async with operator.changing() as connection:
        await keys.life(connection, key_id)
        return (await keys.use(connection, key_id)).records


async def rewrap_batch(operator: Operator, key_id: str, after: Cursor, *, wait: bool) -> Batch | None:
    """Re-wrap the next records of that key under the active one; return None if the key has nothing to re-wrap.

    With `wait` it waits for locked rows, else it skips them. Raises `NotFound`, `Conflict` if it is the active key,
    `Refused` if this process lacks one of the two keys, and `Unavailable`.
    """
    async with operator.changing() as connection:
        keyring = keyring_of(operator)
        has_key = key_id in {key.key_id for key in keyring.keys}
        to = await active_key.lock_shared(connection)  # it stays active, so that a batch has one new key
        life = await keys.life(connection, key_id)
        if not key_rules.must_rewrap(life.state, key_id, held=has_key, drained=life.drained_at is not None):
            return None
        batch = await rewrap.batch(connection, keyring.sealing_as(to), key_id, after, wait=wait)
        if batch.moved:
            facts = {"to": batch.to, "records": batch.moved, "digest": batch.digest}
            await operator.audit(Action.KEY_REWRAPPED, of=f"key:{key_id}", after=facts)
    return batch


async def finish_rewrap(operator: Operator, key_id: str) -> Use:
    """Return what still needs the key. If no record does, mark it as drained: a record under it is stale from then on.

    Raises `NotFound` and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        life = await keys.life(connection, key_id)
        use = await keys.use(connection, key_id)
        if not use.records and key_rules.may_be_drained(life.state) and life.drained_at is None:
            await keys.write_change(connection, key_id, "drained")
            await operator.audit(Action.KEY_DRAINED, of=f"key:{key_id}", after={"records": 0})
    return use


async def altered(operator: Operator, key_id: str) -> tuple[Unopened, ...]:
    """Return records that the key once sealed and that now name one that never did. Raises `Unavailable`."""
    async with operator.changing() as connection:
        return await rewrap.altered(connection, key_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompromiseOptions:
    """How secrets are rotated: the overlap, and whether a running overlap is cut short. A dry run changes nothing."""

    overlap_seconds: int
    force: bool
    dry_run: bool
    random_bytes: Callable[[int], bytes]

    @property
    def ends_overlaps(self) -> bool:
        """Whether exposed previous versions of running overlaps stop signing, too: with `--overlap 0`."""
        return self.overlap_seconds == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """An exposed version, and the error if it could not be replaced. None: it was, or need not be replaced."""

    exposed: Exposed
    error: HooksealError | None


async def drill(operator: Operator, key_id: str, how: CompromiseOptions, report: Callable[[Replaced], None]) -> None:
    """Mark the key as compromised, and replace every secret that was ever sealed under it and is in use.

    `report` is called with every version that was sealed under it. Header values and client keys are not replaced,
    because only their owner can. A previous secret signs until its overlap ends, unless `ends_overlaps`. Raises
    `NotFound`, `Conflict` if it is the active key, under which the new secrets would be sealed, `InDoubt` and
    `Unavailable`; a repeat continues.
    """
    if how.dry_run:
        key_rules.require_replaced((await keys.life(operator.connection, key_id)).state, key_id)
    else:
        await mark_compromised(operator, key_id)
    async for exposed in compromise.exposed(operator.connection, key_id):
        error = None
        if not how.dry_run:
            try:
                await _replace(operator, key_id, exposed, how)
            except InDoubt:
                raise
            except HooksealError as refused:  # an error of one endpoint must not stop the others
                error = refused
        report(Replaced(exposed=exposed, error=error))


async def mark_compromised(operator: Operator, key_id: str) -> None:
    """Mark the key as compromised; every worker discards its cached secrets.

    Raises `NotFound`, `Conflict` if it is the active key, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        life = await keys.life(connection, key_id)
        key_rules.require_replaced(life.state, key_id)
        await keys.write_change(connection, key_id, "compromised")
        facts = {
            "versions": await compromise.count(connection, key_id),
            "cache_epoch": await epoch.move_cache(connection),  # workers discard their cached secrets
        }
        before = {"state": life.state, "compromised_at": life.compromised_at}
        await operator.audit(Action.KEY_COMPROMISED, of=f"key:{key_id}", before=before, after=facts)


async def _replace(operator: Operator, key_id: str, exposed: Exposed, how: CompromiseOptions) -> None:
    match exposed.remedy:
        case Remedy.ROTATION:
            await rotate_secret(operator, _wanted(key_id, exposed, how))
        case Remedy.END_OF_OVERLAP if how.ends_overlaps:
            tenant, endpoint_id, generation = _pointer(exposed)
            await end_overlap(operator, tenant=tenant, endpoint_id=endpoint_id, expect_generation=generation)
        case Remedy.NEW_INTEGRITY_KEY:
            await rotate_integrity_key(operator, how.random_bytes)
        case Remedy.END_OF_OVERLAP | Remedy.NEW_HEADER_VALUES | Remedy.NEW_CLIENT_KEY | Remedy.NONE:
            return


def _wanted(key_id: str, exposed: Exposed, how: CompromiseOptions) -> RotationRequest:
    tenant, endpoint_id, generation = _pointer(exposed)
    return RotationRequest(
        tenant_id=tenant,
        endpoint_id=endpoint_id,
        overlap_seconds=how.overlap_seconds,
        secret=generate_signing_secret(Algorithm.HMAC),
        rotation_id=f"compromise.{key_id}.{endpoint_id}.{generation}",
        expect_generation=generation,
        force=how.force,
    )


def _pointer(exposed: Exposed) -> tuple[TenantId, EndpointId, int]:
    if exposed.endpoint_id is None or exposed.generation is None:
        raise Defect("a version signs, and no endpoint names it")
    return exposed.tenant_id, exposed.endpoint_id, exposed.generation
