"""Publishing through asyncpg, and what the SQLSTATEs of the publish functions mean for every driver."""

import base64
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final

import asyncpg
import msgspec

from hookseal.dispatcher.core import payload
from hookseal.dispatcher.core.model import Ring
from hookseal.errors import Conflict, HooksealError, Malformed, NotFound, Refused, Unavailable
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

_NUMBERED: Final = re.compile(r"events\[(\d+)\]: (.*)", re.DOTALL)  # PostgreSQL counts from 1
_NAMED_ROLE: Final = re.compile(r"role (.+) may not publish")  # the text of the error of hookseal.publish
_NO_JSON: Final = frozenset({"22P02", "22P05", "22021", "54001"})  # no JSON, no text, or nested too deeply


def publish_error(sqlstate: str | None, message: str, column: str | None, tenant_id: str) -> HooksealError | None:
    """Return the error with its field, and the index of its event; None if it is not about what was published.

    The texts of these errors contain fields and rules, no values. A 42501 says who must grant the right.
    """
    text, index = _split_index(message)
    match sqlstate:
        case "HS409" if column == "tenant":  # a code of its own would be no error of hookseal to an older producer
            return NotFound(text, field="tenant_id")
        case "HS409":
            return Conflict(text, field="event_id", index=index)
        case "HS422":
            return Malformed(text, field=column, index=index)
        case "42501":
            return Refused(_not_allowed(message, tenant_id))
        case state if state in _NO_JSON:
            return Malformed("data must be JSON that PostgreSQL accepts", field="data")
        case _:
            return None


def _split_index(message: str) -> tuple[str, int | None]:
    """Return the message, counting events from 0, and the index of its event; None if there is only one event."""
    numbered = _NUMBERED.fullmatch(message)
    if numbered is None:
        return message, None
    index = int(numbered[1]) - 1
    return f"events[{index}]: {numbered[2]}", index


def _not_allowed(message: str, tenant_id: str) -> str:
    named = _NAMED_ROLE.match(message)
    role = shlex.quote(named[1]) if named else "ROLE"
    return f"{message}: an operator must run `hookseal producer grant --role {role} --tenant {tenant_id}`"


