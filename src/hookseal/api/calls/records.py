"""What an operator watches: the audit log of a tenant, and how much there is in the whole installation."""

from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec

from hookseal.admin import AuditRow, Scope
from hookseal.api.call import OURS, OWN, Asked, Call, NoQuery, Out, read
from hookseal.api.paging import ListOut, OfAuditRows, Paged, following, one_way
from hookseal.audit.chain import Action, cursor_of


class Audited(Paged):
    """Which rows of the audit log a list has."""

    iterator: OfAuditRows | None = None
    action: Action | None = None


class AuditRowOut(Out):
    """Who changed what. `id` is the number of the row in the log of its tenant; `before` and `after` have the facts."""

    id: str
    at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | str | None
    after: dict[str, Any] | str | None
    correlation_id: str | None


class ConcernOut(Out):
    """Why a person must act, of which kind that is, and the command to run next."""

    kind: str
    reason: str
    command: str


class OverviewOut(Out):
    """How much there is in the installation. A count of `most` means so many or more.

    Of the `pending` deliveries, `waiting` ones wait for something else than their time. A worker is live if it was
    heard of in the last 30 seconds.
    """

    tenants: int
    endpoints: int
    disabled_endpoints: int
    failing_endpoints: int
    held_endpoints: int
    pending: int
    waiting: int
    sending: int
    dead_letters: int
    failed: int
    running_replays: int
    live_workers: int
    most: int


class TenantBacklogOut(Out):
    """What is pending of a tenant. Its oldest delivery has been due or held for `oldestSeconds`, null if none is."""

    tenant_id: str
    pending: int
    due: int
    waiting: int
    oldest_seconds: float | None


class OtherTenantsOut(Out):
    """The tenants with pending deliveries that are not listed, together."""

    tenants: int
    pending: int
    oldest_seconds: float | None


class TroubledEndpointOut(Out):
    """An endpoint that does not get everything at once: since when, why, what its last attempt said, and what waits."""

    tenant_id: str
    endpoint_id: str
    name: str | None
    url: str
    state: str
    held_for: str | None
    since: datetime
    reason: str | None
    last_outcome: str | None
    last_status: int | None
    last_attempt_at: datetime | None
    waiting: int
    oldest_seconds: float | None


class WorkerStatusOut(Out):
    """A live worker: what it uses, how much it may use, and which of these limits it."""

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
    limited_by: tuple[str, ...]


class RunningReplayOut(Out):
    """A replay job that runs, and for how long it has taken no step."""

    tenant_id: str
    replay_id: str
    matched: int
    replayed: int
    started_at: datetime
    idle_seconds: float


class FirstAttemptsOut(Out):
    """How long first attempts took to come, in the last five minutes, of deliveries that their endpoints did not hold.

    `hasMore`: they are only the newest. `waitingFor` counts those that are held and were not tried, by reason. They
    meet the objective if the 95th percentile, and the time since when the oldest delivery is due, are at most
    `objectiveSeconds`.
    """

    number: int
    has_more: bool
    waiting_for: dict[str, int]
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    oldest_due_seconds: float
    objective_seconds: float
    meets_objective: bool | None


class StatusOut(Out):
    """What an operator asks first: whose deliveries wait, what fails, what limits the workers, and who must act.

    `mustAct` has each reason why a person must act, `worthALook` what nobody must act on, such as dead letters.
    `tenants` are the ten whose oldest delivery has been due or held for longest; `allTenants` is false if there are
    more than 2,000 with pending deliveries. `endpoints` are up to 20 in trouble.
    """

    at: datetime
    must_act: list[ConcernOut]
    worth_a_look: list[ConcernOut]
    overview: OverviewOut
    oldest_waiting_seconds: dict[str, float]
    tenants: list[TenantBacklogOut]
    other_tenants: OtherTenantsOut
    all_tenants: bool
    endpoints: list[TroubledEndpointOut]
    more_endpoints: bool
    most_of_each: int
    workers: list[WorkerStatusOut]
    leader: str | None
    secrets_refused: int
    overlaps_ending: int
    first_attempts: FirstAttemptsOut
    replays: list[RunningReplayOut]
    oldest_finished_at: datetime | None


_Shown = TypeVar("_Shown", bound=Out)


def _of(kind: type[_Shown], result: object, **nested: Any) -> _Shown:
    """Return what an answer has of a result, with `nested` parts of it."""
    return kind(**{name: nested.get(name, getattr(result, name)) for name in kind.__struct_fields__})


def _shown(row: AuditRow) -> AuditRowOut:
    """Return a row without the database role of the process, which no customer knows."""
    _, _, who = row.actor.partition("/")
    return AuditRowOut(
        id=str(row.sequence),
        at=row.at,
        actor=who or row.actor,
        action=row.action,
        subject=row.subject,
        before=row.before if isinstance(row.before, str | None) else dict(row.before),
        after=row.after if isinstance(row.after, str | None) else dict(row.after),
        correlation_id=row.correlation_id,
    )


async def audit(asked: Asked[Audited, None]) -> ListOut[AuditRowOut]:
    """List the audit log of an application, the newest row first."""
    after = following(asked.query.iterator)
    page = await asked.admin.audit.list(
        tenant_id=asked.tenant,
        action=asked.query.action,
        limit=asked.query.limit,
        cursor=None if after is None else cursor_of({"tenant_id": asked.tenant, "sequence": after}),
    )
    rows = [_shown(each) for each in page.items]
    return one_way(rows, [each.id for each in rows], done=page.next_cursor is None)


async def status(asked: Asked[NoQuery, None]) -> StatusOut:
    """Say whose deliveries wait, what fails since when, what limits the workers, and whether a person must act."""
    found = await asked.admin.status()
    return _of(
        StatusOut,
        found,
        must_act=[_of(ConcernOut, each) for each in found.must_act],
        worth_a_look=[_of(ConcernOut, each) for each in found.worth_a_look],
        overview=_of(OverviewOut, found.overview),
        oldest_waiting_seconds=dict(found.oldest_waiting_seconds),
        tenants=[_of(TenantBacklogOut, each) for each in found.tenants],
        other_tenants=_of(OtherTenantsOut, found.other_tenants),
        endpoints=[_of(TroubledEndpointOut, each) for each in found.endpoints],
        workers=[_of(WorkerStatusOut, each) for each in found.workers],
        first_attempts=_of(FirstAttemptsOut, found.first_attempts),
        replays=[_of(RunningReplayOut, each) for each in found.replays],
    )


CALLS: Final[tuple[Call, ...]] = (
    read(
        *("hookseal.audit.list", OWN + "/audit", audit),
        query=Audited,
        result=ListOut[AuditRowOut],
        names={"cursor": "iterator"},
    ),
    Call(
        name="hookseal.status",
        method="GET",
        path=OURS + "/status",
        scopes=frozenset({Scope.OPERATE}),
        handler=status,
        result=StatusOut,
        of_every_tenant=True,
    ),
)
