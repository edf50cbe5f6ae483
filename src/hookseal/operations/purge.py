"""Destroying what was retired for long, audited: a row for every version, in the transaction that ends its material."""

from hookseal.audit.entry import Action, Change
from hookseal.ground.ids import TenantId
from hookseal.operations.operator import Operator
from hookseal.secrets import retention
from hookseal.secrets.retention import BATCH, Past


async def purge_batch(operator: Operator, tenant: TenantId, *, days: int) -> int:
    """Destroy up to a batch of the tenant's versions that were retired so many days ago; return how many.

    Fewer than `BATCH` means that for now none is left. Raises `Refused` if the tenant's audit log takes no row,
    and `Unavailable`; nothing of the batch is destroyed then.
    """
    async with operator.changing() as connection:
        doomed = await retention.find(connection, tenant, days=days)
        if doomed:
            await retention.destroy(connection, tenant, doomed)
        for each in doomed:
            await operator.tell(_change(tenant, each))
    return len(doomed)


async def purgeable(operator: Operator, tenant: TenantId, *, days: int) -> int:
    """Return how many versions `purge_batch` would destroy now, all batches together. Raises `Unavailable`."""
    count, last = 0, None
    async with operator.changing() as connection:
        while found := await retention.find(connection, tenant, days=days, after=last):
            count, last = count + len(found), found[-1]
            if len(found) < BATCH:
                break
    return count


def _change(tenant: TenantId, destroyed: Past) -> Change:
    return Change(
        tenant_id=tenant,
        action=Action.SECRET_DESTROYED,
        subject=f"secret:{destroyed.ref}",
        before={"state": "retired", "retired_at": destroyed.retired_at, "key_id": destroyed.key_id},
        after={"state": "destroyed"},
    )
