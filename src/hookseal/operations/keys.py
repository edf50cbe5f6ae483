"""The life of master keys, audited: each move in one transaction, in which nobody seals and no other key moves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher.database import translated
from hookseal.dispatcher.endpoint_rules import LIVE_SECONDS
from hookseal.ground.errors import Defect
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.operations.operator import Operator, bound
from hookseal.schema.database import Connection
from hookseal.secrets import active_key, key_moves, key_rules, keys
from hookseal.secrets.boot import unlock
from hookseal.secrets.key_moves import KeyLife
from hookseal.secrets.key_rules import KeyState
from hookseal.secrets.keyring import KeyRing, MasterKey
from hookseal.secrets.keys import KeyStatus
from hookseal.secrets.ref import Provider
from hookseal.secrets.stores.postgres import PostgresStore


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedKey:
    """A master key as it stands now; `was` is its state before, None if it was not registered."""

    life: KeyLife
    was: KeyState | None


async def begin(connection: Connection, keyring: KeyRing, who: str, random_bytes: Callable[[int], bytes]) -> KeyStatus:
    """Register the master key and make the installation's own secrets, once; all of it or nothing.

    Raises `Conflict` if it was begun before, `Unavailable`.
    """
    with translated():
        async with connection.transaction():
            await bound(connection)
            made = await keys.initialise(connection, keyring, PostgresStore(connection, keyring), random_bytes)
            unlocked = await unlock(connection, Provider.DB, keyring)
            await Operator(connection=connection, unlocked=unlocked, who=who).tell(_change(made))
    return made


async def stage_key(operator: Operator, key: MasterKey) -> MovedKey:
    """Register the key that shall seal next; from then on every worker may hold it.

    Raises `Conflict` if it sealed before or was compromised, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.hold(connection)
        found = await key_moves.known(connection, key.key_id)
        state = None if found is None else found.state
        is_compromised = found is not None and found.compromised_at is not None
        if key_rules.must_register(state, key.key_id, is_compromised=is_compromised):
            await key_moves.register(connection, key)
            await operator.tell(_moved(Action.KEY_STAGED, key.key_id, before=None, after={"state": "staged"}))
        return MovedKey(life=await key_moves.life(connection, key.key_id), was=state)


async def promote_key(operator: Operator, key_id: str) -> MovedKey:
    """Have that key seal whatever is sealed from now on, in every process; what sealed until now opens only.

    Raises `NotFound`, `Conflict` if a live worker does not hold it, or it was retired or compromised, `Refused` if
    this process does not hold it, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.hold(connection)
        found = await key_moves.life(connection, key_id)
        lacking = await key_moves.workers_without(connection, key_id, live_seconds=LIVE_SECONDS)
        if key_rules.must_promote(
            found.state,
            key_id,
            is_compromised=found.compromised_at is not None,
            held=_holds(operator, key_id),
            lacking=lacking,
        ):
            before = await active_key.settled(connection)
            await key_moves.promote(connection, key_id)
            facts = {"state": found.state, "active_key_id": before}
            after = {"state": "active", "active_key_id": key_id}
            await operator.tell(_moved(Action.KEY_PROMOTED, key_id, before=facts, after=after))
        return MovedKey(life=await key_moves.life(connection, key_id), was=found.state)


async def retire_key(operator: Operator, key_id: str) -> MovedKey:
    """Have that key open nothing any more, in any process.

    Raises `NotFound`, `Conflict` if it seals or a record needs it, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.hold(connection)
        found = await key_moves.life(connection, key_id)
        if key_rules.must_retire(found.state, key_id, await key_moves.use(connection, key_id)):
            await key_moves.retire(connection, key_id)
            before = {"state": found.state, "drained_at": found.drained_at}
            await operator.tell(_moved(Action.KEY_RETIRED, key_id, before=before, after={"state": "retired"}))
        return MovedKey(life=await key_moves.life(connection, key_id), was=found.state)


async def destroy_key(operator: Operator, key_id: str) -> MovedKey:
    """Mark that key as destroyed: from now on who still holds it is refused at start.

    Raises `NotFound`, `Conflict` unless it is retired and nobody holds it, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.hold(connection)
        found = await key_moves.life(connection, key_id)
        holding = await key_moves.workers_with(connection, key_id, live_seconds=LIVE_SECONDS)
        if key_rules.must_destroy(found.state, key_id, held=_holds(operator, key_id), holding=holding):
            await key_moves.destroy(connection, key_id)
            before = {"state": found.state}
            await operator.tell(_moved(Action.KEY_DESTROYED, key_id, before=before, after={"state": "destroyed"}))
        return MovedKey(life=await key_moves.life(connection, key_id), was=found.state)


def ring_of(operator: Operator) -> KeyRing:
    """Return the master keys of this process, arranged as the table of keys said when it started."""
    ring = operator.unlocked.keyring
    if ring is None:
        raise Defect("master keys are moved where there are none")
    return ring


def _holds(operator: Operator, key_id: str) -> bool:
    return key_id in {key.key_id for key in ring_of(operator).keys}


def _moved(action: Action, key_id: str, *, before: Mapping[str, object] | None, after: Mapping[str, object]) -> Change:
    return Change(tenant_id=SYSTEM_TENANT, action=action, subject=f"key:{key_id}", before=before, after=after)


def _change(made: KeyStatus) -> Change:
    return Change(
        tenant_id=SYSTEM_TENANT,
        action=Action.KEY_INITIALISED,
        subject=f"key:{made.key_id}",
        after={
            "key_id": made.key_id,
            "state": made.state.value,
            "integrity_ref": str(made.integrity_ref),
            "sentinel_ref": str(made.sentinel_ref),
        },
    )
