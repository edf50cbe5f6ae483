"""The events of an Admin: what was published for a tenant."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.events import EventDelivery, EventDetails, StoredEvent
from hookseal.admin.session import Session
from hookseal.dispatcher.store import event_queries
from hookseal.dispatcher.store.event_queries import MAX_WALKED, EventFilter
from hookseal.ground import ids
from hookseal.operations.deliveries import read_payload, read_payloads
from hookseal.postgres.pool import Connection

MOST_PAYLOAD_BYTES: Final = 67_108_864  # of 250 bodies


class Events:
    """Searches events, and reads their payload. Actor, connection and errors are as for `Endpoints`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self,
        *,
        tenant_id: str,
        event_types: Sequence[str] | None = None,
        channel: str | None = None,
        correlation_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        searched: int = MAX_WALKED,
        limit: int = 50,
        cursor: str | None = None,
        after: str | None = None,
        before: str | None = None,
        oldest_first: bool = False,
        connection: Connection | None = None,
    ) -> Page[StoredEvent]:
        """Return up to `limit` (1 to 1000) events for which every given condition is true, the newest first.

        They are of one of the `event_types`, were published in the `channel`, at `since` or later, and before `until`.
        The page is that after an earlier one (`cursor`), or that next to an event: what comes `after` its id in this
        order, or ends just `before` it. With event types or a channel a page searches at most `searched` events, 1 to
        250,000, so it may have few items and a next page.
        """
        filter_ = EventFilter(
            tenant_id=arguments.tenant_id(tenant_id),
            event_types=arguments.event_types(event_types),
            channel=arguments.optional(arguments.channel, channel),
            correlation_id=arguments.optional(arguments.correlation_id, correlation_id),
            since=arguments.moment(since, "since"),
            until=arguments.moment(until, "until"),
        )
        arguments.page(limit, cursor)
        walked = arguments.searched(searched, MAX_WALKED)
        place = arguments.place(cursor, after, before, oldest_first=oldest_first, check=ids.event_id)
        async with self._session.reading(connection) as db:
            items, following = await event_queries.page(db, filter_, place, limit=limit, walked=walked)
        return Page(items=tuple(of_row(StoredEvent, item) for item in items), next_cursor=following)

    async def find(self, *, tenant_id: str, event_id: str, connection: Connection | None = None) -> StoredEvent:
        """Return an event as in a list: by one statement, without its deliveries."""
        owner, event = arguments.tenant_id(tenant_id), arguments.event_id(event_id)
        async with self._session.reading(connection) as db:
            return of_row(StoredEvent, await event_queries.find(db, owner, event))

    async def find_all(
        self, *, tenant_id: str, event_ids: Sequence[str], connection: Connection | None = None
    ) -> Mapping[str, StoredEvent]:
        """Return each of up to 250 events that exists, by its id, as in a list: by one statement."""
        owner, events = arguments.tenant_id(tenant_id), arguments.event_ids(event_ids)
        async with self._session.reading(connection) as db:
            rows = await event_queries.find_all(db, owner, events)
        return {row["event_id"]: of_row(StoredEvent, row) for row in rows}

    async def get(self, *, tenant_id: str, event_id: str, connection: Connection | None = None) -> EventDetails:
        """Return an event with its deliveries, without its payload."""
        owner, event = arguments.tenant_id(tenant_id), arguments.event_id(event_id)
        async with self._session.reading(connection) as db:
            row = await event_queries.show(db, owner, event)
        deliveries = tuple(of_row(EventDelivery, delivery) for delivery in row["deliveries"])
        return of_row(EventDetails, row, deliveries=deliveries)

    async def payload(self, *, tenant_id: str, event_id: str, actor: str) -> bytes:
        """Return the body of an event, byte for byte as it is sent. The audit log records who read it.

        It joins no transaction, because a rollback would take the record back.
        """
        owner, event = arguments.tenant_id(tenant_id), arguments.event_id(event_id)
        async with self._session.changing(actor, tenant=owner) as operator:
            return await read_payload(operator, owner, event)

    async def payloads(
        self, *, tenant_id: str, event_ids: Sequence[str], actor: str, most_bytes: int = MOST_PAYLOAD_BYTES
    ) -> Mapping[str, bytes]:
        """Return the body of each of up to 250 events that exists, by its id, as `payload` does: with one audit row.

        They are read in the order of `event_ids`, and have at most `most_bytes` in all, by default more than 250 can
        have: the later ones that do not fit are not read, and missing. The first one is always read.
        """
        owner, events = arguments.tenant_id(tenant_id), arguments.event_ids(event_ids)
        arguments.whole(most_bytes, "most_bytes")
        async with self._session.changing(actor, tenant=owner) as operator:
            return await read_payloads(operator, owner, events, most_bytes=most_bytes)
