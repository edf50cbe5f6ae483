"""Reads the payload of an event, audited: it may contain personal data, which its reader must answer for."""

from hookseal.audit.entry import Action
from hookseal.dispatcher import event_queries
from hookseal.ground.ids import EventId, TenantId
from hookseal.operations.operator import Operator


async def read_payload(operator: Operator, tenant: TenantId, event_id: EventId) -> bytes:
    """Audit and return the body of the event, byte for byte as it is sent. Raises `NotFound` and `Unavailable`."""
    async with operator.changing() as connection:
        body = await event_queries.body(connection, tenant, event_id)
        await operator.audit(
            Action.PAYLOAD_READ, of=f"event:{event_id}", tenant=tenant, after={"body_bytes": len(body)}
        )
    return body