_SQL: Final = Statements("hookseal.dispatcher.store", "publish.sql", seconds=None)
_TRUE: Final = "true"
MOST_EVENTS: Final = 1_000  # in one call: the limit of hookseal.publish_many
MOST_BYTES: Final = 33_554_432
# How long a statement with the events of several callers waits for a lock: less than the second after which PostgreSQL
# looks for a deadlock (`deadlock_timeout`), so that it ends no transaction of another.
_PATIENCE: Final = "200ms"
# PostgreSQL answers with these before the commit, so that nothing is stored.
_UNDONE: Final = (asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError, asyncpg.QueryCanceledError)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event without its payload. If it has no id, the database makes a UUIDv7.

    `traceparent` and `tracestate` are those of W3C Trace Context; a tracestate that is none is stored as None.
    If it has `channels`, it goes only to endpoints that share one of them or have none.
    """

    tenant_id: TenantId
    event_type: str
    event_id: EventId | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """The event, its deliveries, and those that are `due` and to be rung.

    `duplicate` says whether the same event was already published. `occurred_at` is None unless it was asked for.
    """

    event_id: EventId
    duplicate: bool
    deliveries: tuple[Ring, ...]
    due: tuple[Ring, ...]
    occurred_at: datetime | None = None


async def publish_json(executor: Executor, event: NewEvent, data: str) -> PublishResult:
    """Publish JSON text, wrapped as docs/wire.md says. The order and spelling of its keys are not changed.

    Raises `Malformed` with the field, and with the path of a value that is not allowed; `Conflict` if another event has
    this id; `Refused` if the database role may not publish for the tenant; `Unavailable`.
    """
    payload.require_json(data)
    return await publish(executor, event, data)


async def publish_raw(executor: Executor, event: NewEvent, body: bytes) -> PublishResult:
    """Publish a body that is sent unchanged, byte for byte; otherwise as `publish_json`."""
    return await publish(executor, event, body)


async def publish(
    executor: Executor, event: NewEvent, content: str | bytes, *, rings: bool = False, dated: bool = False
) -> PublishResult:
    """Publish the result of `payload.encoded`, which is not checked again, or a raw body. Raises as `publish_json`.

    With `rings` the caller rings what is due as soon as it is committed: the outbox leaves these deliveries alone. With
    `dated`, which needs a schema of revision 0002 or later, the result has the time of the event.
    """
    data, body = (content, None) if isinstance(content, str) else (None, base64.b64encode(content).decode("ascii"))
    ids = (event.event_id, event.correlation_id, event.traceparent)
    given: tuple[Any, ...]
    if dated or event.channels or event.tracestate:  # a schema of revision 0001 has only the others
        name, given = "publish_event", (data, body, event.channels or None, *ids, event.tracestate)
    elif data is not None:
        name, given = "publish", (data, *ids)
    else:
        name, given = "publish_raw", (body, *ids)
    with _errors_translated(event.tenant_id):
        rows = await _SQL.rows(executor, name, event.tenant_id, event.event_type, *given, _flag(value=rings))
    return _published(event.tenant_id, rows)


async def send_example(
    executor: Executor, tenant_id: TenantId, endpoint_id: EndpointId, event_type: str, content: str | bytes
) -> PublishResult:
    """Publish an event to one endpoint only, whatever it subscribes to; the outbox rings its delivery.

    Raises `Malformed` with the field, `NotFound` if the tenant has no such endpoint, `Unavailable`.
    """
    with _errors_translated(tenant_id):
        rows = await _SQL.rows(
            executor,
            "send_example",
            tenant_id,
            endpoint_id,
            event_type,
            content if isinstance(content, str) else None,
            None if isinstance(content, str) else base64.b64encode(content).decode("ascii"),
        )
    if not rows:
        raise NotFound("the tenant has no such endpoint", field="endpoint_id")
    return _published(tenant_id, rows)


def batch(events: Iterable[tuple[NewEvent, str | bytes]]) -> list[str]:
    """Return the events in the form that `publish_many` takes. `str` is JSON of `payload.encoded`, `bytes` a raw body.

    Raises `Malformed`, with the field `events`, if they are more than 1,000 or more than 32 MiB as JSON.
    """
    encoded: list[str] = []
    size = 0
    for event, content in events:
        text = _as_json(event, content)
        size += len(text)
        if len(encoded) == MOST_EVENTS:
            raise Malformed(f"events must be at most {MOST_EVENTS} in one call", field="events")
        if size > MOST_BYTES:
            raise Malformed(f"events must be at most {MOST_BYTES} bytes of JSON in one call", field="events")
        encoded.append(text.decode("utf-8"))
    return encoded


async def publish_many(
    executor: Executor, tenant_id: TenantId, events: Sequence[str], *, rings: bool = False, dated: bool = False
) -> list[PublishResult]:
    """Publish the result of `batch`, all events or none, in one statement; the results are in the same order.

    `rings` and `dated` are those of `publish`.

    Raises as `publish_json` does; the error has the `index` of the invalid event. Its field is `events` if the events
    would create more than 20,000 deliveries.
    """
    with _errors_translated(tenant_id):
        name = "publish_events" if dated else "publish_many"
        rows = await _SQL.rows(executor, name, tenant_id, events, _flag(value=rings))
    return _published_many(tenant_id, rows)


async def publish_together(
    executor: Executor, tenant_id: TenantId, events: Sequence[str], *, rings: bool = False, dated: bool = False
) -> list[PublishResult] | None:
    """Publish events of several callers as `publish_many` does, or return None if that stored nothing.

    That is so if one of the events is refused, or waits for a lock for longer than 0.2 seconds: then each caller
    publishes alone, and has an error of its own. Raises `Unavailable` if it is not known whether they are stored.
    """
    name = "publish_events_together" if dated else "publish_together"
    try:
        rows = await _SQL.rows(executor, name, tenant_id, events, _flag(value=rings), _PATIENCE)
    except asyncpg.PostgresError:  # an outage is translated already
        return None
    except Unavailable as error:
        if isinstance(error.__context__, _UNDONE):
            return None
        raise
    return _published_many(tenant_id, rows)


def _published_many(tenant_id: TenantId, rows: list[Any]) -> list[PublishResult]:
    return [_published(tenant_id, list(of_event)) for _, of_event in groupby(rows, key=lambda row: row["index"])]


def _as_json(event: NewEvent, content: str | bytes) -> bytes:
    fields: dict[str, object] = {
        "event_type": event.event_type,
        "event_id": event.event_id,
        "correlation_id": event.correlation_id,
        "traceparent": event.traceparent,
    }
    if event.tracestate is not None:
        fields["tracestate"] = event.tracestate
    if event.channels:
        fields["channels"] = event.channels
    if isinstance(content, str):
        fields["data"] = msgspec.Raw(content.encode("utf-8"))
    else:
        fields["body"] = base64.b64encode(content).decode("ascii")
    return msgspec.json.encode(fields)


def _published(tenant_id: TenantId, rows: list[Any]) -> PublishResult:
    rings = [(_ring(tenant_id, row), row["is_due"] == _TRUE) for row in rows if row["delivery_id"] is not None]
    at: str | None = rows[0].get("occurred_at")
    return PublishResult(
        event_id=EventId(rows[0]["event_id"]),
        duplicate=rows[0]["duplicate"] == _TRUE,
        deliveries=tuple(ring for ring, _ in rings),
        due=tuple(ring for ring, is_due in rings if is_due),
        occurred_at=None if at is None else datetime.fromisoformat(at),
    )


def _flag(*, value: bool) -> str:
    return _TRUE if value else "false"


def _ring(tenant_id: TenantId, row: Any) -> Ring:
    return Ring(
        tenant_id=tenant_id,
        endpoint_id=EndpointId(row["endpoint_id"]),
        delivery_id=DeliveryId(row["delivery_id"]),
    )


@contextmanager
def _errors_translated(tenant_id: TenantId) -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        translated = publish_error(error.sqlstate, str(error.args[0]), error.column_name, tenant_id)
        if translated is None:
            raise
        raise translated from None
