"""The results of an Admin, which are what commands print with `--json`: field by field, in this order.

A field that is declared with `HIDDEN` is not printed, and a secret is printed as null unless somebody asks for it. No
repr shows a secret. Times have the zone UTC. A url and a snippet are left out of the repr, because they may contain
what is confidential.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from hookseal.dispatcher.core.concerns import Concern
from hookseal.dispatcher.core.why import Explanation
from hookseal.ground.literals import (
    AlgorithmName,
    ContradictionName,
    DeliveryState,
    EndpointState,
    Lead,
    LimitName,
    MasterKeyState,
    OnDeadLetterName,
    OutcomeName,
    ProviderName,
    ReplayState,
    SchemeName,
    ScopeName,
    StaleKindName,
    TokenState,
    TroubledState,
    VerdictName,
    VersionStateName,
    WaitingReason,
)
from hookseal.secrets.core.material import SecretMaterial

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Result = TypeVar("Result", bound=DataclassInstance)
else:
    Result = TypeVar("Result")
T = TypeVar("T")

HIDDEN: Final = {"hidden": True}  # the metadata of a field that no command prints as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Up to `limit` results. `next_cursor` is the cursor of the next page, None after the last one."""

    items: tuple[T, ...]
    next_cursor: str | None


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

    `before` and `after` have the values of these fields: of headers the names, of TLS the part that may be shown.
    """

    tenant_id: str
    endpoint_id: str
    generation: int
    changed: tuple[str, ...]
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
    replay: "ReplayJob | None"


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
class PingAddress:
    """An address of the receiver's host name. One that is not `allowed` is not dialled; `reason` says why."""

    address: str
    allowed: bool
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PingTls:
    """The result of a TLS handshake, and the certificate of the receiver."""

    version: str | None
    cipher: str | None
    subject: str
    issuer: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """A ping as it was sent. Of the headers that the endpoint adds, `own_headers`, only the names are known."""

    headers: Mapping[str, str]
    own_headers: tuple[str, ...]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedContent:
    """What one secret signed, the headers with the signature, and what a receiver computes to verify it."""

    secret_ref: str
    scheme: SchemeName
    algorithm: AlgorithmName
    content: str
    content_base64: str
    headers: Mapping[str, str]
    receiver_computes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PingAnswer:
    """The answer to a ping. `outcome` is one of docs/outcomes.md, None if the ping could not begin."""

    outcome: OutcomeName | None
    status: int | None
    duration_ms: int
    snippet: str | None = field(repr=False)
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """A signed ping, how it reached the receiver, and the answer.

    If the host name could not be resolved, there are no `addresses`, and `addresses_error` says why. `dialled` is the
    address that was used, None if no request was sent.
    """

    tenant_id: str
    endpoint_id: str
    enabled: bool
    url: str = field(repr=False)
    addresses: tuple[PingAddress, ...]
    addresses_error: str | None
    dialled: str | None
    tls: PingTls | None
    request: PingRequest = field(repr=False)
    signed: tuple[SignedContent, ...] = field(repr=False)
    answer: PingAnswer

    @property
    def delivered(self) -> bool:
        """Whether the receiver answered with 2xx."""
        return self.answer.outcome == "delivered"

    @property
    def outcome(self) -> OutcomeName | None:
        """The outcome of the answer."""
        return self.answer.outcome

    @property
    def status(self) -> int | None:
        """The HTTP status of the answer."""
        return self.answer.status

    @property
    def detail(self) -> str | None:
        """What the answer means, in words."""
        return self.answer.detail

    @property
    def signed_by(self) -> tuple[str, ...]:
        """The references of the secrets that signed it."""
        return tuple(each.secret_ref for each in self.signed)


