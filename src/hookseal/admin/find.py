"""Finds what has an id, of whichever kind."""

from contextlib import suppress

from hookseal.admin import arguments
from hookseal.admin.results.base import of_row
from hookseal.admin.results.deliveries import Delivery
from hookseal.admin.results.events import StoredEvent
from hookseal.admin.results.found import Found
from hookseal.admin.results.tenants import Tenant
from hookseal.admin.session import Session
from hookseal.dispatcher.store import delivery_queries, event_queries, tenants
from hookseal.errors import Malformed, NotFound
from hookseal.ground import ids
from hookseal.postgres.pool import Connection


async def found(session: Session, identifier: str, connection: Connection | None) -> Found:
    """Return what has this id, as `Admin.find` does."""
    text = arguments.identifier(identifier)
    async with session.reading(connection) as db:
        tenant = delivery = None
        with suppress(NotFound, Malformed):
            tenant = of_row(Tenant, await tenants.get(db, ids.tenant_uid(text)))
        with suppress(NotFound, Malformed):
            delivery = of_row(Delivery, await delivery_queries.show(db, ids.delivery_id(text)))
        events, are_all = await event_queries.everywhere(db, text)
    return Found(
        tenant=tenant,
        delivery=delivery,
        events=tuple(of_row(StoredEvent, event) for event in events),
        complete=are_all,
    )
