"""Reads events for an operator."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from hookseal.errors import Malformed, NotFound
from hookseal.ground.ids import EventId, Place, TenantId, decode_cursor, encode_cursor, invalid_cursor, require_limit
from hookseal.ground.wire import EPOCH, microseconds
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

MAX_WALKED: Final = 250_000  # events that one page reads to find those of a type: about a second
MOST_DELIVERIES: Final = 1_000  # that `show` returns
MOST_TENANTS: Final = 10_000  # in which `everywhere` looks
MOST_EVERYWHERE: Final = 50  # events that it returns by their id, and by their correlation id

_SQL: Final = Statements("hookseal.dispatcher.store", "event_queries.sql", seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events of a tenant to list: every condition that is set must be true.

    They were published at `since` or later, and before `until`, in the `channel`.
    """

    tenant_id: TenantId
    event_types: tuple[str, ...] | None = None
    channel: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page(
    executor: Executor, conditions: EventFilter, place: Place, *, limit: int, walked: int = MAX_WALKED
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` events at this place, by time, and the cursor of the next page, None after the last.

    A page ends after `walked` events were read, even if few of them match. Raises `Malformed` for an invalid cursor,
    an event beside the page that the tenant does not have, or a limit outside 1 to 1000; `Unavailable`.
    """
    require_limit(limit)
    rows = await _SQL.rows(
        executor,
        "page_rising" if place.is_rising else "page",
        conditions.tenant_id,
        None if conditions.event_types is None else list(conditions.event_types),
        conditions.channel,
        conditions.correlation_id,
        "-infinity" if conditions.since is None else conditions.since.isoformat(),
        "infinity" if conditions.until is None else conditions.until.isoformat(),
        *await _begin(executor, conditions.tenant_id, place),
        walked,
        limit + 1,
    )
    matches = [row for row in rows if row["matches"]]
    chosen = matches[:limit] if place.before is None else matches[:limit][::-1]
    items = [{name: row[name] for name in row.keys() if name not in {"matches", "is_end"}} for row in chosen]  # noqa: SIM118 -- a row of asyncpg iterates over its values
    if len(matches) > limit or (place.before is not None and chosen):
        return items, _cursor(chosen[-1])
    return items, _cursor(rows[-1]) if rows and rows[-1]["is_end"] else None


async def _begin(executor: Executor, tenant: TenantId, place: Place) -> tuple[str, str]:
    """Return the time and the id of the event beside the page; without one those of the end."""
    if place.cursor is not None:
        at, event_id = _place(place.cursor)
        return at.isoformat(), event_id
    beside = place.after or place.before
    if beside is None:
        return ("-infinity" if place.is_rising else "infinity"), ""
    found: str | None = await _SQL.value(executor, "time_of", tenant, beside)
    if found is None:
        given = "before" if place.after is None else "after"
        raise Malformed(f"{given} must be an event of the tenant that is not deleted yet", field=given)
    return found, beside


async def bodies(
    executor: Executor, tenant: TenantId, event_ids: Sequence[EventId], *, most_bytes: int
) -> dict[str, bytes]:
    """Return the body of each of these events that exists, by its id, in their order.

    They have at most `most_bytes` in all: those that come after these, and do not fit, are left out. The first one is
    always there. Raises `Unavailable`.
    """
    rows = await _SQL.rows(executor, "bodies", tenant, event_ids, most_bytes)
    return {row["id"]: row["body"] for row in rows}


async def find(executor: Executor, tenant: TenantId, event_id: EventId) -> dict[str, Any]:
    """Return one event without its payload. Raises `NotFound`, `Unavailable`."""
    row = await _SQL.row(executor, "show", tenant, event_id)
    if row is None:
        raise _not_found()
    return dict(row)


async def find_all(executor: Executor, tenant: TenantId, event_ids: Sequence[EventId]) -> list[dict[str, Any]]:
    """Return those of these events that exist, without their payloads, in any order. Raises `Unavailable`."""
    return [dict(row) for row in await _SQL.rows(executor, "some", tenant, event_ids)]


async def everywhere(
    executor: Executor, text: str, *, tenants: int = MOST_TENANTS, most: int = MOST_EVERYWHERE
) -> tuple[list[dict[str, Any]], bool]:
    """Return the events of every tenant with this id or correlation id, the newest first, and whether these are all.

    A tenant that has never had an endpoint is left out: nothing was sent for it. Raises `Unavailable`.
    """
    rows = [dict(row) for row in await _SQL.rows(executor, "everywhere", text, tenants, most)]
    by_id = sum(row["event_id"] == text for row in rows)
    looked_in_all = await _SQL.value(executor, "count_tenants", tenants + 1) <= tenants
    return rows, looked_in_all and by_id < most and len(rows) - by_id < most


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
