"""The status of the installation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from hookseal.dispatcher.core.concerns import Concern
from hookseal.ground.literals import LimitName, OutcomeName, TroubledState, WaitingReason


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
