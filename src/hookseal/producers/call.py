"""One publish as a conversation: the statements to run one after the other, whatever runs them."""

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, NotRequired, TypeAlias, TypedDict

from hookseal.client.publisher import check_tenant, event
from hookseal.dispatcher.core import payload
from hookseal.dispatcher.store.publish import NewEvent, publish_error
from hookseal.errors import Conflict, HooksealError
from hookseal.ground.ids import DeliveryId, EndpointId, EventId
from hookseal.ground.unset import UNSET
from hookseal.producers.driver_errors import described

Rows: TypeAlias = Sequence[Sequence[Any]]
Statement: TypeAlias = tuple[str, tuple[object, ...]]
Conversation: TypeAlias = Generator[Statement, Rows, "PublishedEvent"]
Execute: TypeAlias = Callable[[str, tuple[object, ...]], Rows]
AsyncExecute: TypeAlias = Callable[[str, tuple[object, ...]], Awaitable[Rows]]

_SAVEPOINT: Final = "hookseal_publish"
_OUTSIDE: Final = "25P01"  # no transaction: the connection commits each statement
_FAILED: Final = "25P02"


class EventFields(TypedDict):
    """The arguments that describe an event; exactly one of `data` and `body` is given.

    `data` consists of dict with str as keys, list, tuple, str, int, float, bool and None; a `body` is sent unchanged.
    """

    tenant_id: str
    event_type: str
    data: NotRequired[object]
    body: NotRequired[bytes]
    event_id: NotRequired[str | None]
    correlation_id: NotRequired[str | None]
    traceparent: NotRequired[str | None]
    tracestate: NotRequired[str | None]
    channels: NotRequired[Sequence[str]]


