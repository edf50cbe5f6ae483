"""Re-wraps records under the active master key. Each batch has an audit row with the old and the new key."""

from hookseal.audit.entry import Action
from hookseal.operations.key.keys import ring_of
from hookseal.operations.operator import Operator
from hookseal.secrets.key import moves, rewrap, rules
from hookseal.secrets.key.rewrap import Batch, Cursor, Unopened
from hookseal.secrets.key.rules import Use
from hookseal.secrets.sealing import active_key


async def records_of(operator: Operator, key_id: str) -> int:
    """Return how many records are under that key. Raises `NotFound` and `Unavailable`."""
    async with operator.changing() as connection:
        await moves.life(connection, key_id)
        return (await moves.use(connection, key_id)).records


async def rewrap_batch(operator: Operator, key_id: str, after: Cursor, *, wait: bool) -> Batch | None:
    """Re-wrap the next records of that key under the active one; return None if the key has nothing to re-wrap.

    With `wait` it waits for locked rows, else it skips them. Raises `NotFound`, `Conflict` if it is the active key,
    `Refused` if this process lacks one of the two keys, and `Unavailable`.
    """
    ring = ring_of(operator)
    has_key = key_id in {key.key_id for key in ring.keys}
    async with operator.changing() as connection:
        to = await active_key.lock_shared(connection)  # it stays active, so that a batch has one new key
        found = await moves.life(connection, key_id)
        if not rules.must_rewrap(found.state, key_id, held=has_key, drained=found.drained_at is not None):
            return None
        done = await rewrap.batch(connection, ring.sealing_as(to), key_id, after, wait=wait)
        if done.moved:
            facts = {"to": done.to, "records": done.moved, "digest": done.digest}
            await operator.audit(Action.KEY_REWRAPPED, of=f"key:{key_id}", after=facts)
    return done


async def finish_rewrap(operator: Operator, key_id: str) -> Use:
    """Return what still needs the key. If no record does, mark it as drained: a record under it is stale from then on.

    Raises `NotFound` and `Unavailable`.
    """
    async with operator.changing() as connection:
        await active_key.lock_exclusive(connection)
        found = await moves.life(connection, key_id)
        left = await moves.use(connection, key_id)
        if not left.records and rules.may_be_drained(found.state) and found.drained_at is None:
            await moves.drained(connection, key_id)
            await operator.audit(Action.KEY_DRAINED, of=f"key:{key_id}", after={"records": 0})
    return left


async def altered(operator: Operator, key_id: str) -> tuple[Unopened, ...]:
    """Return records that the key once sealed and that now name one that never did. Raises `Unavailable`."""
    async with operator.changing() as connection:
        return await rewrap.altered(connection, key_id)
