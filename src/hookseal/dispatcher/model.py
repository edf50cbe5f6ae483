"""The records that pass between the steps of a delivery. They carry no secret and do nothing."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

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
    """Why a pending delivery is held back although it is due."""

    SECRET = "secret"  # noqa: S105 -- the name of a state
    ENDPOINT_DISABLED = "endpoint_disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """What a job in Redis says, no more: this delivery may be due."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    delivery_id: DeliveryId


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often an endpoint is tried, and how long after a failure it is tried again.

    `schedule`, if there is one, holds the seconds between the attempts and stands in place of base and cap.
    `attempts_allowed` counts the first attempt.
    """

    attempts_allowed: int
    backoff_base_seconds: int
    backoff_cap_seconds: int
    schedule: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the claim read of the endpoint row."""

    pointer: Pointer
    enabled: bool
    timeout_ms: int
    retries: Retries


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that is ours until the lease ends: everything one attempt needs.

    `number` counts attempts from 1, over replays too; `budget_spent` is how many were made before this one
    since the delivery was published or last replayed. `claimed_at` is the database's time of the claim,
    which is when the attempt began; `made_at` is when the delivery was made. `target` is None if the
    endpoint row is gone, and `endpoint_lost` tells that nobody deleted it as far as the audit log knows.
    `is_probe` is None unless the endpoint is held because a secret of it was refused: then one delivery at a time is
    tried, and it tells whether this is that one.
    """

    ring: Ring
    event_id: EventId
    event_type: str
    correlation_id: str | None
    traceparent: str | None
    body: bytes
    number: int
    budget_spent: int
    made_at: datetime
    claimed_at: datetime
    lease_token: str
    target: Target | None
    endpoint_lost: bool = False
    is_probe: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a batch of rings led to.

    `busy` are the rings whose delivery is due and could not be claimed now: somebody else holds its row or its
    endpoint's, or its body did not fit. Rings that are in neither list claim nothing, now or later.
    """

    claims: list[Claim]
    busy: list[Ring]


class Masked(Protocol):
    """A value that does not show itself: its repr masks it, and it refuses to be copied or pickled."""

    def reveal(self) -> bytes:
        """Return the value. Only what puts it on the wire may ask."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """How an endpoint of its own trust, or with a client certificate, is spoken to.

    `key` tells identities apart and holds no secret: a reference with its version, or a digest of what is public.
    Connections are shared only by requests with the same key and egress rights. A new `context` under a known key
    takes the place of the old one. `expires_at`, by the clock of the event loop, is when no connection is kept any
    more that was made with this context; None if it holds nothing that must be let go of.
    """

    key: str
    context: ssl.SSLContext = field(repr=False, compare=False)
    expires_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One POST, ready to be sent as it is.

    It is begun (dialled, or written on a kept connection) before `start_by`, a monotonic time, or not at all, and over
    within `timeout_seconds`. `sealed_headers` are the endpoint's own: names in lower case, values that
    no repr shows. They stand beside `headers`, which are ours, and never in the place of one of them. Without `tls`
    the receiver must be vouched for by what this installation trusts, and hookseal shows no certificate.
    """

    tenant_id: TenantId
    url: str
    headers: dict[str, str]
    body: bytes
    start_by: float
    timeout_seconds: float
    sealed_headers: Mapping[str, Masked] = field(default_factory=dict, repr=False)
    tls: TlsIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The receiver answered with a status. `snippet` is at most 2 KiB of what it said.

    `retry_after` holds the values of that header as they came, at most four of at most 64 characters.
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
    """The request ended without a status; `detail` says how, in our words, never the receiver's."""

    kind: FailureKind
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBegun:
    """The request was not begun: nothing of it was written.

    `lack` is what this machine lacked for it (`EMFILE`, for instance); None if it was too late to begin.
    """

    lack: str | None = None


Answer = Reply | Failure | NotBegun


class Outcome(StrEnum):
    """How an attempt ended. A failure of the other side is one of these, never an exception."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from an attempt: the state of its delivery and, if that is pending, when it is due again.

    `disable` is why the endpoint gets nothing more until an operator enables it, None if it goes on.
    """

    state: State
    retry_in_seconds: float = 0.0
    disable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt as the log of attempts keeps it. `signed_by` holds secret refs, current first."""

    outcome: Outcome
    status: int | None
    duration_ms: int | None
    snippet: str | None
    signed_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An attempt that was made, with what follows from it: all that is to be recorded."""

    claim: Claim
    attempt: Attempt
    verdict: Verdict
    error: str | None


class Recorded(StrEnum):
    """What became of an outcome that was to be recorded."""

    KEPT = "kept"
    LEASE_LOST = "lease_lost"
    BUSY = "busy"  # somebody else holds the row