_NAMES: Final = tuple(EventFields.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery of an event to an endpoint."""

    delivery_id: DeliveryId
    endpoint_id: EndpointId


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEvent:
    """The event and its deliveries. `duplicate` is true if this event had already been published.

    `is_committed` is true if the connection was in no transaction and commits each statement by itself: then the event
    is stored, whatever the caller does next. Otherwise it is stored by the caller's commit, and undone by a rollback.
    """

    event_id: EventId
    duplicate: bool
    deliveries: tuple[Delivery, ...]
    is_committed: bool

    @property
    def matched(self) -> bool:
        """Whether an endpoint gets the event. If none does, nobody subscribes to its type, or it is misspelt."""
        return bool(self.deliveries)


def conversation(fields: EventFields, placeholders: Sequence[str]) -> Conversation:
    """Yield the statements of a publish, and return its result.

    `placeholders` are how the driver writes eight positional parameters. The rows of each statement are sent in, and an
    error of it is thrown in. An error undoes the publish and nothing else, so that the transaction of the caller stays
    usable. Raises `TypeError` for a name that is wrong or missing, `Malformed` with the field, `Conflict`, `Refused`;
    every other error of the driver is not changed.
    """
    _require_names(fields)
    new_event, content = _checked(fields)  # before anything is sent
    is_joined = yield from _savepoint()
    try:
        rows = yield _statement(new_event, content, placeholders)
    except Exception as error:  # noqa: BLE001 -- it is raised again, or what it means
        if is_joined:
            yield from _undo()
        raise _meaning(error, new_event) from None
    if is_joined:
        yield f"RELEASE SAVEPOINT {_SAVEPOINT}", ()
    return _published(rows, is_committed=not is_joined)


def run(talk: Conversation, execute: Execute) -> PublishedEvent:
    """Run each statement with `execute`, and return the result. Raises as the conversation does."""
    try:
        statement = next(talk)
        while True:
            try:
                rows = execute(*statement)
            except Exception as error:  # noqa: BLE001 -- the conversation decides what it means
                statement = talk.throw(error)
            else:
                statement = talk.send(rows)
    except StopIteration as end:
        published: PublishedEvent = end.value
        return published


async def run_async(talk: Conversation, execute: AsyncExecute) -> PublishedEvent:
    """Run each statement as `run` does, with an `execute` that is awaited."""
    try:
        statement = next(talk)
        while True:
            try:
                rows = await execute(*statement)
            except Exception as error:  # noqa: BLE001 -- the conversation decides what it means
                statement = talk.throw(error)
            else:
                statement = talk.send(rows)
    except StopIteration as end:
        published: PublishedEvent = end.value
        return published


def refuse_pipeline(connection: object) -> None:
    """Raise `Conflict` if this is a connection of psycopg in pipeline mode, where a statement has no rows yet."""
    if getattr(getattr(connection, "pgconn", None), "pipeline_status", 0):
        raise Conflict(
            "the connection is in psycopg's pipeline mode: publish after the pipeline, "
            "or through hookseal.producers.psycopg",
            field="connection",
        )


def _require_names(fields: Mapping[str, object]) -> None:
    """Raise the `TypeError` of Python for a wrong call: `**event` takes any name, and would drop a mistyped one."""
    for name in fields:
        if name not in _NAMES:
            near = get_close_matches(name, _NAMES, n=1)
            hint = f". Did you mean '{near[0]}'?" if near else ""
            raise TypeError(f"publish() got an unexpected keyword argument '{name}'{hint}")
    missing = [f"'{name}'" for name in _NAMES if name in EventFields.__required_keys__ and name not in fields]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        names = " and ".join(missing)
        raise TypeError(f"publish() missing {len(missing)} required keyword-only argument{plural}: {names}")


def _checked(fields: EventFields) -> tuple[NewEvent, str | bytes]:
    content = payload.content(fields.get("data", UNSET), fields.get("body"))
    return event(
        tenant_id=check_tenant(fields["tenant_id"]),
        event_type=fields["event_type"],
        event_id=fields.get("event_id"),
        correlation_id=fields.get("correlation_id"),
        traceparent=fields.get("traceparent"),
        tracestate=fields.get("tracestate"),
        channels=fields.get("channels", ()),
    ), content


def _savepoint() -> Generator[Statement, Rows, bool]:
    """Begin a savepoint; return False if the connection is in no transaction, and would begin none by itself."""
    try:
        yield f"SAVEPOINT {_SAVEPOINT}", ()
    except Exception as error:
        sqlstate = described(error).sqlstate
        if sqlstate == _FAILED:
            raise Conflict("the transaction has already failed: roll it back first", field="connection") from None
        if sqlstate != _OUTSIDE:
            raise
        return False
    return True


def _undo() -> Generator[Statement, Rows, None]:
    with suppress(Exception):  # then the transaction is lost as well, and the first error says why
        yield f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}", ()
        yield f"RELEASE SAVEPOINT {_SAVEPOINT}", ()


def _statement(new_event: NewEvent, content: str | bytes, placeholders: Sequence[str]) -> Statement:
    function, argument, kind = (
        ("publish", "data", "json") if isinstance(content, str) else ("publish_raw", "body", "bytea")
    )
    given: dict[str, tuple[str | bytes | None, str]] = {
        "tenant": (new_event.tenant_id, "CAST({} AS text)"),
        "event_type": (new_event.event_type, "CAST({} AS text)"),
        argument: (content, f"CAST({{}} AS {kind})"),
        "event_id": (new_event.event_id, "CAST({} AS text)"),
        "correlation_id": (new_event.correlation_id, "CAST({} AS text)"),
        "traceparent": (new_event.traceparent, "CAST({} AS text)"),
    }
    if new_event.channels or new_event.tracestate:  # of revision 0002 of the schema
        function = "publish_event"
    if new_event.tracestate:
        given["tracestate"] = (new_event.tracestate, "CAST({} AS text)")
    if new_event.channels:  # as text, since drivers write arrays in different ways; no name has a comma
        given["channels"] = (",".join(new_event.channels), "string_to_array(CAST({} AS text), ',')")
    arguments = ", ".join(
        f"{name} => {form.format(place)}" for place, (name, (_, form)) in zip(placeholders, given.items(), strict=False)
    )
    sql = (
        "SELECT event_id, CAST(delivery_id AS text), CAST(endpoint_id AS text), duplicate "  # noqa: S608 -- ours alone
        f"FROM hookseal.{function}({arguments})"
    )
    return sql, tuple(value for value, _ in given.values())


def _meaning(error: Exception, new_event: NewEvent) -> Exception:
    server_error = described(error)
    meaning: HooksealError | None = publish_error(
        server_error.sqlstate, server_error.message, server_error.column, new_event.tenant_id
    )
    return error if meaning is None else meaning


def _published(rows: Rows, *, is_committed: bool) -> PublishedEvent:
    return PublishedEvent(
        event_id=EventId(rows[0][0]),
        duplicate=rows[0][3],
        deliveries=tuple(
            Delivery(delivery_id=DeliveryId(row[1]), endpoint_id=EndpointId(row[2]))
            for row in rows
            if row[1] is not None
        ),
        is_committed=is_committed,
    )
