"""Sealing records under the active master key, audited: one row a batch, which tells from which key to which."""

from hookseal.audit.entry import Action, Change
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.operations.keys import ring_of
from hookseal.operations.operator import Operator
from hookseal.secrets import active_key, key_moves, key_rules, rewrap
from hookseal.secrets.key_rules import Use
from hookseal.secrets.rewrap import Batch, Place, Unopened


async def records_of(operator: Operator, key_id: str) -> int:
    """Return how many records are under that key. Raises `NotFound`, `Unavailable`."""
    async with operator.changing() as connection:
        await key_moves.life(connection, key_id)
        return (await key_moves.use(connection, key_id)).records


async def rewrap_batch(operator: Operator, key_id: str, after: Place, *, wait: bool) -> Batch | None:
    """Seal the next records of that key under the active one; None if there is nothing to do under this key.

    What somebody else holds is waited for, or left to another time. Raises `NotFound`, `Conflict` for the active
    key itself, `Refused` if this process holds one of the two not, `Unavailable`.
    """
    ring = ring_of(operator)
    held = key_id in {key.key_id for key in ring.keys}
    async with operator.changing() as connection:
        to = await active_key.settled(connection)  # and stays it, so that no batch is half under the one before
        found = await key_moves.life(connection, key_id)
        if not key_rules.must_rewrap(found.state, key_id, held=held, drained=found.drained_at is not None):
            return None
        done = await rewrap.batch(connection, ring.sealing_as(to), key_id, after, wait=wait)
        if done.moved:
            facts = {"to": done.to, "records": done.moved, "digest": done.digest}
            await operator.tell(_change(Action.KEY_REWRAPPED, key_id, facts))
    return done


async def finish_rewrap(operator: Operator, key_id: str) -> Use:
    """Return what still needs the key; if nothing does, that is on record: what is under it later was put back.

    Raises `NotFound`, `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.hold(connection)
        found = await key_moves.life(connection, key_id)
        left = await key_moves.use(connection, key_id)
        if not left.records and key_rules.may_be_drained(found.state) and found.drained_at is None:
            await key_moves.drained(connection, key_id)
            await operator.tell(_change(Action.KEY_DRAINED, key_id, {"records": 0}))
    return left


async def misnamed(operator: Operator, key_id: str) -> tuple[Unopened, ...]:
    """Return records that the key sealed, while their rows name another: no batch finds them. Raises `Unavailable`."""
    async with operator.changing() as connection:
        return await rewrap.misnamed(connection, key_id)


def _change(action: Action, key_id: str, after: dict[str, object]) -> Change:
    return Change(tenant_id=SYSTEM_TENANT, action=action, subject=f"key:{key_id}", after=after)
