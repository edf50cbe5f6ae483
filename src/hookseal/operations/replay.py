"""Replaying a delivery, audited. It needs no Redis: the outbox rings what is due."""

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import replay
from hookseal.dispatcher.model import State
from hookseal.dispatcher.replay import Replayed
from hookseal.ground.ids import DeliveryId
from hookseal.operations.operator import Operator


async def replay_delivery(operator: Operator, wanted: DeliveryId, *, new_id: bool) -> Replayed:
    """Make a delivery that is over due again, with a fresh budget; with `new_id` as a new delivery.

    Raises `NotFound`, `Conflict` while it is on its way, `Refused` if its endpoint is disabled, `Unavailable`.
    """
    async with operator.changing() as connection:
        replayed = await replay.replay(connection, wanted, new_id=new_id)
        state, attempts = replayed.before
        await operator.tell(
            Change(
                tenant_id=replayed.tenant_id,
                action=Action.DELIVERY_REPLAYED,
                subject=f"delivery:{wanted}",
                before={"state": state.value, "attempts": attempts},
                after={
                    "state": State.PENDING.value,
                    "delivery_id": replayed.delivery_id,
                    "replay_of": replayed.replay_of,
                },
            )
        )
    return replayed
