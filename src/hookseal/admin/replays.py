"""The replay jobs of an Admin: many finished deliveries are sent again."""

from collections.abc import Sequence
from datetime import datetime

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.replays import ReplayCount, ReplayJob
from hookseal.admin.session import Session
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.replay_job import DEFAULT_RATE, NOT_DELIVERED, JobState, Selection
from hookseal.dispatcher.store import replays
from hookseal.ground.literals import FinalState, ReplayState
from hookseal.operations.replay import cancel_replay, start_replay
from hookseal.postgres.pool import Connection


class Replays:
    """Starts, shows and cancels replay jobs. Actor, connection and errors are as for `Endpoints`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def start(
        self,
        *,
        tenant_id: str,
        actor: str,
        endpoint_id: str | None = None,
        event_type: str | None = None,
        event_id: str | None = None,
        states: Sequence[State | FinalState] = NOT_DELIVERED,
        since: datetime | None = None,
        until: datetime | None = None,
        rate_per_second: int = DEFAULT_RATE,
        connection: Connection | None = None,
    ) -> ReplayJob:
        """Start a job that sends finished deliveries again, each with a new budget; the workers execute it.

        Every given condition must be true; `states` are those in which they ended, by default undelivered. Unless
        delivered ones are among them, what was delivered since under another id is left out. Raises `NotFound` if
        there is none, `Refused` if all are of disabled or deleted endpoints, and `Conflict` if five jobs of the tenant
        run already.
        """
        allowed = arguments.rate_per_second(rate_per_second)
        selection = _selection(
            tenant_id,
            endpoint_id=endpoint_id,
            event_type=event_type,
            event_id=event_id,
            states=states,
            since=since,
            until=until,
        )
        async with self._session.changing(actor, connection, tenant=selection.tenant_id) as operator:
            job = await start_replay(operator, selection, rate=allowed)
        return of_row(ReplayJob, job.shown())

    async def count(
        self,
        *,
        tenant_id: str,
        endpoint_id: str | None = None,
        event_type: str | None = None,
        event_id: str | None = None,
        states: Sequence[State | FinalState] = NOT_DELIVERED,
        since: datetime | None = None,
        until: datetime | None = None,
        searched: int | None = None,
        connection: Connection | None = None,
    ) -> ReplayCount:
        """Return how many deliveries such a job would send again; it changes nothing.

        With `searched`, 1 to 250,000, it looks at so many deliveries at most, the oldest first; the count may then not
        be `complete`.
        """
        selection = _selection(
            tenant_id,
            endpoint_id=endpoint_id,
            event_type=event_type,
            event_id=event_id,
            states=states,
            since=since,
            until=until,
        )
        most = None if searched is None else arguments.searched(searched)
        async with self._session.reading(connection) as db:
            tally, is_all = await replays.count(db, selection, most=most)
        skipped = {"endpoint_disabled": tally.disabled, "endpoint_deleted": tally.deleted}
        return ReplayCount(would_replay=tally.replayed, would_skip=skipped, complete=is_all)

    async def get(self, *, tenant_id: str, replay_id: str, connection: Connection | None = None) -> ReplayJob:
        """Return how far a job of the tenant has come."""
        owner, replay = self._session.tenant_of_one(tenant_id), arguments.replay_id(replay_id)
        async with self._session.reading(connection) as db:
            return of_row(ReplayJob, (await replays.show(db, replay, tenant=owner)).shown())

    async def list(
        self,
        *,
        tenant_id: str,
        state: JobState | ReplayState | None = None,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> Page[ReplayJob]:
        """Return up to `limit` (1 to 1000) jobs of the tenant, the newest first; `*` is every tenant."""
        owner = arguments.tenant_or_every(tenant_id)
        job_state = None if state is None else arguments.choice(JobState, state, "state")
        arguments.page(limit, cursor)
        async with self._session.reading(connection) as db:
            jobs, following = await replays.page(db, owner, job_state, limit=limit, cursor=cursor)
        return Page(items=tuple(of_row(ReplayJob, job.shown()) for job in jobs), next_cursor=following)

    async def cancel(
        self, *, tenant_id: str, replay_id: str, actor: str, connection: Connection | None = None
    ) -> ReplayJob:
        """Cancel a running job; what it has replayed stays replayed.

        Raises `Conflict` if it has ended.
        """
        owner, replay = self._session.tenant_of_one(tenant_id), arguments.replay_id(replay_id)
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            job = await cancel_replay(operator, replay, tenant=owner)
        return of_row(ReplayJob, job.shown())


def _selection(
    tenant_id: str,
    *,
    endpoint_id: str | None,
    event_type: str | None,
    event_id: str | None,
    states: Sequence[State | FinalState],
    since: datetime | None,
    until: datetime | None,
) -> Selection:
    return Selection(
        tenant_id=arguments.tenant_id(tenant_id),
        endpoint_id=arguments.optional(arguments.endpoint_id, endpoint_id),
        event_type=arguments.optional(arguments.event_type, event_type),
        event_id=arguments.optional(arguments.event_id, event_id),
        states=arguments.states(states),
        since=arguments.moment(since, "since"),
        until=arguments.moment(until, "until"),
    )
