"""What an Admin finds: deliveries, events and statistics. Each has the fields that the command prints with `--json`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery in a list. `state` and `waiting_for` are those of docs/lifecycle.md."""

    tenant_id: str
    delivery_id: str
    endpoint_id: str
    event_id: str
    event_type: str
    state: str
    attempts: int
    budget_spent: int
    created_at: datetime
    next_attempt_at: datetime | None
    waiting_for: str | None
    last_error: str | None
    replay_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt. `signed_by` has the references of the secrets that signed it, the current one first."""

    number: int
    started_at: datetime
    duration_ms: int | None
    status: int | None
    outcome: str
    signed_by: tuple[str, ...]
    worker: str
    snippet: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryDetails(Delivery):
    """A delivery with every attempt, oldest first."""

    correlation_id: str | None
    attempt_log: tuple[AttemptRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedDelivery:
    """A delivery that is due again, or held with its endpoint. `replay_of` is what it repeats, if it has a new id."""

    tenant_id: str
    delivery_id: str
    endpoint_id: str
    event_id: str
    replay_of: str | None
    state: str
    waiting_for: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedDelivery:
    """A dead letter or a failed delivery that no longer stops its endpoint."""

    tenant_id: str
    delivery_id: str
    endpoint_id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """A job that replays many deliveries. `state` is running, done or cancelled; `rate` is per second.

    `filter` has its conditions. `matched` deliveries met them at the start. `skipped` counts those that were not
    replayed, by reason.
    """

    tenant_id: str
    replay_id: str
    state: str
    filter: Mapping[str, Any]
    rate: int
    matched: int
    replayed: int
    skipped: Mapping[str, int]
    remaining: int
    started_at: datetime
    moved_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCount:
    """How many deliveries a replay job would send again, and how many it would skip, by the reason."""

    would_replay: int
    would_skip: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event in a list, without its payload."""

    tenant_id: str
    event_id: str
    event_type: str
    occurred_at: datetime
    correlation_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDelivery:
    """A delivery of an event."""

    delivery_id: str
    endpoint_id: str
    state: str
    attempts: int
    created_at: datetime
    last_error: str | None
    replay_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDetails(Event):
    """An event with its deliveries, the oldest thousand of them, oldest first."""

    deliveries: tuple[EventDelivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodStats:
    """The attempts of a period: how many, how many were delivered, their share, and how long they took."""

    attempts: int
    delivered: int
    success_rate: float | None
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStats:
    """How an endpoint does: its state, its deliveries that are pending or wait, and its attempts."""

    tenant_id: str
    endpoint_id: str
    state: str
    pending: int
    waiting: int
    oldest_due_at: datetime | None
    last_hour: PeriodStats
    last_day: PeriodStats
