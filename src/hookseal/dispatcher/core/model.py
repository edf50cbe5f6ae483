"""The records that pass between the steps of a delivery. They carry no secret and do nothing.

Records that are made for each delivery, or for each endpoint of a claim, are structs of msgspec: to make a frozen
dataclass takes ten times as long.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.ground.pointer import Pointer


class State(StrEnum):
    """Where a delivery stands (docs/lifecycle.md)."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD_LETTER = "dead_letter"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WaitingFor(StrEnum):
    """Why a pending delivery is held: it is not due until its endpoint is released, or its lane has room."""

    SECRET = "secret"  # noqa: S105 -- the name of a state
    ENDPOINT_DISABLED = "endpoint_disabled"
    BREAKER = "breaker"
    RATE = "rate"
    CONCURRENCY = "concurrency"
    ORDER = "order"


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """The ids in a job in Redis. A ring says only that this delivery may be due.

    `is_parked` marks a delivery that a worker has taken from a crowded lane: its claim may take it while it waits.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId
    delivery_id: DeliveryId
    is_parked: bool = False


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How often an endpoint is tried, and how long after a failure it is tried again.

    `schedule`, if there is one, contains the seconds between the attempts; base and cap are then not used.
    `attempts_allowed` counts the first attempt.
    """

    attempts_allowed: int
    backoff_base_seconds: int
    backoff_cap_seconds: int
    schedule: tuple[int, ...] | None


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How much an endpoint takes at once: requests in flight, and requests a second. None: there is no such limit.

    Both are limits of the whole fleet. An `ordered` endpoint gets one request at a time.
    """

    concurrency: int | None = None
    rate: int | None = None
    ordered: bool = False


NO_PACE: Final = Pace()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim has read from the row of the endpoint.

    `is_failing` is true if the row says that no attempt has succeeded for a while.
    """

    pointer: Pointer
    enabled: bool
    timeout_ms: int
    retries: Retries
    is_failing: bool = False
    pace: Pace = NO_PACE


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that this worker has reserved until the lease expires, with everything that one attempt needs.

    `number` counts attempts from 1 and continues after a replay. `budget_spent` is the number of attempts before this
    one since the delivery was published or last replayed. `claimed_at` is the time of the claim by the clock of the
    database, which is when the attempt began; `created_at` is when the delivery was created. `target` is None if the
    endpoint row does not exist. `endpoint_lost` is true if, in addition, the audit log has no entry of its deletion.
    `is_probe` is None if the endpoint is not held. If it is held because its secret was refused or its breaker is open,
    one delivery at a time is the probe, and `is_probe` says whether it is this one; `held_for` says why it is held.
    `was_held` matters for a first attempt: whether something held the delivery before it for which hookseal is not to
    blame: a refused secret, a breaker, a disabled endpoint, the line of an ordered endpoint, or a lane without room.
    What waited in a line was held, also if hookseal itself delayed the head.
    """

    ring: Ring
    event_id: EventId
    event_type: str
    correlation_id: str | None
    traceparent: str | None
    body: bytes
    number: int
    budget_spent: int
    created_at: datetime
    claimed_at: datetime
    lease_token: str
    target: Target | None
    endpoint_lost: bool = False
    is_probe: bool | None = None
    held_for: WaitingFor | None = None
    tracestate: str | None = None
    was_held: bool = False

    @property
    def is_ordered(self) -> bool:
        """Whether the next delivery of its endpoint may begin only once this one is recorded."""
        return self.target is not None and self.target.pace.ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The result of claiming a batch of rings. A ring in none of the lists claims nothing, now or later: drop it.

    `busy` contains the rings whose delivery is due but could not be claimed now: another transaction has locked its
    row, or its body did not fit. `locked` contains those whose endpoint's row is locked, and `behind` those that have
    others before them in their line. `faulty` contains the rings that could not be claimed because of an error in
    hookseal, each with it. If such a delivery was claimed in the database, it is given back, or its lease expires.
    """

    claims: list[Claim]
    busy: list[Ring]
    locked: list[Ring] = field(default_factory=list)
    behind: list[Ring] = field(default_factory=list)
    faulty: list[tuple[Ring, Exception]] = field(default_factory=list)


