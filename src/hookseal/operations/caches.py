"""Clearing every worker's cache of secrets, audited."""

from dataclasses import dataclass

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import waiting
from hookseal.ground.ids import SYSTEM_TENANT
from hookseal.operations.operator import Operator
from hookseal.secrets import epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """The epoch that every worker obeys at its next claim, and how many deliveries waited for a secret (`woken`).

    Of each endpoint the oldest is tried now; the others go out once it was signed.
    """

    epoch: int
    woken: int


async def clear_caches(operator: Operator) -> Cleared:
    """Have every worker forget the secrets that it has cached, and have one delivery tried of each refused endpoint.

    Raises `Unavailable`.
    """
    async with operator.changing() as connection:
        before = await epoch.locked(connection)
        moved = await epoch.move(connection)
        woken = await waiting.probe_all(connection)
        await operator.tell(
            Change(
                tenant_id=SYSTEM_TENANT,
                action=Action.CACHE_CLEARED,
                subject="cache",
                before={"epoch": before},
                after={"epoch": moved, "woken_deliveries": woken},
            )
        )
    return Cleared(epoch=moved, woken=woken)
