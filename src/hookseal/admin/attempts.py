"""The attempts of an Admin: each request of a delivery, and what came back."""

from collections.abc import Sequence
from datetime import datetime

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.deliveries import Attempt
from hookseal.admin.session import Session
from hookseal.dispatcher.store import attempt_queries
from hookseal.dispatcher.store.attempt_queries import MAX_WALKED, AttemptFilter
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.literals import AttemptResult
from hookseal.postgres.pool import Connection


class Attempts:
    """Searches attempts. Connection and errors are as for `Endpoints`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self,
        *,
        tenant_id: str,
        endpoint_id: str | None = None,
        event_id: str | None = None,
        event_types: Sequence[str] | None = None,
        channel: str | None = None,
        outcome: AttemptResult | None = None,
        status_class: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        searched: int = MAX_WALKED,
        limit: int = 50,
        cursor: str | None = None,
        after: str | None = None,
        before: str | None = None,
        oldest_first: bool = False,
        connection: Connection | None = None,
    ) -> Page[Attempt]:
        """Return up to `limit` (1 to 1000) attempts for which every given condition is true, the newest first.

        They are those of an endpoint, of an event, or of one event to one endpoint, of events of one of the
        `event_types` and in the `channel`. `outcome` is `delivered`, or
        `failed`, which is every other one. `status_class` is the first digit of the status, 0 without an answer. They
        began at `since` or later, and before `until`.

        The page is that after an earlier one (`cursor`), or that next to an attempt: what comes `after` its id in this
        order, or ends just `before` it. A page of an endpoint searches at most `searched` attempts, 1 to 50,000, so
        it may have few items and a next page. Raises `Malformed` for an event with 50,000 attempts or more, unless an
        endpoint is given, too. After the upgrade to revision 0002, earlier attempts get into the list of their endpoint
        as the leader comes to them, the newest first.
        """
        if endpoint_id is None and event_id is None:
            raise Malformed("give endpoint_id, event_id or both", field="endpoint_id")
        filter_ = AttemptFilter(
            tenant_id=arguments.tenant_id(tenant_id),
            endpoint_id=arguments.optional(arguments.endpoint_id, endpoint_id),
            event_id=arguments.optional(arguments.event_id, event_id),
            event_types=arguments.event_types(event_types),
            channel=arguments.optional(arguments.channel, channel),
            delivered=arguments.is_delivered(outcome),
            status_class=arguments.status_class(status_class),
            since=arguments.moment(since, "since"),
            until=arguments.moment(until, "until"),
        )
        arguments.page(limit, cursor)
        walked = arguments.searched(searched, MAX_WALKED)
        place = arguments.place(cursor, after, before, oldest_first=oldest_first, check=ids.attempt_id)
        async with self._session.reading(connection) as db:
            items, following = await attempt_queries.page(
                db, filter_, place, limit=limit, walked=walked if event_id is None else MAX_WALKED
            )
        return Page(items=tuple(of_row(Attempt, item) for item in items), next_cursor=following)

    async def get(self, *, tenant_id: str, attempt_id: str, connection: Connection | None = None) -> Attempt:
        """Return an attempt of the tenant. Its id is that of its delivery, a dot and its number."""
        owner, attempt = arguments.tenant_id(tenant_id), arguments.attempt_id(attempt_id)
        async with self._session.reading(connection) as db:
            return of_row(Attempt, await attempt_queries.show(db, owner, attempt))
