"""A tenant that has one of everything that a path of the API can name."""

from typing import Any

from hookseal import Admin
from hookseal.dispatcher.store.publish import NewEvent, publish_raw
from hookseal.ground.ids import TenantId
from tests import rows
from tests.api.test_contract import FORMS
from tests.doubles.stored import Installation


async def owned(
    installation: Installation, admin: Admin, tenant: str, *, payload: bytes = b"{}", **endpoint: Any
) -> dict[str, str]:
    """Give the tenant one of everything, and return the names. `delivery_id` is one that stops an ordered endpoint."""
    of: dict[str, Any] = {"tenant_id": tenant, "event_types": ["*"], "actor": "test"}
    made = await admin.endpoints.add(**of, url=f"https://{tenant}.example", **endpoint)
    ordered = await admin.endpoints.add(**of, url=f"https://ordered.{tenant}.example", ordered=True)
    event = NewEvent(tenant_id=TenantId(tenant), event_type="invoice.paid")
    published = await publish_raw(installation.pool, event, payload)
    deliveries = {str(ring.endpoint_id): ring.delivery_id for ring in published.deliveries}
    await rows.set_state(installation.pool, "dead_letter", *deliveries.values(), budget_spent=9, attempts=9)
    first = deliveries[made.endpoint_id]
    await rows.attempt(installation.pool, first, tenant=tenant)
    job = await admin.replays.start(tenant_id=tenant, endpoint_id=made.endpoint_id, actor="test")
    await admin.event_types.add(name=f"{tenant}.paid", description="Paid", actor="test")
    await admin.tokens.add(name=f"spare-{tenant}", tenant_id=tenant, scopes=["read"], actor="test")
    return FORMS | {
        "app_id": tenant,
        "endpoint_id": made.endpoint_id,
        "msg_id": published.event_id,
        "attempt_id": f"{first}.1",
        "delivery_id": deliveries[ordered.endpoint_id],
        "task_id": f"{tenant}.{job.replay_id}",
        "event_type_name": f"{tenant}.paid",
        "token_name": f"spare-{tenant}",
    }
