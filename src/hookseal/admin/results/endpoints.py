"""Results about endpoints, their statistics, and their import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hookseal.admin.results.base import HIDDEN
from hookseal.admin.results.replays import ReplayJob
from hookseal.ground.literals import (
    AlgorithmName,
    EndpointState,
    Lead,
    OnDeadLetterName,
    OutcomeName,
    SchemeName,
    WaitingReason,
)
from hookseal.secrets.core.material import SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint in a list.

    `state` is the first that is true of: disabled; held, because a secret is refused or its breaker is open; stopped,
    by a delivery of an ordered endpoint that was given up; failing; healthy. It has been so `state_since` then, None if
    it is healthy. `concurrency` is the most requests in
    flight, `rate` the most in a second. `lane` is what its lane waits for, and `lane_since` since when; both are None
    if it is open. If it is `ordered`, `on_dead_letter` says what a dead letter does to the others, stop or skip, and
    `stopped_by` is the delivery that was given up and stops them. With `channels` it gets only events that share one.
    `uid`, `description` and `metadata` are the product's own. `updated_at` is the time of the last change of a setting;
    a failure, and another secret, is none.
    """

    tenant_id: str
    endpoint_id: str
    uid: str | None
    state: EndpointState
    state_since: datetime | None
    name: str | None
    description: str = field(repr=False)
    metadata: Mapping[str, str] = field(repr=False)
    url: str = field(repr=False)
    event_types: tuple[str, ...]
    channels: tuple[str, ...]
    enabled: bool
    disabled_reason: str | None
    failing_since: datetime | None
    scheme: SchemeName
    algorithm: AlgorithmName
    generation: int
    concurrency: int | None
    rate: int | None
    ordered: bool
    on_dead_letter: OnDeadLetterName
    created_at: datetime
    updated_at: datetime
    lane: WaitingReason | None
    lane_since: datetime | None
    stopped_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """A failed attempt; `outcome` is one of docs/outcomes.md."""

    delivery_id: str
    event_id: str
    started_at: datetime
    outcome: OutcomeName
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDetails:
    """An endpoint as in a list, its other settings, the secrets that sign for it, and how many of its deliveries wait.

    Up to 10,000 pending deliveries are counted, and `waiting_since` and `waiting_for` are of these.
    `retry_schedule`, in seconds, replaces attempts and back-off. `tls` has the subject, the fingerprint and the expiry
    time of each of its certificates. `last_failure` is the last failed attempt among its newest thousand deliveries.
    `last_disabled_reason` and `last_disabled_at` say why and when it was disabled before it was enabled last.
    """

    tenant_id: str
    endpoint_id: str
    uid: str | None
    state: EndpointState
    state_since: datetime | None
    name: str | None
    description: str = field(repr=False)
    metadata: Mapping[str, str] = field(repr=False)
    url: str = field(repr=False)
    event_types: tuple[str, ...]
    channels: tuple[str, ...]
    enabled: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    last_disabled_reason: str | None
    last_disabled_at: datetime | None
    failing_since: datetime | None
    scheme: SchemeName
    algorithm: AlgorithmName
    timeout_ms: int
    max_attempts: int
    backoff_base_seconds: int
    backoff_cap_seconds: int
    retry_schedule: tuple[int, ...] | None
    attempts_allowed: int
    concurrency: int | None
    rate: int | None
    ordered: bool
    on_dead_letter: OnDeadLetterName
    secret_ref: str | None
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    previous_scheme: SchemeName | None
    previous_algorithm: AlgorithmName | None
    secret_provider: str | None
    secret_updated_at: datetime | None
    rotate_every_days: int | None
    header_names: tuple[str, ...]
    headers_ref: str | None
    tls: Mapping[str, Any] | None
    tls_ref: str | None
    lead: Lead
    generation: int
    has_plaintext: bool
    created_at: datetime
    updated_at: datetime
    stale: bool
    pending_deliveries: int
    waiting_deliveries: int
    waiting_since: datetime | None
    waiting_for: tuple[WaitingReason, ...]
    lane: WaitingReason | None
    lane_since: datetime | None
    stopped_by: str | None
    next_probe_at: datetime | None
    last_failure: FailedAttempt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEndpoint:
    """A new endpoint. `secret.reveal()` is what its receiver needs; for ed25519 that is the `public_key` instead.

    What only a rotation has is None.
    """

    tenant_id: str
    endpoint_id: str
    secret_ref: str
    previous_secret_ref: str | None = None
    previous_secret_expires_at: datetime | None = None
    generation: int
    rotation_id: str | None = None
    secret: SecretMaterial | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatedEndpoint:
    """The fields that were changed, and the generation of the endpoint after that.

    `dropped` names what did not go along to a url of another scheme, host or port: `headers.NAME` for a header,
    `client_cert` for the client certificate, and `ca` for authorities that could not be kept without it. `before` and
    `after` have the values of the changed fields: of headers the names, of TLS the part that may be shown.
    """

    tenant_id: str
    endpoint_id: str
    generation: int
    changed: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    before: Mapping[str, Any] = field(repr=False, metadata=HIDDEN)
    after: Mapping[str, Any] = field(repr=False, metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnabledEndpoint:
    """An endpoint that is enabled now. `changed`: it was not before.

    `woken` is the number of held deliveries that are released. If it is ordered, `in_line` more wait behind delivery
    `line_head`. `probed`: it was enabled already, and its deliveries are held; the oldest of them is tried now.
    `replay` is the job that sends what it missed, None if none was asked for, or if nothing is to be replayed.
    """

    tenant_id: str
    endpoint_id: str
    enabled: bool = True
    changed: bool
    woken: int
    in_line: int
    line_head: str | None
    probed: bool
    replay: ReplayJob | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriedEndpoint:
    """How many deliveries that waited for their next attempt are `due` now, and how many are `held` with the others."""

    tenant_id: str
    endpoint_id: str
    due: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DisabledEndpoint:
    """An endpoint that is disabled now, and why. `changed`: it was not before."""

    tenant_id: str
    endpoint_id: str
    enabled: bool = False
    disabled_reason: str | None
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedEndpoint:
    """An endpoint that was deleted, and how many of its pending deliveries were cancelled."""

    tenant_id: str
    endpoint_id: str
    deleted: bool = True
    cancelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SentExample:
    """An example for an endpoint: its event and its delivery. One that is not `due` waits, as `deliveries.why` says."""

    tenant_id: str
    endpoint_id: str
    event_id: str
    event_type: str
    delivery_id: str
    due: bool


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
    """How an endpoint does: its state, its deliveries that are pending or wait, and its attempts.

    `state_since` is since when it has its state, None if it is healthy. The oldest of what is due is due since
    `oldest_due_at`, and the oldest of what waits has waited since `waiting_since`.
    """

    tenant_id: str
    endpoint_id: str
    state: EndpointState
    state_since: datetime | None
    pending: int
    waiting: int
    oldest_due_at: datetime | None
    waiting_since: datetime | None
    last_hour: PeriodStats
    last_day: PeriodStats


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """A row that was not imported, by its line, and why. `field` names the value at fault, if it is one."""

    line: int
    code: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedEndpoints:
    """How many endpoints were added, or would be in a `dry_run`, and how many were `present` with the same secret.

    `failed` has the first 100 of the failures.
    """

    dry_run: bool
    added: int
    present: int
    failures: int
    failed: tuple[FailedRow, ...]
