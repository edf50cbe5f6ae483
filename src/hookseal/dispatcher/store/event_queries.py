"""Reads events for an operator."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from hookseal.errors import NotFound
from hookseal.ground.ids import EventId, TenantId, decode_cursor, encode_cursor, invalid_cursor, require_limit
from hookseal.ground.wire import EPOCH, microseconds
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

MAX_WALKED: Final = 250_000  # events that one page reads to find those of a type: about a second
MOST_DELIVERIES: Final = 1_000  # that `show` returns

_SQL: Final = Statements("hookseal.dispatcher.store", "event_queries.sql", seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events of a tenant to list: every condition that is set must be true.

    They were published at `since` or later, and before `until`.
    """

    tenant_id: TenantId
    event_type: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page(
    executor: Executor, conditions: EventFilter, *, limit: int, cursor: str | None, walked: int = MAX_WALKED
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` events, newest first, and the cursor of the next page, None after the last.

    A page ends after `walked` events were read, even if few of them have the type. Raises `Malformed` for an invalid
    cursor or a limit outside 1 to 1000, `Unavailable`.
    """
    require_limit(limit)
    ended_at, ended_with = (None, None) if cursor is None else _place(cursor)
    rows = await _SQL.rows(
        executor,
        "page",
        conditions.tenant_id,
        conditions.event_type,
        conditions.correlation_id,
        conditions.since,
        conditions.until,
        ended_at,
        ended_with,
        walked,
        limit + 1,
    )
    matches = [row for row in rows if row["matches"]]
    items = [{name: row[name] for name in row.keys() if name not in {"matches", "is_end"}} for row in matches[:limit]]  # noqa: SIM118 -- a row of asyncpg iterates over its values
    if len(matches) > limit:
        return items, _cursor(matches[limit - 1])
    return items, _cursor(rows[-1]) if rows and rows[-1]["is_end"] else None


async def find(executor: Executor, tenant: TenantId, event_id: EventId) -> dict[str, Any]:
    """Return one event without its payload. Raises `NotFound`, `Unavailable`."""
    row = await _SQL.row(executor, "show", tenant, event_id)
    if row is None:
        raise _not_found()
    return dict(row)


async def show(executor: Executor, tenant: TenantId, event_id: EventId) -> dict[str, Any]:
    """Return one event without its payload, with its deliveries, the oldest thousand of them, oldest first.

    Raises `NotFound`, `Unavailable`.
    """
    event = await find(executor, tenant, event_id)
    deliveries = await _SQL.rows(executor, "deliveries", tenant, event_id, MOST_DELIVERIES)
    return event | {"deliveries": [dict(delivery) for delivery in deliveries]}


async def body(executor: Executor, tenant: TenantId, event_id: EventId) -> bytes:
    """Return the body of the event, byte for byte as it is sent. Raises `NotFound`, `Unavailable`."""
    payload: bytes | None = await _SQL.value(executor, "body", tenant, event_id)
    if payload is None:
        raise _not_found()
    return payload


def _not_found() -> NotFound:
    return NotFound("the tenant has no event with this id", field="event_id")


def _cursor(row: Any) -> str:
    return encode_cursor(f"{microseconds(row['occurred_at'])}/{row['event_id']}")


def _place(cursor: str) -> tuple[datetime, str]:
    at, slash, event_id = decode_cursor(cursor).partition("/")
    try:
        if slash and at.isascii() and "\0" not in event_id:
            return EPOCH + timedelta(microseconds=int(at)), event_id
    except (ValueError, OverflowError):
        pass
    raise invalid_cursor()
