"""Adds, changes and deletes tenants, audited in the log of the tenant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import tenants, tokens
from hookseal.dispatcher.store.tenants import NewTenant
from hookseal.errors import Conflict, Refused
from hookseal.ground.ids import TenantId, may_be_tenant
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.operator import Operator
from hookseal.operations.tokens import audit_ends

MOST_ENDPOINTS: Final = 100  # so that the transaction ends within a few seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """A deleted tenant, and how many endpoints, pending deliveries and tokens ended with it."""

    tenant_id: TenantId
    endpoints: int
    cancelled: int
    tokens: int


async def add_tenant(operator: Operator, tenant: NewTenant) -> dict[str, Any]:
    """Store the tenant. Raises `Conflict` if its id or uid is taken, and `Unavailable`."""
    async with operator.changing() as connection:
        added = await tenants.add(connection, tenant)
        await operator.audit(
            Action.TENANT_ADDED, of=f"tenant:{added['tenant_id']}", tenant=added["tenant_id"], after=_facts(added)
        )
    return added


async def update_tenant(operator: Operator, wanted: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change the uid, the name or the metadata of the tenant with this id or uid. Without a difference nothing is done.

    Raises `NotFound`, `Conflict` if the uid is taken, `Refused` for a uid that could be the id of another tenant, and
    `Unavailable`.
    """
    async with operator.changing() as connection:
        before = await tenants.lock(connection, wanted)
        if all(before[name] == value for name, value in changes.items()):
            return before
        tenant: TenantId = before["tenant_id"]
        after = {name: changes.get(name, before[name]) for name in ("uid", "name", "metadata")}
        if after["uid"] not in {None, tenant} and may_be_tenant(after["uid"]):
            raise Refused(f"a uid that could be the id of a tenant must be the id of this one, {tenant}", field="uid")
        updated = await tenants.update(connection, NewTenant(tenant_id=tenant, **after))
        await operator.audit(
            Action.TENANT_UPDATED, of=f"tenant:{tenant}", tenant=tenant, before=_facts(before), after=_facts(updated)
        )
    return updated


async def delete_tenant(operator: Operator, wanted: str) -> Deleted:
    """Delete the tenant with this id or uid, with its endpoints, and revoke its tokens; its history stays.

    Its id is taken while events or deliveries of it are kept. Raises `NotFound`, `Conflict` if it has more than
    `MOST_ENDPOINTS` endpoints, and `Unavailable`; nothing is changed then.
    """
    async with operator.changing() as connection:
        before = await tenants.lock(connection, wanted)
        tenant: TenantId = before["tenant_id"]
        endpoints = await tenants.endpoints(connection, tenant, at_most=MOST_ENDPOINTS + 1)
        if len(endpoints) > MOST_ENDPOINTS:
            raise Conflict(
                f"the tenant has more than {MOST_ENDPOINTS} endpoints: delete endpoints first", field="tenant_id"
            )
        cancelled = sum([await delete_endpoint(operator, tenant, endpoint) for endpoint in endpoints])
        revoked = await tokens.revoke_all(connection, tenant)
        await audit_ends(operator, revoked)
        await tenants.delete(connection, tenant)
        counts = {"endpoints": len(endpoints), "cancelled_deliveries": cancelled, "revoked_tokens": len(revoked)}
        await operator.audit(
            Action.TENANT_DELETED, of=f"tenant:{tenant}", tenant=tenant, before=_facts(before), after=counts
        )
    return Deleted(tenant_id=tenant, endpoints=len(endpoints), cancelled=cancelled, tokens=len(revoked))


def _facts(tenant: Mapping[str, Any]) -> dict[str, object]:
    # Of the metadata only the names: a product may keep there what not every reader of the log may see.
    return {"uid": tenant["uid"], "name": tenant["name"], "metadata": sorted(tenant["metadata"])}
