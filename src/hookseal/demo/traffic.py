"""The traffic that the table of the demo counts: 50 events for two tenants and three endpoints."""

from collections import Counter
from typing import Final

from hookseal.demo.result import Line
from hookseal.demo.stage import Added, Stage, patience
from hookseal.dispatcher.model import State
from hookseal.ground.ids import TenantId

EVENTS: Final = 50
_ENDPOINTS: Final = (  # path, what it subscribes to
    ("/acme/invoices", "invoice.*"),
    ("/acme/everything", "*"),
    ("/globex/everything", "*"),
)
_EVENTS: Final = (("acme", "invoice.paid"), ("globex", "user.created"), ("acme", "user.created"))


async def tell(stage: Stage) -> list[Line]:
    """Publish, wait until every delivery arrived and is on record, and return what became of them.

    Raises `Unavailable`.
    """
    endpoints = [await stage.add(path, subscription) for path, subscription in _ENDPOINTS]
    expected: Counter[str] = Counter()
    for number in range(EVENTS):
        tenant, event_type = _EVENTS[number % len(_EVENTS)]
        deliveries = await stage.publish(TenantId(tenant), event_type, number)
        expected.update(ring.endpoint_id for ring in deliveries)
    async with patience():
        for endpoint in endpoints:
            await stage.settled(endpoint)
    return [await _line(stage, endpoint, expected[endpoint.endpoint_id]) for endpoint in endpoints]


async def _line(stage: Stage, endpoint: Added, deliveries: int) -> Line:
    return Line(
        tenant=endpoint.tenant_id,
        endpoint=endpoint.path,
        deliveries=deliveries,
        delivered=(await stage.states(endpoint)).get(State.DELIVERED, 0),
        verified=len(stage.receiver.verified(endpoint.path)),
        refused=stage.receiver.refused(endpoint.path),
    )
