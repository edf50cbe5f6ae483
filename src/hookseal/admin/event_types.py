"""The catalogue of event types of an Admin: what each means, and the JSON schemas of its data."""

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.events import EventType
from hookseal.admin.session import Session
from hookseal.dispatcher.store import event_types
from hookseal.dispatcher.store.event_types import CataloguedType
from hookseal.ground.unset import UNSET, Unset
from hookseal.operations.event_types import add_event_type, update_event_type
from hookseal.postgres.pool import Connection


class EventTypes:
    """Adds, lists, changes and archives event types. Actor, connection and errors are as for `Endpoints`.

    The catalogue is for people, and of the whole installation. It restricts neither publishing nor subscriptions.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(
        self,
        *,
        name: str,
        description: str,
        actor: str,
        schemas: str | None = None,
        deprecated: bool = False,
        archived: bool = False,
        connection: Connection | None = None,
    ) -> EventType:
        """Add a type, also in place of one that is archived, which keeps its `created_at`.

        `schemas` is the text of a JSON object with a JSON schema for each version, as in `{"1": {...}}`. It is stored
        and returned byte for byte. Raises `Conflict` if there is a type with this name that is not archived.
        """
        said = arguments.event_type_changes(
            description=description, schemas=schemas, deprecated=deprecated, archived=archived
        )
        given = CataloguedType(name=arguments.event_type_name(name), **said)
        async with self._session.changing(actor, connection) as operator:
            return of_row(EventType, await add_event_type(operator, given))

    async def get(self, *, name: str, connection: Connection | None = None) -> EventType:
        """Return a type, also one that is archived."""
        wanted = arguments.event_type_name(name)
        async with self._session.reading(connection) as db:
            return of_row(EventType, await event_types.get(db, wanted))

    async def list(
        self,
        *,
        with_archived: bool = False,
        limit: int = 50,
        after: str | None = None,
        descending: bool = False,
        connection: Connection | None = None,
    ) -> Page[EventType]:
        """Return up to `limit` (1 to 1000) types after the name `after`, by name; `next_cursor` is the next `after`."""
        arguments.page(limit, None)
        last = None if after is None else arguments.event_type_name(after, "after")
        archived, order = arguments.flag(with_archived, "with_archived"), arguments.flag(descending, "descending")
        async with self._session.reading(connection) as db:
            items, following = await event_types.page(
                db, with_archived=archived, limit=limit, after=last, descending=order
            )
        return Page(items=tuple(of_row(EventType, item) for item in items), next_cursor=following)

    async def update(
        self,
        *,
        name: str,
        actor: str,
        description: str | Unset = UNSET,
        schemas: str | Unset | None = UNSET,
        deprecated: bool | Unset = UNSET,
        archived: bool | Unset = UNSET,
        connection: Connection | None = None,
    ) -> EventType:
        """Change what is given of a type, also of one that is archived; `schemas` None removes all schemas."""
        wanted = arguments.event_type_name(name)
        changes = arguments.event_type_changes(
            description=description, schemas=schemas, deprecated=deprecated, archived=archived
        )
        async with self._session.changing(actor, connection) as operator:
            return of_row(EventType, await update_event_type(operator, wanted, changes))

    async def delete(self, *, name: str, actor: str, connection: Connection | None = None) -> EventType:
        """Archive a type: it is listed only with `with_archived`, and its name may be added again.

        Endpoints that subscribe to it still do.
        """
        wanted = arguments.event_type_name(name)
        async with self._session.changing(actor, connection) as operator:
            return of_row(EventType, await update_event_type(operator, wanted, {"archived": True}))
