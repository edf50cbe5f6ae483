"""What has an id that an operator looks for."""

from dataclasses import dataclass

from hookseal.admin.results.deliveries import Delivery
from hookseal.admin.results.events import StoredEvent
from hookseal.admin.results.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What has a text as its id, in the whole installation.

    `tenant` has it as its id or uid, `delivery` as its id, which receivers see as `webhook-id`, and `events` as their
    id or correlation id, the newest first. If they are not `complete`, there may be more events.
    """

    tenant: Tenant | None
    delivery: Delivery | None
    events: tuple[StoredEvent, ...]
    complete: bool