class Masked(Protocol):
    """A value whose repr is masked and that cannot be copied or pickled."""

    def reveal(self) -> bytes:
        """Return the value. Only code that writes it into a request may call this."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """The TLS context for an endpoint that has a client certificate or certificate authorities of its own.

    `key` identifies it and contains no secret: it is a reference with its version, or a digest of public values.
    Connections are shared only by requests with the same key and egress rights. A new `context` under a known key
    replaces the old one. At `expires_at`, by the clock of the event loop, all connections that were made with this
    context are closed; None if the context contains nothing that must be discarded.
    """

    key: str
    context: ssl.SSLContext = field(repr=False, compare=False)
    expires_at: float | None = field(default=None, compare=False)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One POST, ready to be sent.

    It begins (a connection is opened, or an idle one is written to) before `start_by`, a monotonic time, or not at all.
    It ends within `timeout_seconds`. `sealed_headers` are the headers of the endpoint: names in lower case, and values
    that no repr shows. They are sent in addition to `headers`, and never replace one of these. Without `tls` the
    receiver must have a certificate that this installation trusts, and hookseal presents none.
    """

    tenant_id: TenantId
    url: str
    headers: dict[str, str]
    body: bytes
    start_by: float
    timeout_seconds: float
    sealed_headers: Mapping[str, Masked] = msgspec.field(default_factory=dict)
    tls: TlsIdentity | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The receiver answered with a status. `snippet` is at most 2 KiB of the body.

    `retry_after` contains the unchanged values of that header, at most four of at most 64 characters.
    """

    status: int
    snippet: str
    retry_after: tuple[str, ...] = ()


class FailureKind(StrEnum):
    """The ways in which a request can end without a status."""

    TIMEOUT = "timeout"
    TLS = "tls"
    DNS = "dns"
    CONNECTION = "connection"
    FORBIDDEN_ADDRESS = "forbidden_address"
    PROTOCOL = "protocol"
    PROXY = "proxy"
    INVALID_URL = "invalid_url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The request ended without a status. `detail` says how; it contains no text from the receiver."""

    kind: FailureKind
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBegun:
    """The request was not begun: nothing of it was written.

    `missing_resource` names what this machine had none left of (`EMFILE`, for instance); None if it had everything.
    Then it was too late to begin or, if `is_unrecordable`, its outcome could not have been recorded.
    """

    missing_resource: str | None = None
    is_unrecordable: bool = False


Answer = Reply | Failure | NotBegun


class OnDeadLetter(StrEnum):
    """What a dead letter, or a delivery that failed, does to the line of its ordered endpoint."""

    STOP = "stop"
    SKIP = "skip"


class Outcome(StrEnum):
    """How an attempt ended. A failure of the receiver is one of these, never an exception."""

    DELIVERED = "delivered"
    GONE = "gone"
    THROTTLED = "throttled"
    REDIRECT = "redirect"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"
    UNEXPECTED_STATUS = "unexpected_status"
    TIMEOUT = "timeout"
    TLS = "tls"
    DNS = "dns"
    CONNECTION = "connection"
    FORBIDDEN_ADDRESS = "forbidden_address"
    PROTOCOL = "protocol"
    PROXY = "proxy"
    INVALID_URL = "invalid_url"
    UNKNOWN = "unknown"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from an attempt: the new state of its delivery and, if that is pending, when it is due again.

    `disable` is the reason for which the endpoint is disabled; None if it stays enabled.
    """

    state: State
    retry_in_seconds: float = 0.0
    disable: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as it is stored in `attempts`. `signed_by` contains secret references, the current one first."""

    outcome: Outcome
    status: int | None
    duration_ms: int | None
    snippet: str | None
    signed_by: tuple[str, ...]


class FinishedAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """A finished attempt and what follows from it: everything that is to be recorded."""

    claim: Claim
    attempt: Attempt
    verdict: Verdict
    error: str | None


class Recorded(StrEnum):
    """The result of recording an outcome."""

    STORED = "stored"
    LEASE_LOST = "lease_lost"
    BUSY = "busy"  # another transaction has locked the row, or changed it at the same moment
