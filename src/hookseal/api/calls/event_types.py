"""Event types: the catalogue of an installation. It restricts neither messages nor endpoints."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from hookseal.admin import EventType
from hookseal.api import problems
from hookseal.api.call import Answer, Asked, Call, In, NoQuery, Once, Out, manage, read
from hookseal.api.forms import EventType as EventTypeName
from hookseal.api.paging import ListOut, OfEventTypes, Ordered, following, one_way
from hookseal.errors import NotFound

_ALL: Final = "/api/v1/event-type"
_ONE: Final = _ALL + "/{event_type_name}"
_NULL: Final = b"null"
# An object, whose text stays as it was given. A Raw can be neither null nor UNSET: then its bytes are `null`, or none.
_Schemas = Annotated[Raw, msgspec.Meta(extra_json_schema={"type": ["object", "null"]})]
_NAMES: Final = {"after": "iterator"}


class EventTypeUpdate(In):
    """All that may be set of an event type; `schemas` has a JSON schema for each version, as in `{"1": {...}}`."""

    description: str
    schemas: _Schemas = msgspec.field(default_factory=partial(Raw, _NULL))
    deprecated: bool | None = None
    archived: bool | None = None
    group_name: None = None
    feature_flags: None = None
    feature_flag: None = None  # which older clients may send as null


class EventTypeIn(In):
    """An event type to create."""

    name: EventTypeName
    description: str
    schemas: _Schemas = msgspec.field(default_factory=partial(Raw, _NULL))
    deprecated: bool | None = None
    archived: bool | None = None
    group_name: None = None
    feature_flags: None = None
    feature_flag: None = None


class EventTypePatch(In):
    """What to change of an event type; null removes the schemas."""

    description: str | UnsetType = UNSET
    schemas: _Schemas = msgspec.field(default_factory=Raw)
    deprecated: bool | UnsetType = UNSET
    archived: bool | UnsetType = UNSET
    group_name: UnsetType | None = UNSET
    feature_flags: UnsetType | None = UNSET
    feature_flag: UnsetType | None = UNSET


class EventTypeOut(Out):
    """An event type."""

    name: str
    description: str
    schemas: _Schemas
    deprecated: bool
    archived: bool
    created_at: datetime
    updated_at: datetime
    group_name: None = None
    feature_flags: None = None


class EventTypes(Ordered):
    """Which event types a list has, by name; with their schemas only if that is asked for."""

    iterator: OfEventTypes | None = None
    include_archived: bool = msgspec.field(name="include_archived", default=False)
    with_content: bool = msgspec.field(name="with_content", default=False)


class Deleting(In):
    """Whether to delete for good, which is not done."""

    expunge: bool = False


def shown(event_type: EventType, *, with_schemas: bool = True) -> EventTypeOut:
    """Return an event type as Svix shows it."""
    schemas = event_type.schemas if with_schemas else None
    return EventTypeOut(
        name=event_type.name,
        description=event_type.description,
        schemas=Raw(_NULL if schemas is None else schemas.encode()),
        deprecated=event_type.deprecated,
        archived=event_type.archived,
        created_at=event_type.created_at,
        updated_at=event_type.updated_at,
    )


def _text(schemas: Raw) -> str | None:
    text = bytes(schemas)
    return None if text == _NULL else text.decode()


async def listing(asked: Asked[EventTypes, None]) -> ListOut[EventTypeOut]:
    """List the event types by name, from the first or from the last."""
    query = asked.query
    page = await asked.admin.event_types.list(
        with_archived=query.include_archived,
        limit=query.limit,
        after=following(query.iterator),
        descending=query.order == "descending",
    )
    types = [shown(each, with_schemas=query.with_content) for each in page.items]
    return one_way(types, [each.name for each in types], done=page.next_cursor is None)


async def create(asked: Asked[NoQuery, EventTypeIn]) -> EventTypeOut:
    """Create an event type, also in place of one that is archived."""
    return await _added(asked, asked.body.name)


async def _added(asked: Asked[Any, EventTypeIn] | Asked[Any, EventTypeUpdate], name: str) -> EventTypeOut:
    body = asked.body
    added = await asked.admin.event_types.add(
        name=name,
        description=body.description,
        schemas=_text(body.schemas),
        deprecated=bool(body.deprecated),
        archived=bool(body.archived),
        actor=asked.access.actor,
    )
    return shown(added)


async def get(asked: Asked[NoQuery, None]) -> EventTypeOut:
    """Return an event type, also one that is archived."""
    return await by_name(asked, asked.path["event_type_name"])


async def by_name(asked: Asked[Any, Any], name: str) -> EventTypeOut:
    """Return the event type with this name. Raises `NotFound`."""
    return shown(await asked.admin.event_types.get(name=name))


async def upsert(asked: Asked[NoQuery, EventTypeUpdate]) -> EventTypeOut | Answer:
    """Set all of an event type. If there is none with this name, create it."""
    body, name = asked.body, asked.path["event_type_name"]
    try:
        updated = await asked.admin.event_types.update(
            name=name,
            description=body.description,
            schemas=_text(body.schemas),
            deprecated=bool(body.deprecated),
            archived=bool(body.archived),
            actor=asked.access.actor,
        )
    except NotFound:
        return Answer(status=201, content=await _added(asked, name))
    return shown(updated)


async def patch(asked: Asked[NoQuery, EventTypePatch]) -> EventTypeOut:
    """Change what is given of an event type."""
    body, name = asked.body, asked.path["event_type_name"]
    changes: dict[str, Any] = {
        member: getattr(body, member)
        for member in ("description", "deprecated", "archived")
        if getattr(body, member) is not UNSET
    }
    if bytes(body.schemas):
        changes["schemas"] = _text(body.schemas)
    if not changes:
        return await by_name(asked, name)
    return shown(await asked.admin.event_types.update(name=name, actor=asked.access.actor, **changes))


async def delete(asked: Asked[Deleting, None]) -> None:
    """Archive an event type. Endpoints that get it still do."""
    if asked.query.expunge:
        raise problems.invalid(("query", "expunge"), "is not supported: it is archived", "not_supported")
    await asked.admin.event_types.delete(name=asked.path["event_type_name"], actor=asked.access.actor)


CALLS: Final[tuple[Call, ...]] = (
    read("event_type.list", _ALL, listing, query=EventTypes, result=ListOut[EventTypeOut], names=_NAMES),
    manage(
        *("event_type.create", "POST", _ALL),
        create,
        body=EventTypeIn,
        result=EventTypeOut,
        status=201,
        of_every_tenant=True,
        once=Once(result_id="name", again=by_name),
    ),
    read("event_type.get", _ONE, get, result=EventTypeOut),
    manage("event_type.upsert", "PUT", _ONE, upsert, body=EventTypeUpdate, result=EventTypeOut, of_every_tenant=True),
    manage("event_type.patch", "PATCH", _ONE, patch, body=EventTypePatch, result=EventTypeOut, of_every_tenant=True),
    manage("event_type.delete", "DELETE", _ONE, delete, query=Deleting, status=204, of_every_tenant=True),
)
