"""Results about events and the catalogue of their types."""

from dataclasses import dataclass, field
from datetime import datetime

from hookseal.ground.literals import DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event in a list, without its payload. With `channels` it went to endpoints that share one or have none."""

    tenant_id: str
    event_id: str
    event_type: str
    occurred_at: datetime
    correlation_id: str | None
    traceparent: str | None
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDelivery:
    """A delivery of an event."""

    delivery_id: str
    endpoint_id: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    last_error: str | None
    replay_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetails(StoredEvent):
    """An event with its deliveries, the oldest thousand of them, oldest first."""

    deliveries: tuple[EventDelivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """An event type of the catalogue. `schemas` is the text of a JSON object with a JSON schema for each version."""

    name: str
    description: str
    schemas: str | None = field(repr=False)
    deprecated: bool
    archived: bool
    created_at: datetime
    updated_at: datetime