def of_row(kind: "type[Result]", row: Mapping[str, Any], **more: Any) -> "Result":
    """Return the result with the values of the row that have the names of its fields, and `more`.

    A field with a default may be missing.
    """
    values = {**row, **more}
    names = [each.name for each in fields(kind) if each.default is MISSING or each.name in values]
    return kind(**{name: _frozen(values[name]) for name in names})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


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
class SentExample:
    """An example for an endpoint: its event and its delivery. One that is not `due` waits, as `deliveries.why` says."""

    tenant_id: str
    endpoint_id: str
    event_id: str
    event_type: str
    delivery_id: str
    due: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedDelivery:
    """A dead letter or a failed delivery that no longer stops its endpoint."""

    tenant_id: str
    delivery_id: str
    endpoint_id: str
    state: DeliveryState


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayJob:
    """A job that replays many deliveries. `state` is running, done or cancelled; `rate` is per second.

    `filter` has its conditions. `matched` deliveries met them at the start. `skipped` counts those that were not
    replayed, by reason.
    """

    tenant_id: str
    replay_id: str
    state: ReplayState
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
    """How many deliveries a replay job would send again, and how many it would skip, by the reason.

    If it is not `complete`, there are more deliveries that were not looked at.
    """

    would_replay: int
    would_skip: Mapping[str, int]
    complete: bool = field(default=True, metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How much there is in the installation. A count of `most` (10,000) means so many or more.

    Of the `pending` deliveries, `due` ones may be sent now, the oldest of them for `oldest_due_seconds`; `not_due` ones
    wait for their next attempt; `waiting` ones wait for something else than their time, `waiting_for` each reason
    (docs/lifecycle.md): these three are all that is pending. Endpoints that are held have
    a refused secret or an open breaker; one that is stopped is ordered, and a delivery that was given up stops it.
    `dead_letters_of_day` were given up in the last 24 hours, of the newest 1,000. `rotations_due` are those by
    schedule whose time has come. `master_keys` counts the keys by state. A worker without a heartbeat in the last 30 s
    is not live.
    """

    tenants: int
    endpoints: int
    disabled_endpoints: int
    failing_endpoints: int
    held_endpoints: int
    stopped_endpoints: int
    pending: int
    due: int
    not_due: int
    oldest_due_seconds: float
    waiting: int
    waiting_for: Mapping[str, int]
    sending: int
    dead_letters: int
    dead_letters_of_day: int
    failed: int
    running_replays: int
    rotations_due: int
    master_keys: Mapping[str, int]
    live_workers: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantBacklog:
    """What is pending of a tenant: what of that is `due` now, and what is held (`waiting`), each up to a limit.

    A list of tenants counts up to 10,000, the status up to 1,000.

    `oldest_seconds` is for how long its oldest delivery has been due or held: None if nothing is due, and nothing but
    disabled endpoints holds a delivery.
    """

    tenant_id: str
    pending: int
    due: int
    waiting: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherTenants:
    """The tenants with pending deliveries that are not shown each by itself: how many, and their figures together."""

    tenants: int
    pending: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubledEndpoint:
    """An enabled endpoint that does not get everything at once.

    `state` is the first that is true of: held, for a `secret` or its `breaker` (`held_for`); stopped, by a delivery
    that was given up; failing; crowded, which means that it gets as much as its limit allows. It has been so `since`
    then; `reason` says why it is held. `waiting` deliveries are held, up to 1,000, the oldest for `oldest_seconds`.
    """

    tenant_id: str
    endpoint_id: str
    name: str | None
    url: str = field(repr=False)
    state: TroubledState
    held_for: WaitingReason | None
    since: datetime
    reason: str | None
    last_outcome: OutcomeName | None
    last_status: int | None
    last_attempt_at: datetime | None
    waiting: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A live worker: what it used at its last heartbeat, at most five seconds ago, how much it may use, and its limits.

    `requests` are in flight with so many `bytes` of bodies. `batch_connections` are those in use that claim and record,
    `connections` the others. All are None for a worker of an older version. `limited_by` has what stopped it for half
    of the last five seconds, or longer: requests, bytes, postgresql, redis or cpu, as the metric
    `hookseal_saturated_seconds_total` has it. One that `drains` takes no more deliveries; if it `overstays`, it should
    have ended. One that `cannot_record` knows an outcome that it cannot record, and
    sends nothing.
    """

    worker_id: str
    version: str
    started_at: datetime
    beaten_at: datetime
    drains: bool
    overstays: bool
    cannot_record: bool
    requests: int | None
    most_requests: int | None
    bytes: int | None
    most_bytes: int | None
    connections: int | None
    most_connections: int | None
    batch_connections: int | None
    most_batch_connections: int | None
    limited_by: tuple[LimitName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningReplay:
    """A replay job that runs, and for how long it has taken no step."""

    tenant_id: str
    replay_id: str
    matched: int
    replayed: int
    started_at: datetime
    idle_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstAttempts:
    """How long first attempts took to come after their publish, of the newest 1,000 deliveries of five minutes.

    `has_more` says whether more were published in that time, so that the percentiles are those of the newest only.
    Timed is the first attempt of a delivery that ended with it. A delivery that its endpoint held before that is
    left out: its secret was refused, its breaker was open, it was disabled, ordered or at a limit. One that is due
    and was not tried counts with the time until now. `waiting_for` counts those that are held and were not tried,
    by reason. Without a timed one the percentiles are None. `oldest_due_seconds` is for how long the oldest
    delivery has been due. First attempts meet the objective if the 95th percentile and that are at most
    `objective_seconds`, as the alert HooksealFirstAttemptSlow has it; None if none was timed.
    """

    number: int
    has_more: bool
    waiting_for: Mapping[str, int]
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    oldest_due_seconds: float
    objective_seconds: float
    meets_objective: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What an operator asks first about the whole installation, `at` this time.

    `must_act` has each reason why a person must act, with the command to run next: nothing if nobody must
    (docs/guide/running.md). `worth_a_look` has what nobody must act on, such as dead letters.
    `oldest_waiting_seconds` has for each reason to wait how long the oldest delivery has been held. `tenants` are
    the ten whose oldest delivery has been due or held for longest, and `other_tenants` the others together; these
    are `all_tenants` unless there are more than 2,000. `endpoints` are up to 20 in trouble, those first that have
    been for longest; `more_endpoints` if there are others. Of each tenant and endpoint up to `most_of_each`
    deliveries are counted. `leader` is the worker that leads, None if none does. `overlaps_ending` counts the
    endpoints whose previous secret stops to sign within a day. Finished deliveries have been kept since
    `oldest_finished_at`.
    """

    at: datetime
    must_act: tuple[Concern, ...]
    worth_a_look: tuple[Concern, ...]
    overview: Overview
    oldest_waiting_seconds: Mapping[str, float]
    tenants: tuple[TenantBacklog, ...]
    other_tenants: OtherTenants
    all_tenants: bool
    endpoints: tuple[TroubledEndpoint, ...]
    more_endpoints: bool
    most_of_each: int
    workers: tuple[WorkerStatus, ...]
    leader: str | None
    secrets_refused: int
    overlaps_ending: int
    first_attempts: FirstAttempts
    replays: tuple[RunningReplay, ...]
    oldest_finished_at: datetime | None


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
class Found:
    """What has a text as its id, in the whole installation.

    `tenant` has it as its id or uid, `delivery` as its id, which receivers see as `webhook-id`, and `events` as their
    id or correlation id, the newest first. If they are not `complete`, there may be more events.
    """

    tenant: "Tenant | None"
    delivery: Delivery | None
    events: tuple[StoredEvent, ...]
    complete: bool


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
class SigningSecrets:
    """The secrets that sign for an endpoint after a change, by reference.

    Only a rotation has a `rotation_id`, and a `secret` or `public_key` for the receiver. `older_claims` is the number
    of requests in flight that may still be signed with a secret that was retired; None if it is not known.
    """

    tenant_id: str
    endpoint_id: str
    secret_ref: str
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    generation: int
    rotation_id: str | None = None
    secret: SecretMaterial | None = None
    public_key: str | None = None
    older_claims: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation(SigningSecrets):
    """A rotation. `secret.reveal()` is what the receiver needs; for ed25519 that is the `public_key` instead.

    `repeated`: a rotation with this id was made before, and nothing was changed now. Its `secret` is then None unless
    it is still the current one.
    """

    rotation_id: str
    repeated: bool = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRotation:
    """A rotation that was made, and the version of the secret that it made."""

    rotation_id: str
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationSchedule:
    """The schedule of an endpoint's rotations. The last two are None until the next rotation is announced."""

    rotate_every_days: int
    due_at: datetime
    announced_at: datetime | None
    rotates_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What a receiver answered at that generation when it was asked whether it has switched to the current secret.

    `verdict` is switched, not_switched, does_not_verify (it accepts any signature, so nothing is proven) or no_answer.
    """

    verdict: VerdictName
    status: int | None
    control_status: int | None
    detail: str | None
    sent_at: datetime
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationStatus:
    """Which secrets sign for an endpoint, the rest of its overlap, and its last ten rotations, newest first.

    `older_claims` counts requests in flight from before the last change; None if it is not known. `canary` is the last
    one of this generation, or that of this call. `overlap_ended`: this call has ended the overlap.
    """

    tenant_id: str
    endpoint_id: str
    generation: int
    scheme: SchemeName
    algorithm: AlgorithmName
    lead: Lead
    secret_ref: str | None
    previous_secret_ref: str | None
    previous_scheme: SchemeName | None
    previous_algorithm: AlgorithmName | None
    previous_secret_expires_at: datetime | None
    overlapping: bool
    seconds_left: int | None
    stale: bool
    rotations: tuple[PastRotation, ...]
    older_claims: int | None
    schedule: RotationSchedule | None
    canary: Canary | None
    overlap_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedSecret:
    """The current secret of an endpoint. For ed25519 `secret` is None, and the receiver needs the `public_key`."""

    tenant_id: str
    endpoint_id: str
    secret_ref: str | None
    scheme: SchemeName
    algorithm: AlgorithmName
    generation: int
    secret: SecretMaterial | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """A version of an endpoint's secret, and its use. One that is not `needed` may be destroyed; `reason` says why."""

    ref: str
    state: VersionStateName
    scheme: SchemeName | None
    created_at: datetime
    changed_at: datetime
    signs: bool
    signs_until: datetime | None
    claims_in_flight: int
    attempts: int
    last_signed_at: datetime | None
    needed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """The public keys of the current secret, and of the previous one while an overlap runs; None if that has none."""

    tenant_id: str
    endpoint_id: str
    generation: int
    secret_ref: str
    public_key: str | None
    previous_secret_ref: str | None
    previous_secret_expires_at: datetime | None
    previous_public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """A row of the audit log: who changed what. `before` and `after` have the facts; their text, if it is forged.

    `at` is the time as RFC 3339 in UTC, with microseconds. Somebody who forged it may have written one that no
    `datetime` has.
    """

    tenant_id: str
    sequence: int
    at: str
    actor: str
    action: str
    subject: str
    before: Mapping[str, Any] | str | None
    after: Mapping[str, Any] | str | None
    correlation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedRow(AuditRow):
    """A row of the audit log with its MACs, in hex."""

    previous_mac: str
    mac: str
    mac_key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The last row of a tenant's audit log. One that is not `is_plausible` was not written by hookseal."""

    tenant_id: str
    head_sequence: int
    head_mac: str
    is_plausible: bool = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHeads:
    """The head of each tenant's audit log."""

    tenants: tuple[AuditHead, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRow:
    """The first row of an audit log that is not as hookseal wrote it, and how it differs."""

    sequence: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTenant:
    """A tenant's audit log up to its first broken row. The head is None if there is no row."""

    tenant_id: str
    rows: int
    head_sequence: int | None
    head_mac: str | None
    broken: BrokenRow | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContradictedHead:
    """A saved head that the log contradicts: the log is `older`, or `forked`. In JSON `how` has the name `is`."""

    tenant_id: str
    head_sequence: int
    head_mac: str
    how: ContradictionName = field(metadata={"printed": "is"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLog:
    """Whether the audit log is as hookseal wrote it, each tenant's log, and the saved heads that it contradicts."""

    intact: bool
    tenants: tuple[VerifiedTenant, ...]
    contradicted: tuple[ContradictedHead, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleEndpoint:
    """An endpoint that contradicts the audit log or its MAC.

    `kind` is endpoint, if the row is older than the log says; record, if one of its secrets is; lost, if the row is
    gone; altered, if something other than hookseal changed it.
    """

    tenant_id: str
    endpoint_id: str
    kind: StaleKindName
    generation: int | None
    audited_generation: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedEndpoint(StaleEndpoint):
    """An endpoint that cannot be accepted, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleEndpoints:
    """All endpoints that are stale: there is no next page."""

    items: tuple[StaleEndpoint, ...]
    next_cursor: None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRestore:
    """What was accepted: endpoints, and saved heads that the log contradicts. `refused` are the others.

    `epoch` is the new restore epoch, None if only one endpoint was accepted. `woken` deliveries waited for a secret: of
    each endpoint the oldest is tried, and the others follow once it is signed.
    """

    epoch: int | None
    woken: int
    accepted: tuple[StaleEndpoint, ...]
    refused: tuple[RefusedEndpoint, ...]
    contradicted: tuple[ContradictedHead, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialisedKeys:
    """The first master key, None with a provider that has none, and the references of the secrets that were created."""

    key_id: str | None
    state: str | None
    created: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKey:
    """A master key. `held`: the settings have it. `records` are under it, and `workers` live workers have it.

    An `unregistered` key has records, but is not in the table of keys: they cannot be opened.
    """

    key_id: str
    state: MasterKeyState
    held: bool
    records: int
    workers: int
    promoted_at: datetime | None
    drained_at: datetime | None
    compromised_at: datetime | None
    retired_at: datetime | None
    destroyed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKeys:
    """All master keys, oldest first: there is no next page; and how many endpoints have a plaintext secret."""

    items: tuple[MasterKey, ...]
    next_cursor: None
    plaintext_endpoints: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedKey:
    """A master key after a change; `was` is its state before, None if it was not registered.

    `older` are the keys whose records must be re-wrapped after it was promoted.
    """

    key_id: str
    state: MasterKeyState
    was: MasterKeyState | None
    promoted_at: datetime | None
    drained_at: datetime | None
    compromised_at: datetime | None
    retired_at: datetime | None
    destroyed_at: datetime | None
    older: tuple[str, ...] = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnopenedRecord:
    """A record that the key in its row does not open, and the code of the error."""

    tenant_id: str
    name: str
    version: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewrappedKey:
    """How many records were moved `to` another key, how many are left, and those that did not open."""

    key_id: str
    to: str | None
    moved: int
    left: int
    failed: tuple[UnopenedRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedVersion:
    """A secret version that was ever sealed under a key. Its endpoint uses it as current, previous, headers or tls."""

    tenant_id: str
    ref: str
    purpose: str
    state: str
    endpoint_id: str | None
    used_as: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedPlace:
    """What a leaked key sealed, and its endpoint."""

    tenant_id: str
    endpoint_id: str | None
    ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedReplacement(ExposedPlace):
    """What could not be replaced, and why."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPurge:
    """A tenant whose versions were not destroyed, or not all, and why."""

    tenant_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compromise:
    """What was replaced after a master key leaked; in a dry run, what would be. Of `versions` most no longer sign.

    Owners must replace the `header_values` and the `client_keys`.
    """

    key_id: str
    dry_run: bool
    overlap_seconds: int
    versions: int
    rotated: int
    overlaps_ended: int
    previous_still_signing: int
    integrity_rotated: bool
    header_values: tuple[ExposedPlace, ...]
    client_keys: tuple[ExposedPlace, ...]
    failed: tuple[FailedReplacement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrityKey:
    """The version of the integrity key that makes MACs now, and the ids of those that only verify, oldest first."""

    key_id: str
    integrity_ref: str
    older: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """How many versions were destroyed, or would be in a `dry_run`, and the tenants for which it failed.

    `tenant_id` is None if it was for every tenant.
    """

    tenant_id: str | None
    older_than_days: int
    dry_run: bool
    versions: int
    failed: tuple[FailedPurge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedCaches:
    """The new epoch of the caches, and how many deliveries waited for a secret."""

    epoch: int
    woken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedProducer:
    """The right of a database role to publish for a tenant. `changed`: it did not have it before."""

    role: str
    tenant_id: str
    granted_at: datetime
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedProducer:
    """A right that was revoked. `left_to_run` is a statement for a role with more rights, None if none is left.

    `still_for_every_tenant`: the role may publish for this tenant nevertheless, because it may for every one.
    """

    role: str
    tenant_id: str
    left_to_run: str | None
    still_for_every_tenant: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """The right of a role to publish for a tenant. It is `stale`, and no right, if its role was dropped."""

    role: str
    tenant_id: str
    granted_at: datetime
    role_exists: bool
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant. `uid` and `name` are what the product calls it, None if it said nothing, as of one that was not added.

    Such a tenant is known by its first endpoint, which was made at `created_at`. Only a list that was asked for it has
    the `backlog`.
    """

    tenant_id: str
    uid: str | None
    name: str | None
    metadata: Mapping[str, str] = field(repr=False)
    created_at: datetime
    updated_at: datetime
    backlog: TenantBacklog | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedTenant:
    """How many endpoints were deleted, pending deliveries cancelled and tokens revoked with a tenant."""

    tenant_id: str
    endpoints: int
    cancelled: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToken:
    """A new token. `token.reveal()` is its text, which nothing shows again. `tenant_id` `*` is every tenant.

    `tenant_is_known` is false if the tenant was not added and has no endpoint: it may be misspelled.
    """

    token_id: str
    name: str
    tenant_id: str
    tenant_is_known: bool
    scopes: tuple[ScopeName, ...]
    expires_at: datetime | None
    created_at: datetime
    token: SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token without its text. `state`: active, expired or revoked. `last_used_on` is a day in UTC.

    `revoked_at` is the time of its expiry if another token took its name after that. That of a `portal` may have the
    `user` whom the audit log names, and the `session_id` that the product gave.
    """

    token_id: str
    name: str
    tenant_id: str
    scopes: tuple[ScopeName, ...]
    state: TokenState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_on: date | None
    portal: bool
    user: str | None
    session_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalAccess:
    """What lets a customer in for a while: a token until `expires_at`, and a code for a link, used once.

    `token.reveal()` and `code.reveal()` are texts that nothing shows again. `url` is the link with the code, None
    without HOOKSEAL_PORTAL_URL. The audit log names what is done with the token `token:NAME/USER`.
    """

    token_id: str
    name: str
    tenant_id: str
    tenant_is_known: bool
    scopes: tuple[ScopeName, ...]
    user: str | None
    session_id: str | None
    created_at: datetime
    expires_at: datetime
    url: SecretMaterial | None
    token: SecretMaterial = field(metadata=HIDDEN)
    code: SecretMaterial = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalSession:
    """The session of a page, which began with a code: `token.reveal()` is its token, until `expires_at`.

    At `refresh_url` the product lets the user in again, None if it gave no address.
    """

    token_id: str
    name: str
    tenant_id: str
    scopes: tuple[ScopeName, ...]
    user: str | None
    session_id: str | None
    created_at: datetime
    expires_at: datetime
    refresh_url: str | None
    token: SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredPortals:
    """How many tokens of the portals of a tenant ended, or will end in the time that was given."""

    tenant_id: str
    tokens: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEndpoint:
    """An endpoint whose secret stays as it was, and why."""

    tenant_id: str
    endpoint_id: str
    code: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigratedSecrets:
    """How many endpoints were migrated, or would be in a `dry_run`, and how many were sealed before (`present`).

    `column` is the state of the column of plaintext secrets afterwards: there, forbidden or gone. `also_standard`
    counts endpoints that sign in `x-webhook` with a secret that would be valid for `standard`, too. `emptied` endpoints
    have no plaintext any more. `failed` has the first 100 of the failures. `finalized`: this call forbade plaintext.
    """

    dry_run: bool
    finalize: bool
    scheme: SchemeName
    column: str
    migrated: int
    present: int
    also_standard: int
    emptied: int
    failures: int
    failed: tuple[FailedEndpoint, ...]
    finalized: bool = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedSecrets:
    """How many endpoints have their secrets at the provider `to` by this call, had them before, or are gone.

    A `dry_run` counts those that would be moved. `own` are the references of the installation's own secrets that were
    moved. `failed` has the first 100 of the failures.
    """

    to: ProviderName
    dry_run: bool
    moved: int
    present: int
    gone: int
    own: tuple[str, ...]
    failures: int
    failed: tuple[FailedEndpoint, ...]
