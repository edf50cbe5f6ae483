"""Publishes through the SQL functions that every language uses (design 1.4)."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from hookseal.dispatcher import payload
from hookseal.dispatcher.database import translated
from hookseal.dispatcher.model import Ring
from hookseal.ground.errors import Conflict, Malformed, Refused
from hookseal.ground.ids import DeliveryId, EndpointId, EventId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Executor

_SQL: Final = statements("hookseal.dispatcher", "publish.sql")
_NAMED_ROLE: Final = re.compile(r"role (.+) may not publish")  # as hookseal.publish says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a producer gives besides the payload. Without an id the database makes a UUIDv7."""

    tenant_id: TenantId
    event_type: str
    event_id: EventId | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The event, its deliveries, and the `due` ones, to be rung; `duplicate` if it had been published before."""

    event_id: EventId
    duplicate: bool
    deliveries: tuple[Ring, ...]
    due: tuple[Ring, ...]


async def publish_json(executor: Executor, event: Event, data: str) -> Published:
    """Publish JSON text, kept in the producer's own key order and spelling, wrapped as design 1.6 says.

    Raises `Malformed` naming the field, and the path of a value that may not be there, `Conflict` if the event id is
    taken by another event, `Refused` if the database role may not publish for the tenant, `Unavailable`.
    """
    payload.require_json(data)
    return await publish_encoded(executor, event, data)


async def publish_encoded(executor: Executor, event: Event, data: str) -> Published:
    """Publish what `payload.encoded` made, which is not checked again. Raises as `publish_json` does."""
    return await _publish(executor, "publish", event, data)


async def publish_raw(executor: Executor, event: Event, body: bytes) -> Published:
    """Publish a body that is sent byte for byte as it is. Raises as `publish_json` does."""
    return await _publish(executor, "publish_raw", event, body)


async def _publish(executor: Executor, function: str, event: Event, content: str | bytes) -> Published:
    with translated(), _answered(event.tenant_id):
        rows = await executor.fetch(
            _SQL[function],
            event.tenant_id,
            event.event_type,
            content,
            event.event_id,
            event.correlation_id,
            event.traceparent,
        )
    return _published(event.tenant_id, rows)


def _published(tenant_id: TenantId, rows: list[Any]) -> Published:
    rings = [(_ring(tenant_id, row), row["is_due"]) for row in rows if row["delivery_id"] is not None]
    return Published(
        event_id=EventId(rows[0]["event_id"]),
        duplicate=rows[0]["duplicate"],
        deliveries=tuple(ring for ring, _ in rings),
        due=tuple(ring for ring, is_due in rings if is_due),
    )


def _ring(tenant_id: TenantId, row: Any) -> Ring:
    return Ring(
        tenant_id=tenant_id,
        endpoint_id=EndpointId(row["endpoint_id"]),
        delivery_id=DeliveryId(row["delivery_id"]),
    )


@contextmanager
def _answered(tenant_id: TenantId) -> Iterator[None]:
    """Turn the SQLSTATEs of design 1.4 into our errors. Their texts name fields and rules, never values."""
    try:
        yield
    except asyncpg.PostgresError as error:
        match error.sqlstate:
            case "HS409":
                raise Conflict(str(error.args[0]), field="event_id") from None
            case "HS422":
                raise Malformed(str(error.args[0]), field=error.column_name) from None
            case "42501":
                raise Refused(_not_allowed(str(error.args[0]), tenant_id)) from None
            case "22P02" | "22P05" | "22021" | "54001":  # no JSON, no text, or nested too deeply for the server
                raise Malformed("data must be JSON that PostgreSQL takes", field="data") from None
            case _:
                raise


def _not_allowed(said: str, tenant_id: TenantId) -> str:
    named = _NAMED_ROLE.match(said)
    role = shlex.quote(named[1]) if named else "ROLE"
    return f"{said}: an operator must run `hookseal producer grant --role {role} --tenant {tenant_id}`"
