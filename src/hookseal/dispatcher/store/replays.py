"""Replays: sending one delivery again, and jobs that send many again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from hookseal.dispatcher.core.model import State, WaitingFor
from hookseal.dispatcher.core.replay_job import JobState, ReplayJob, Selection, Tally
from hookseal.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, ReplayId, TenantId, before, paged, require_limit
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements

_REPLAY: Final = Statements("hookseal.dispatcher.store", "replay.sql", seconds=None)
BATCH: Final = 1_000  # deliveries that one transaction makes due
MOST_PUT_OFF: Final = 50_000  # deliveries that one read finds for many such transactions
FIRST: Final = "00000000-0000-0000-0000-000000000000"  # before the id of every delivery
_UNFINISHED: Final = frozenset({State.PENDING, State.SENDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A delivery that is pending again. `replay_of` is the delivery that it repeats, if it has a new id.

    `waiting_for` says why it is held, if its endpoint is; otherwise it is due. `before` is the previous state and the
    number of attempts of the delivery that was replayed.
    """

    tenant_id: TenantId
    delivery_id: DeliveryId
    endpoint_id: EndpointId
    event_id: EventId
    replay_of: DeliveryId | None
    waiting_for: WaitingFor | None
    before: tuple[State, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hastened:
    """How many deliveries are `due` now, and how many are `held` with the others of their endpoint."""

    due: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A delivery that no longer stops the line of its endpoint; its `state` stays."""

    tenant_id: TenantId
    delivery_id: DeliveryId
    endpoint_id: EndpointId
    state: State


async def replay(
    connection: Connection, delivery_id: DeliveryId, *, new_id: bool, tenant: TenantId | None = None
) -> Replayed:
    """Make the delivery due at once, in the caller's transaction; the outbox rings it after the commit.

    If its endpoint is held or has no room, it waits with its other deliveries. Its budget is new, and its attempt
    numbers continue. A delivery that is to be tried again later keeps its budget.
    With `new_id` the delivery is not changed, and a new delivery of the same event is created. Raises `NotFound` if it,
    by default of any tenant, or its endpoint does not exist, `Conflict` if it is held, due already or being sent, or
    with `new_id` not finished, `Refused` if the endpoint is disabled, `Unavailable`.
    """
    enabled, row = await lock(connection, delivery_id, tenant=tenant)
    if row is None or tenant not in {None, row["tenant_id"]}:
        raise NotFound("there is no delivery with this id", field="delivery_id")
    tenant = TenantId(row["tenant_id"])
    state = State(row["state"])
    hastened = bool(row["is_put_off"]) and not new_id
    if state in _UNFINISHED and not hastened:
        doing = "is being sent" if state is State.SENDING else "waits to be sent"
        raise Conflict(f"the delivery {doing} already, so that a replay would change nothing", field="delivery_id")
    _require_enabled(enabled, tenant, EndpointId(row["endpoint_id"]))
    statement = "hasten" if hastened else "repeat" if new_id else "again"
    [replayed] = await _REPLAY.rows(connection, statement, tenant, [delivery_id])
    return Replayed(
        tenant_id=tenant,
        delivery_id=DeliveryId(replayed["id"]),
        endpoint_id=EndpointId(row["endpoint_id"]),
        event_id=EventId(row["event_id"]),
        replay_of=delivery_id if new_id else row["replay_of"],
        waiting_for=None if replayed["waiting_for"] is None else WaitingFor(replayed["waiting_for"]),
        before=(state, row["attempts"]),
    )


async def lock(connection: Connection, delivery_id: DeliveryId, *, tenant: TenantId | None) -> tuple[Any, Any]:
    """Lock the delivery and its endpoint in the caller's transaction: first it waits for every other replay of it.

    Returns whether the endpoint is enabled, and the delivery; None for what does not exist. Raises `Unavailable`, also
    after a wait as long as `lock_timeout`.
    """
    enabled = await _REPLAY.value(connection, "endpoint_of", delivery_id, tenant)
    return enabled, await _REPLAY.row(connection, "lock", delivery_id)


async def replay_all(connection: Connection, tenant: TenantId, deliveries: Sequence[str]) -> int:
    """Make these finished deliveries due at once, each with a new budget, in the caller's transaction; return how many.

    Deliveries of a held endpoint are held with it. A delivery that is not finished any more, or whose endpoint is gone,
    is not changed. Raises `Unavailable`.
    """
    return len(await _REPLAY.rows(connection, "again", tenant, deliveries))


async def put_off(
    connection: Connection, tenant: TenantId, endpoint_id: EndpointId, *, after: str, at_most: int
) -> list[str]:
    """Return the next deliveries that wait for their next attempt, in the order of their ids, behind the id `after`.

    It reads all that is pending of the endpoint. Raises `Unavailable`.
    """
    return [row["id"] for row in await _REPLAY.rows(connection, "put_off", tenant, endpoint_id, after, at_most)]


async def hasten(
    connection: Connection, tenant: TenantId, endpoint_id: EndpointId, deliveries: Sequence[str]
) -> Hastened:
    """Make those of these deliveries due that still wait for their next attempt, in the caller's transaction.

    Their budgets stay as they are. Those of a held endpoint are held with its others, and one that another transaction
    has locked is left as it is. Raises `Unavailable`.
    """
    rows = await _REPLAY.rows(connection, "lock_put_off", tenant, endpoint_id, deliveries)
    hastened = await _REPLAY.rows(connection, "hasten", tenant, [row["id"] for row in rows]) if rows else []
    held = sum(row["waiting_for"] is not None for row in hastened)
    return Hastened(due=len(hastened) - held, held=held)


async def skip(connection: Connection, delivery_id: DeliveryId, *, tenant: TenantId | None = None) -> Skipped:
    """Take a delivery that was given up out of the line that it stops, in the caller's transaction.

    The leader makes the next delivery of the line due after the commit. Raises `NotFound` if it does not exist, by
    default of any tenant, `Conflict` if it stops no line, and `Unavailable`.
    """
    row = await _REPLAY.row(connection, "lock", delivery_id)
    if row is None or tenant not in {None, row["tenant_id"]}:
        raise NotFound("there is no delivery with this id", field="delivery_id")
    tenant, endpoint_id = TenantId(row["tenant_id"]), EndpointId(row["endpoint_id"])
    if not await _REPLAY.execute(connection, "skip", tenant, delivery_id, endpoint_id):
        raise Conflict(
            f"the delivery is {row['state']} and stops no line: only a dead letter or a failed delivery of an ordered "
            "endpoint that stops can be skipped",
            field="delivery_id",
        )
    return Skipped(tenant_id=tenant, delivery_id=delivery_id, endpoint_id=endpoint_id, state=State(row["state"]))


async def skip_all(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Take whatever stops the line of this endpoint out of it. Raises `Unavailable`."""
    await _REPLAY.execute(connection, "skip", tenant, None, endpoint_id)


async def require_endpoint(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Return if the endpoint exists and is enabled, which then holds until the caller's transaction ends.

    Raises `NotFound`, `Refused` if it is disabled, and `Unavailable`.
    """
    _require_enabled(await _REPLAY.value(connection, "endpoint", tenant, endpoint_id), tenant, endpoint_id)


def _require_enabled(enabled: bool | None, tenant: TenantId, endpoint_id: EndpointId) -> None:  # noqa: FBT001 -- read
    if enabled is None:
        raise NotFound("the endpoint is gone: there is nowhere to send to", field="endpoint_id")
    if not enabled:
        raise Refused(
            "the endpoint is disabled",
            advice=f"first run `hookseal endpoint enable --tenant {tenant} --endpoint {endpoint_id}`",
            field="endpoint_id",
        )


WALKED: Final = 5_000  # deliveries that one step looks at: about 25 ms in PostgreSQL
LOCK_WAIT: Final = 0.3  # seconds for which a step waits for a lock
_ALL: Final = 2_147_483_647
_SAVED_SECONDS: Final = 2.0  # what a job did not use of its rate for longer than this is lost: no burst after a pause

_SQL: Final = Statements("hookseal.dispatcher.store", "replay_jobs.sql", seconds=None)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A running job, by its ids."""

    tenant_id: TenantId
    replay_id: ReplayId


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step did. `may_go_on`: the job looks at more deliveries, and its rate allows it to do so at once."""

    job: ReplayJob
    tally: Tally
    may_go_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walked:
    has_more: bool
    is_cut: bool
    ended_with: str | None
    replayed: list[str]
    disabled: int
    deleted: int

    @property
    def tally(self) -> Tally:
        return Tally(replayed=len(self.replayed), disabled=self.disabled, deleted=self.deleted)


async def count(executor: Executor, selection: Selection, *, most: int | None = None) -> tuple[Tally, bool]:
    """Return what would happen to the deliveries of the selection if they were replayed now, and whether that is all.

    It looks at no more than `most` deliveries, by default at all, the oldest first. Raises `Unavailable`.
    """
    _, place, end = await _window(executor, selection)
    tally, has_more, seen = Tally(), True, 0
    while has_more and (most is None or seen < most):
        step = WALKED if most is None else min(WALKED, most - seen)
        walked = await _walk(executor, selection, place, end, at_most=_ALL, walked=step)
        tally, has_more, place = tally + walked.tally, walked.has_more, walked.ended_with or place
        seen += step
    return tally, not has_more


async def insert(connection: Connection, selection: Selection, *, rate: int, matched: int) -> ReplayJob:
    """Store a running job about what the selection has now, in the caller's transaction. Raises `Unavailable`."""
    until, cursor, end = await _window(connection, selection)
    row = await _SQL.row(
        connection,
        "insert",
        selection.tenant_id,
        selection.endpoint_id,
        selection.event_type,
        selection.event_id,
        [state.value for state in selection.states],
        selection.since,
        until,
        cursor,
        end,
        rate,
        matched,
    )
    return _job(dict(row or {}))


async def count_running(connection: Connection, tenant: TenantId) -> int:
    """Return how many jobs of the tenant run. Raises `Unavailable`."""
    number: int = await _SQL.value(connection, "count_running", tenant)
    return number


async def running(executor: Executor, *, at_most: int, but: Iterable[RunningJob] = ()) -> list[RunningJob]:
    """Return the running jobs of all tenants `but` these, the one first that has waited longest for its step.

    Raises `Unavailable`.
    """
    rows = await _SQL.rows(executor, "running", at_most, [job.replay_id for job in but])
    return [RunningJob(TenantId(row["tenant_id"]), ReplayId(row["replay_id"])) for row in rows]


async def step(
    connection: Connection, running_job: RunningJob, *, walked: int = WALKED, lock_wait: float = LOCK_WAIT
) -> Step | None:
    """Replay what the rate of the job allows now, and move the job behind it, in the caller's transaction.

    It looks at no more than `walked` deliveries. If there are no more, the job is done. Returns None, and does nothing,
    if the job does not run, if another transaction works on it, or if its rate allows nothing now. Raises
    `Unavailable`, also if it waits longer than `lock_wait` seconds for a lock.
    """
    job = (running_job.tenant_id, running_job.replay_id)
    row = await _SQL.row(connection, "take", *job, _SAVED_SECONDS, f"{round(lock_wait * 1000)}ms")
    if row is None or not row["allowance"]:
        return None
    selection, allowance = _job(dict(row)).selection, min(row["allowance"], BATCH)
    walk = await _walk(connection, selection, row["place"], row["end"], at_most=allowance, walked=walked)
    tally = replace(walk.tally, replayed=await replay_all(connection, selection.tenant_id, walk.replayed))
    moved = await _SQL.row(
        connection,
        "move",
        *job,
        walk.ended_with,
        tally.replayed,
        tally.disabled,
        tally.deleted,
        _SAVED_SECONDS,
        walk.has_more,
    )
    return Step(job=_job(dict(moved or {})), tally=tally, may_go_on=walk.has_more and not walk.is_cut)


async def cancel(connection: Connection, replay_id: ReplayId, *, tenant: TenantId | None = None) -> ReplayJob:
    """Cancel a running job, by default of any tenant, in the caller's transaction: then it replays nothing more.

    Raises `NotFound`, `Conflict` if it has ended, and `Unavailable`.
    """
    row = await _SQL.row(connection, "lock", replay_id)
    if row is None or tenant not in {None, row["tenant_id"]}:
        raise _unknown()
    if row["state"] != JobState.RUNNING:
        raise Conflict(f"the replay job is {row['state']} already: there is nothing to cancel", field="replay_id")
    cancelled = await _SQL.row(connection, "cancel", row["tenant_id"], replay_id)
    return _job(dict(cancelled or {}))


async def show(executor: Executor, replay_id: ReplayId, *, tenant: TenantId | None = None) -> ReplayJob:
    """Return one job, by default of any tenant. Raises `NotFound`, `Unavailable`."""
    row = await _SQL.row(executor, "show", replay_id)
    if row is None or tenant not in {None, row["tenant_id"]}:
        raise _unknown()
    return _job(dict(row))


async def page(
    executor: Executor, tenant: TenantId | None, state: JobState | None, *, limit: int, cursor: str | None
) -> tuple[list[ReplayJob], str | None]:
    """Return up to `limit` jobs, newest first, and the cursor of the next page, None after the last.

    Raises `Malformed` for an invalid cursor or a limit outside 1 to 1000, and `Unavailable`.
    """
    require_limit(limit)
    rows = await _SQL.rows(executor, "page", tenant, None if state is None else state.value, before(cursor), limit + 1)
    items, following = paged(rows, limit, "replay_id")
    return [_job(item) for item in items], following


async def _window(executor: Executor, selection: Selection) -> tuple[Any, str, str]:
    row = await _SQL.row(executor, "window", selection.since, selection.until)
    assert row is not None  # noqa: S101 -- the statement reads no table
    return row["until"], row["cursor"], row["end_id"]


async def _walk(
    executor: Executor, selection: Selection, place: str, end: str, *, at_most: int, walked: int = WALKED
) -> _Walked:
    row = await _SQL.row(
        executor,
        "walk",
        selection.tenant_id,
        place,
        end,
        [state.value for state in selection.states],
        selection.endpoint_id,
        selection.event_type,
        selection.event_id,
        walked,
        at_most,
    )
    return _Walked(**dict(row or {}))


def _job(row: Mapping[str, Any]) -> ReplayJob:
    endpoint, event = row["endpoint_id"], row["event_id"]
    return ReplayJob(
        replay_id=ReplayId(row["replay_id"]),
        selection=Selection(
            tenant_id=TenantId(row["tenant_id"]),
            endpoint_id=None if endpoint is None else EndpointId(str(endpoint)),
            event_type=row["event_type"],
            event_id=None if event is None else EventId(event),
            states=tuple(map(State, row["states"])),
            since=row["since"],
            until=row["until"],
        ),
        state=JobState(row["state"]),
        rate=row["rate"],
        matched=row["matched"],
        started_at=row["started_at"],
        moved_at=row["moved_at"],
        ended_at=row["ended_at"],
        tally=Tally(replayed=row["replayed"], disabled=row["disabled"], deleted=row["deleted"]),
    )


def _unknown() -> NotFound:
    return NotFound("there is no replay job with this id", field="replay_id")
