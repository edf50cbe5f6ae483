"""The traffic in the table of the demo: 50 events for two tenants and three endpoints."""

from collections import Counter
from typing import Final

from hookseal.demo.result import Line
from hookseal.demo.stage import AddedEndpoint, Stage, time_limit
from hookseal.dispatcher.core.model import State
from hookseal.ground.ids import TenantId

EVENTS: Final = 50
_ENDPOINTS: Final = (  # path, subscription
    ("/acme/invoices", "invoice.*"),
    ("/acme/everything", "*"),
    ("/globex/everything", "*"),
)
_EVENTS: Final = (("acme", "invoice.paid"), ("globex", "user.created"), ("acme", "user.created"))


async def run_traffic(stage: Stage) -> list[Line]:
    """Publish, wait until every delivery has arrived and is recorded, and return the counts for each endpoint.

    Raises `Unavailable`.
    """
    endpoints = [await stage.add(path, subscription) for path, subscription in _ENDPOINTS]
    expected: Counter[str] = Counter()
    for number in range(EVENTS):
        tenant, event_type = _EVENTS[number % len(_EVENTS)]
        deliveries = await stage.publish(TenantId(tenant), event_type, number)
        expected.update(ring.endpoint_id for ring in deliveries)
    async with time_limit():
        for endpoint in endpoints:
            await stage.wait_until_done(endpoint)
    return [await _line(stage, endpoint, expected[endpoint.endpoint_id]) for endpoint in endpoints]


async def _line(stage: Stage, endpoint: AddedEndpoint, deliveries: int) -> Line:
    return Line(
        tenant=endpoint.tenant_id,
        endpoint=endpoint.path,
        deliveries=deliveries,
        delivered=(await stage.states(endpoint)).get(State.DELIVERED, 0),
        verified=len(stage.receiver.verified(endpoint.path)),
        refused=stage.receiver.refused(endpoint.path),
    )
