"""Messages: what a product publishes. A message is an event; its payload is sent byte for byte as it was given."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Raw

from hookseal.admin import Scope, StoredEvent
from hookseal.api import problems
from hookseal.api.access import require_scopes
from hookseal.api.bodies import MOST_MESSAGE_BYTES, renamed, require_json
from hookseal.api.call import APP, OWN, Asked, Call, In, NoQuery, Once, Out, derived_id, operate, read
from hookseal.api.calls.endpoints import ONE, found_id
from hookseal.api.forms import Channel, EventId, EventType
from hookseal.api.paging import SEARCHED, ListOut, Moment, OfMessages, Paged, end_of, listed, position
from hookseal.client.publisher import Event
from hookseal.errors import Conflict, HooksealError, Malformed, NotFound

MOST_PAGE_BYTES: Final = (
    3_400_000  # of the payloads of a page: with the other members of 250 messages it has 4 MB at most
)
MOST_MANY_BYTES: Final = 2_097_152
NOTHING: Final = Raw(b"{}")  # in place of a payload that nobody asked for
Payload = Annotated[Raw, msgspec.Meta(extra_json_schema={"type": "object"})]  # its bytes stay as they are
_MEMBERS: Final = {"event_type": "eventType", "event_id": "eventId", "body": "payload"}
NAMES: Final = {
    "body": "payload",
    "after": "iterator",
    "before": "iterator",
    "cursor": "iterator",
    "since": "after",
    "until": "before",
}


class MessageIn(In):
    """A message to publish. The members that can only be null are those of Svix that hookseal does not have."""

    event_type: EventType
    payload: Payload
    event_id: EventId | None = None
    channels: list[Channel] | None = None
    application: None = None
    deliver_at: None = None
    payload_retention_hours: None = None
    payload_retention_period: None = None
    tags: None = None
    transformations_params: None = None


class MessageOut(Out):
    """A message. `payload` is `{}` unless it was asked for, and `{"base64": ...}` if the body is no JSON object."""

    id: str
    event_id: str
    event_type: str
    payload: Payload
    channels: list[str] | None
    timestamp: datetime


class ManyIn(In):
    """Messages to publish, all of them or none."""

    messages: Annotated[list[MessageIn], msgspec.Meta(min_length=1, max_length=1_000)]


class PublishedOut(Out):
    """A message that is stored, with as many deliveries. `duplicate`: its `eventId` was before this request."""

    id: str
    event_type: str
    duplicate: bool
    deliveries: int


class ManyOut(Out):
    """The messages, in the order of the request."""

    data: list[PublishedOut]


class ExampleIn(In):
    """An example to send: this payload, or the one of this number in the schema of the event type."""

    event_type: EventType
    payload: Payload = msgspec.field(default_factory=Raw)
    example_index: int | None = None


class Content(In):
    """Whether the answer has the payload."""

    with_content: bool = msgspec.field(name="with_content", default=True)


class Messages(Paged):
    """Which messages a list has."""

    iterator: OfMessages | None = None
    before: Moment | None = None
    after: Moment | None = None
    channel: Channel | None = None
    event_types: list[EventType] | None = msgspec.field(name="event_types", default=None)
    with_content: bool = msgspec.field(name="with_content", default=True)


async def create(asked: Asked[Content, MessageIn]) -> MessageOut:
    """Publish a message. The same `eventId` or `Idempotency-Key`, with the same content, is answered as the first."""
    message, is_derived = asked.body, asked.body.event_id is None and asked.key is not None
    require_object(bytes(message.payload))
    try:
        published = await asked.publisher.publish(
            tenant_id=asked.tenant,
            event_type=message.event_type,
            channels=message.channels or (),
            body=bytes(message.payload),
            event_id=derived_id(asked.access, asked.key) if is_derived and asked.key else message.event_id,
            **asked.trace,
        )
    except Conflict:
        if not is_derived:
            raise
        raise problems.other_content() from None
    at = published.occurred_at
    if at is None:  # the Publisher was opened before the schema was upgraded
        at = (await asked.admin.events.find(tenant_id=asked.tenant, event_id=published.event_id)).occurred_at
    return MessageOut(
        id=published.event_id,
        event_id=published.event_id,
        event_type=message.event_type,
        payload=message.payload if asked.query.with_content else NOTHING,
        channels=sorted({*(message.channels or ())}) or None,
        timestamp=at,
    )


async def create_many(asked: Asked[NoQuery, ManyIn]) -> ManyOut:
    """Publish up to 1,000 messages, all of them or none.

    What is wrong names the message. With an `Idempotency-Key` each message without an `eventId` gets one of the key and
    its place.
    """
    messages = asked.body.messages
    derived = {
        index: derived_id(asked.access, f"{asked.key}\n{index}")  # no key has a line break
        for index, message in enumerate(messages)
        if asked.key is not None and message.event_id is None
    }
    for index, message in enumerate(messages):
        require_object(bytes(message.payload), ("body", "messages", str(index), "payload"))
    try:
        published = await asked.publisher.publish_many(
            tenant_id=asked.tenant,
            events=[
                Event(
                    event_type=message.event_type,
                    channels=message.channels or (),
                    body=bytes(message.payload),
                    event_id=derived.get(index, message.event_id),
                    **asked.trace,
                )
                for index, message in enumerate(messages)
            ],
        )
    except Conflict as error:
        if error.index in derived:
            raise problems.other_content() from None
        raise problems.conflict(f"messages[{error.index}]: {_of_one(error)}") from None
    except Malformed as error:
        if error.index is None:
            raise
        member = _MEMBERS.get(error.field or "", error.field or "")
        raise problems.invalid(("body", "messages", str(error.index), member), _of_one(error)) from None
    return ManyOut(
        data=[
            PublishedOut(
                id=each.event_id,
                event_type=message.event_type,
                duplicate=each.duplicate and index not in derived,
                deliveries=len(each.deliveries),
            )
            for index, (message, each) in enumerate(zip(messages, published.events, strict=True))
        ]
    )


def _of_one(error: HooksealError) -> str:
    """Return the message of an error about one of many events, without its number, with the names of the request."""
    text = error.public.removeprefix(f"events[{error.index}]: ")
    return renamed(text, error.field, _MEMBERS, (*_MEMBERS.values(), "channels"))


def require_object(payload: bytes, loc: Sequence[str] = ("body", "payload")) -> None:
    """Raise `Problem` unless this JSON is an object."""
    if not payload.startswith(b"{"):
        raise problems.invalid(loc, "must be a JSON object", "type_error")


def shown(event: StoredEvent, payload: Raw = NOTHING) -> MessageOut:
    """Return an event as a message."""
    return MessageOut(
        id=event.event_id,
        event_id=event.event_id,
        event_type=event.event_type,
        payload=payload,
        channels=[*event.channels] or None,
        timestamp=event.occurred_at,
    )


def payload_of(body: bytes) -> Raw:
    """Return the body of an event as JSON: as it is if it is a JSON object, else `{"base64": ...}`."""
    try:
        require_json(body)
    except problems.Problem:
        is_object = False
    else:
        is_object = body.lstrip().startswith(b"{")
    if not is_object:
        return Raw(msgspec.json.encode({"base64": base64.b64encode(body).decode("ascii")}))
    return Raw(body)


async def send_example(asked: Asked[NoQuery, ExampleIn]) -> MessageOut:
    """Send an example of an event type to one endpoint, as a delivery: one from its schema, or this payload.

    With a payload it also needs the scope `publish`.
    """
    body = asked.body
    payload = bytes(body.payload)
    if payload:
        require_scopes(asked.access, frozenset({Scope.PUBLISH}))
    else:
        try:
            event_type = await asked.admin.event_types.get(name=body.event_type)
        except NotFound:
            raise problems.invalid(("body", "eventType"), "is not in the catalogue: give a payload") from None
        payload = example_of(event_type.schemas, body.example_index or 0)
    require_object(payload)
    sent = await asked.admin.endpoints.send_example(
        tenant_id=asked.tenant,
        endpoint_id=await found_id(asked),
        event_type=body.event_type,
        body=payload,
        actor=asked.access.actor,
    )
    return shown(await asked.admin.events.find(tenant_id=asked.tenant, event_id=sent.event_id), Raw(payload))


async def sent_example(asked: Asked[NoQuery, ExampleIn], event_id: str) -> MessageOut:
    """Return the example that an earlier request has sent; its payload if the request has it."""
    event = await asked.admin.events.find(tenant_id=asked.tenant, event_id=event_id)
    return shown(event, asked.body.payload if bytes(asked.body.payload) else NOTHING)


def example_of(schemas: str | None, index: int) -> bytes:
    """Return an example of the newest version of these JSON schemas. Raises `Problem` if there is none."""
    versions = {} if schemas is None else msgspec.json.decode(schemas, type=dict[str, dict[str, Raw]])
    newest = max(versions, key=lambda version: (len(version), version), default=None)
    given = None if newest is None else versions[newest].get("examples")
    try:
        examples = [] if given is None else msgspec.json.decode(given, type=list[Raw])
    except msgspec.ValidationError:  # a schema may have anything there
        examples = []
    if not 0 <= index < len(examples):
        raise problems.invalid(("body", "eventType"), "has no such example in its schema: give a payload")
    return bytes(examples[index])


async def listing(asked: Asked[Messages, None]) -> ListOut[MessageOut]:
    """List the messages of an application, the newest first. The audit log records once who read their payloads.

    With payloads a page may end before its `limit`, with an iterator: it has at most 4 MB.
    """
    query = asked.query
    after, before = position(query.iterator)
    page = await asked.admin.events.list(
        tenant_id=asked.tenant,
        event_types=query.event_types,
        channel=query.channel,
        since=query.after,
        until=query.before,
        searched=SEARCHED,
        limit=query.limit,
        after=after,
        before=before,
    )
    items = list(page.items)
    payloads: dict[str, Raw] = {}
    is_cut = False
    if query.with_content:
        near = items if before is None else items[::-1]  # a page before a message ends with that
        payloads = await payloads_of(asked, [each.event_id for each in near])
        fitting = number_of_fitting([each.event_id for each in near], payloads)
        is_cut = fitting < len(items)
        items = items[:fitting] if before is None else items[len(items) - fitting :]
    messages = [shown(each, payloads.get(each.event_id, NOTHING)) for each in items]
    end = None if is_cut else end_of(page)
    return listed(messages, [each.event_id for each in items], done=end is None and not is_cut, end=end)


async def payloads_of(asked: Asked[Any, None], ids: Sequence[str]) -> dict[str, Raw]:
    """Return the payloads of these messages, from the first on, as long as they have at most 3.4 MB as they are shown.

    The audit log records who read them.
    """
    if not ids:
        return {}
    bodies = await asked.admin.events.payloads(
        tenant_id=asked.tenant, event_ids=ids, actor=asked.access.actor, most_bytes=MOST_PAGE_BYTES
    )
    payloads: dict[str, Raw] = {}
    size = 0
    for event_id, body in bodies.items():
        payload = payload_of(body)
        size += len(payload)
        if payloads and size > MOST_PAGE_BYTES:
            break
        payloads[event_id] = payload
    return payloads


def number_of_fitting(ids: Sequence[str], payloads: Mapping[str, Raw]) -> int:
    """Return how many messages come before the first one whose payload was not read because of its size.

    One that has left meanwhile has no payload either: at the end of a page it is left out as well.
    """
    if not payloads:
        return len(ids)
    return max(number for number, each in enumerate(ids, start=1) if each in payloads)


async def get(asked: Asked[Content, None]) -> MessageOut:
    """Return a message. The audit log records who read its payload."""
    event_id = asked.path["msg_id"]
    event = await asked.admin.events.find(tenant_id=asked.tenant, event_id=event_id)
    if not asked.query.with_content:
        return shown(event)
    body = await asked.admin.events.payload(tenant_id=asked.tenant, event_id=event_id, actor=asked.access.actor)
    return shown(event, payload_of(body))


CALLS: Final = (
    Call(
        name="message.create",
        method="POST",
        path=APP + "/msg",
        scopes=frozenset({Scope.PUBLISH}),
        handler=create,
        query=Content,
        body=MessageIn,
        result=MessageOut,
        status=202,
        most=MOST_MESSAGE_BYTES,
        names={"body": "payload"},
    ),
    Call(
        name="hookseal.message.create_many",
        method="POST",
        path=OWN + "/msg",
        scopes=frozenset({Scope.PUBLISH}),
        handler=create_many,
        body=ManyIn,
        result=ManyOut,
        status=202,
        most=MOST_MANY_BYTES,
        names={"events": "messages"},
    ),
    operate(
        *("endpoint.send_example", ONE + "/send-example"),
        send_example,
        body=ExampleIn,
        result=MessageOut,
        status=202,
        once=Once(result_id="id", again=sent_example),
        most=MOST_MESSAGE_BYTES,
        names={"body": "payload", "name": "eventType"},
    ),
    read("message.list", APP + "/msg", listing, query=Messages, result=ListOut[MessageOut], names=NAMES),
    read("message.get", APP + "/msg/{msg_id}", get, query=Content, result=MessageOut),
)
