"""What is read about a delivery to explain where it stands. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from hookseal.dispatcher.core.model import State, WaitingFor
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId

HELD_DAYS: Final = 7  # the default of HOOKSEAL_HELD_DAYS, which only the workers know


@dataclass(frozen=True, slots=True, kw_only=True)
class LastAttempt:
    """The newest attempt on record. `ended_at` is when it began, if its duration is unknown."""

    number: int
    outcome: str
    status: int | None
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """The endpoint of the delivery. `attempts_allowed` is the budget of each of its deliveries.

    `rate` is its limit in requests a second, None if it has none.
    """

    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    attempts_allowed: int
    rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read about a delivery at the moment `now`, by the clock of the database.

    `endpoint` is None if its row does not exist. `held_for` is what its endpoint is held for (its breaker or a secret)
    and `probe_at` when it is probed next: None if it is not held. In the line of an ordered endpoint, `ahead` is the
    first delivery, if that is not this one, `ahead_state` its state, and `number_ahead` counts those that come before
    this one, up to 10,000. `stops_line` says whether this one was given up and the others wait for an operator.
    `live_workers` counts recent heartbeats, and `has_leader` says whether one of these workers leads the outbox.
    """

    now: datetime
    tenant_id: TenantId
    delivery_id: DeliveryId
    endpoint_id: EndpointId
    state: State
    waiting_for: WaitingFor | None
    held_at: datetime | None
    next_attempt_at: datetime | None
    rung_at: datetime | None
    finished_at: datetime | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    claimed_at: datetime | None
    claimed_number: int | None
    budget_spent: int
    last_error: str | None
    last_attempt: LastAttempt | None
    endpoint: EndpointFacts | None
    held_for: WaitingFor | None
    probe_at: datetime | None
    ahead: DeliveryId | None
    ahead_state: State | None
    number_ahead: int
    stops_line: bool
    live_workers: int
    has_leader: bool

    @property
    def of_endpoint(self) -> str:
        """The options that name the endpoint in a command."""
        return f"--tenant {self.tenant_id} --endpoint {self.endpoint_id}"

    @property
    def cancelled_at(self) -> datetime | None:
        """When it is cancelled by the default of HOOKSEAL_HELD_DAYS; None unless it waits for a disabled endpoint."""
        if self.held_at is None or self.waiting_for is not WaitingFor.ENDPOINT_DISABLED:
            return None
        return self.held_at + timedelta(days=HELD_DAYS)
