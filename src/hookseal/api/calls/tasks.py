"""Background tasks: jobs that send many deliveries again. The id of one is its tenant and the id of the replay job."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from hookseal.admin import ReplayJob, ReplayState, Scope
from hookseal.api import problems
from hookseal.api.access import require_tenant
from hookseal.api.call import OURS, OWN, Asked, Call, In, NoQuery, Once, Out, operate, read
from hookseal.api.calls.endpoints import ONE, found_id, named
from hookseal.api.forms import EventId, EventType, ReplayRate
from hookseal.api.paging import ListOut, Moment, OfTasks, Paged, following, one_way
from hookseal.errors import Malformed, NotFound
from hookseal.ground import ids
from hookseal.ground.clock import SystemClock

NOTHING: Final = "none"  # in place of the id of a job: there was nothing to send
RECOVER: Final = "endpoint.recover"
_COUNTED: Final = 100_000  # deliveries that a count looks at
_STATUS: Final[Mapping[ReplayState, str]] = {"running": "running", "done": "finished", "cancelled": "failed"}
_STATE: Final = {status: state for state, status in _STATUS.items()}


class RecoverIn(In):
    """Since when, and until when, deliveries that failed were made."""

    since: Moment
    until: Moment | None = None


class _Selected(In):
    """Which ended deliveries to send again: those for which every given condition is true.

    `states` are those in which they ended, by default dead_letter, failed and cancelled. They were made at `since` or
    later, and before `until`.
    """

    endpoint_id: str | None = None
    event_type: EventType | None = None
    event_id: EventId | None = None
    states: list[Literal["dead_letter", "failed", "cancelled", "delivered"]] | None = None
    since: Moment | None = None
    until: Moment | None = None


class ReplayIn(_Selected):
    """Which ended deliveries to send again, and how many of them a second."""

    rate_per_second: ReplayRate | None = None


class Counted(_Selected):
    """Which ended deliveries to count."""

    endpoint_id: str | None = msgspec.field(name="endpoint_id", default=None)
    event_type: EventType | None = msgspec.field(name="event_type", default=None)
    event_id: EventId | None = msgspec.field(name="event_id", default=None)


class CountOut(Out):
    """How many messages a replay would send again now, and how many it would skip because of their endpoint.

    If it is not `complete`, there are more: only the oldest 100,000 were looked at.
    """

    would_send: int
    would_skip: dict[str, int]
    complete: bool


class TaskOut(Out):
    """A task, and how many messages it has sent so far."""

    id: str
    status: str
    task: str
    data: dict[str, int]
    updated_at: datetime


class Tasks(Paged):
    """Which tasks a list has."""

    iterator: OfTasks | None = None
    status: Literal["running", "finished", "failed"] | None = None
    task: Literal["endpoint.recover"] | None = None
    order: Literal["descending"] = "descending"


async def recover(asked: Asked[NoQuery, RecoverIn]) -> TaskOut:
    """Send again what an endpoint did not get. If there is nothing, the task has finished."""
    endpoint_id = await found_id(asked)
    await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=endpoint_id)
    try:
        job = await asked.admin.replays.start(
            tenant_id=asked.tenant,
            endpoint_id=endpoint_id,
            since=asked.body.since,
            until=asked.body.until,
            actor=asked.access.actor,
        )
    except NotFound:
        return _nothing(asked.tenant)
    return shown(job)


async def replay(asked: Asked[NoQuery, ReplayIn]) -> TaskOut:
    """Send ended deliveries of an application again, in a task. If there are none, it has finished."""
    selection = await _selection(asked, asked.body)
    if asked.body.rate_per_second is not None:
        selection["rate_per_second"] = asked.body.rate_per_second
    try:
        job = await asked.admin.replays.start(**selection, actor=asked.access.actor)
    except NotFound:
        return _nothing(asked.tenant)
    return shown(job)


async def count(asked: Asked[Counted, None]) -> CountOut:
    """Count what `hookseal.replay.start` with these conditions would send again, without doing it."""
    counted = await asked.admin.replays.count(**await _selection(asked, asked.query), searched=_COUNTED)
    return CountOut(would_send=counted.would_replay, would_skip=dict(counted.would_skip), complete=counted.complete)


async def _selection(asked: Asked[Any, Any], given: _Selected) -> dict[str, Any]:
    """Return the conditions as an Admin takes them. Raises `NotFound` for an endpoint that the tenant does not have."""
    conditions = {
        name: getattr(given, name)
        for name in ("event_type", "event_id", "states", "since", "until")
        if getattr(given, name) is not None
    }
    if given.endpoint_id is not None:
        endpoint_id, uid = named(given.endpoint_id)
        found = await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=endpoint_id, uid=uid)
        conditions["endpoint_id"] = found.endpoint_id
    return {"tenant_id": asked.tenant, **conditions}


async def cancel(asked: Asked[NoQuery, None]) -> TaskOut:
    """Cancel a task that is running. What it has sent stays sent."""
    tenant, job = _of_id(asked, asked.path["task_id"])
    return shown(await asked.admin.replays.cancel(tenant_id=tenant, replay_id=job, actor=asked.access.actor))


async def listing(asked: Asked[Tasks, None]) -> ListOut[TaskOut]:
    """List the tasks of the tenant of the access, or of every tenant, the newest first."""
    after = following(asked.query.iterator)
    page = await asked.admin.replays.list(
        tenant_id=ids.EVERY_TENANT if asked.access.tenant_id is None else asked.access.tenant_id,
        state=None if asked.query.status is None else _STATE[asked.query.status],
        limit=asked.query.limit,
        cursor=None if after is None else ids.encode_cursor(after.rpartition(".")[2]),
    )
    tasks = [shown(job) for job in page.items]
    return one_way(tasks, [task.id for task in tasks], done=page.next_cursor is None)


async def get(asked: Asked[NoQuery, None]) -> TaskOut:
    """Return how far a task has come."""
    return await by_id(asked, asked.path["task_id"])


async def by_id(asked: Asked[Any, Any], task_id: str) -> TaskOut:
    """Return the task with this id. Raises `NotFound`, and `Problem` for one that the access may not see."""
    tenant, job = _of_id(asked, task_id)
    return _nothing(tenant) if job == NOTHING else shown(await asked.admin.replays.get(tenant_id=tenant, replay_id=job))


def _of_id(asked: Asked[Any, Any], task_id: str) -> tuple[str, str]:
    """Return the tenant and the job that the id names. Raises `Problem` if it is of another tenant."""
    tenant, _, job = task_id.rpartition(".")
    try:
        tenant = ids.owner_id(tenant)
    except Malformed:
        raise problems.absent() from None
    require_tenant(asked.access, tenant)
    return tenant, job


def shown(job: ReplayJob) -> TaskOut:
    """Return a replay job as a task."""
    return TaskOut(
        id=f"{job.tenant_id}.{job.replay_id}",
        status=_STATUS[job.state],
        task=RECOVER,
        data={"messagesSent": job.replayed},
        updated_at=job.ended_at or job.moved_at,
    )


def _nothing(tenant: str) -> TaskOut:
    return TaskOut(
        id=f"{tenant}.{NOTHING}",
        status="finished",
        task=RECOVER,
        data={"messagesSent": 0},
        updated_at=SystemClock().now(),
    )


CALLS: Final = (
    operate(
        *("endpoint.recover", ONE + "/recover", recover),
        body=RecoverIn,
        result=TaskOut,
        status=202,
        once=Once(result_id="id", again=by_id),
    ),
    read(
        "background_task.list",
        "/api/v1/background-task",
        listing,
        query=Tasks,
        result=ListOut[TaskOut],
        names={"cursor": "iterator"},
    ),
    operate(
        *("hookseal.replay.start", OWN + "/replay"),
        replay,
        body=ReplayIn,
        result=TaskOut,
        status=202,
        once=Once(result_id="id", again=by_id),
    ),
    Call(
        name="hookseal.replay.count",
        method="GET",
        path=OWN + "/replay/count",
        scopes=frozenset({Scope.OPERATE}),
        handler=count,
        query=Counted,
        result=CountOut,
    ),
    operate(
        *("hookseal.background_task.cancel", OURS + "/background-task/{task_id}/cancel", cancel),
        result=TaskOut,
        once=Once(result_id="id", again=by_id),
    ),
    read("background_task.get", "/api/v1/background-task/{task_id}", get, result=TaskOut),
)
