"""Who may publish for whom, granted and revoked, audited: with the tenant, or with the installation for `*`."""

from hookseal.audit.entry import Action, Change
from hookseal.dispatcher import producers
from hookseal.dispatcher.producers import EVERY_TENANT, Granted, Revoked
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.operations.operator import Operator


async def grant(operator: Operator, role: str, tenant: TenantId) -> Granted:
    """Let the role publish for the tenant; a right that it has changes nothing, and is not audited again.

    Raises `NotFound`, `Refused` with the statement to run where this role may not grant, `Unavailable`.
    """
    async with operator.changing() as connection:
        granted = await producers.grant(connection, role, tenant)
        if granted.changed:
            await operator.tell(_change(Action.PRODUCER_GRANTED, role, tenant))
    return granted


async def revoke(operator: Operator, role: str, tenant: TenantId) -> Revoked:
    """Take the role's right to publish for the tenant. Raises `NotFound`, `Unavailable`."""
    async with operator.changing() as connection:
        revoked = await producers.revoke(connection, role, tenant)
        await operator.tell(_change(Action.PRODUCER_REVOKED, role, tenant))
    return revoked


def _change(action: Action, role: str, tenant: TenantId) -> Change:
    right = {"role": role, "tenant_id": tenant}
    return Change(
        tenant_id=SYSTEM_TENANT if tenant == EVERY_TENANT else tenant,
        action=action,
        subject=f"producer:{role}",
        before=right if action is Action.PRODUCER_REVOKED else None,
        after=right if action is Action.PRODUCER_GRANTED else None,
    )
