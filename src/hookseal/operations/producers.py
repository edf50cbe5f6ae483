"""Grants and revokes the right to publish, audited in the log of the tenant, or of the installation for `*`."""

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import producers
from hookseal.dispatcher.store.producers import Granted, Revoked
from hookseal.ground.ids import TenantId
from hookseal.operations.operator import Operator


async def grant(operator: Operator, role: str, tenant: TenantId) -> Granted:
    """Let the role publish for the tenant. If it already may, nothing is changed or audited.

    Raises `NotFound`, `Refused`, with the statement to run, if this role may not grant, and `Unavailable`.
    """
    async with operator.changing() as connection:
        granted = await producers.grant(connection, role, tenant)
        if granted.changed:
            await operator.audit(
                Action.PRODUCER_GRANTED, of=f"producer:{role}", tenant=tenant, after=_right(role, tenant)
            )
    return granted


async def revoke(operator: Operator, role: str, tenant: TenantId) -> Revoked:
    """Remove the role's right to publish for the tenant. Raises `NotFound` and `Unavailable`."""
    async with operator.changing() as connection:
        revoked = await producers.revoke(connection, role, tenant)
        await operator.audit(Action.PRODUCER_REVOKED, of=f"producer:{role}", tenant=tenant, before=_right(role, tenant))
    return revoked


def _right(role: str, tenant: TenantId) -> dict[str, object]:
    return {"role": role, "tenant_id": tenant}
