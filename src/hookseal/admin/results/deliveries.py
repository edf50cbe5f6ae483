"""Results about deliveries and their attempts."""

from dataclasses import dataclass, field
from datetime import datetime

from hookseal.admin.results.base import HIDDEN
from hookseal.dispatcher.core.why import Explanation
from hookseal.ground.literals import DeliveryState, OutcomeName, WaitingReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery in a list. `state` and `waiting_for` are those of docs/lifecycle.md."""

    tenant_id: str
    delivery_id: str
    endpoint_id: str
    event_id: str
    event_type: str
    state: DeliveryState
    attempts: int
    budget_spent: int
    created_at: datetime
    next_attempt_at: datetime | None
    waiting_for: WaitingReason | None
    last_error: str | None
    replay_of: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt. `signed_by` has the references of the secrets that signed it, the current one first.

    `manual`: an operator caused it, by a replay, a resend or an example; otherwise a publish or the retry schedule did.
    `url` is where it was sent, also if the endpoint has another url now, or none; None if that is not known, as for an
    attempt from before revision 0002 of the schema.
    """

    number: int
    manual: bool
    url: str | None = field(repr=False)
    started_at: datetime
    duration_ms: int | None
    status: int | None
    outcome: OutcomeName
    signed_by: tuple[str, ...]
    worker: str
    snippet: str | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(AttemptRecord):
    """An attempt in a list, with its delivery and its event. Its id is that of the delivery, a dot and its number."""

    tenant_id: str
    attempt_id: str
    delivery_id: str
    endpoint_id: str
    event_id: str
    event_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryDetails(Delivery):
    """A delivery with every attempt, oldest first."""

    correlation_id: str | None
    attempt_log: tuple[AttemptRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedDelivery:
    """A delivery that is due again, or held with its endpoint. `replay_of` is what it repeats, if it has a new id.

    `explanation` says what it waits for, as `deliveries.why` does; None if it is due.
    """

    tenant_id: str
    delivery_id: str
    endpoint_id: str
    event_id: str
    replay_of: str | None
    state: DeliveryState
    waiting_for: WaitingReason | None
    explanation: Explanation | None = field(default=None, metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveriesByState:
    """How many deliveries of an endpoint are in each state. Unless they are `complete`, older ones were not counted."""

    tenant_id: str
    endpoint_id: str
    pending: int
    sending: int
    delivered: int
    dead_letter: int
    failed: int
    cancelled: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedDelivery:
    """A dead letter or a failed delivery that no longer stops its endpoint."""

    tenant_id: str
    delivery_id: str
    endpoint_id: str
    state: DeliveryState
