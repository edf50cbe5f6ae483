"""What was found to be put back, audited once: the row in the log is the memory of it."""

from dataclasses import dataclass

from hookseal.audit import log
from hookseal.audit.entry import Action, Change
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.operator import Operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A row of an endpoint, or of its secrets, that is older than what is known of it, under an epoch of restores."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    generation: int
    reason: str
    restore_epoch: int


async def tell_put_back(operator: Operator, found: Finding) -> bool:
    """Audit what was found, unless the log has it already, of this epoch and since the endpoint was last accepted.

    Returns whether it was new.

    Raises `Unavailable`, and `Refused` where the SQL role may not write the log.
    """
    subject = f"endpoint:{found.endpoint_id}"
    facts = {"found_generation": found.generation, "reason": found.reason, "restore_epoch": found.restore_epoch}
    async with operator.changing() as connection:
        await log.hold(connection, found.tenant_id)  # of many who find it at the same time one audits it
        told = await log.told(
            connection, found.tenant_id, subject, Action.ROLLBACK_FOUND, since=Action.RESTORE_ACCEPTED
        )
        if facts in told:
            return False
        await operator.tell(
            Change(tenant_id=found.tenant_id, action=Action.ROLLBACK_FOUND, subject=subject, after=facts)
        )
    return True
