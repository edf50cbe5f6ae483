"""Reads attempts for an operator."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from hookseal.dispatcher.store import delivery_queries, event_queries
from hookseal.errors import Malformed, NotFound
from hookseal.ground.ids import (
    AttemptId,
    EndpointId,
    EventId,
    Place,
    TenantId,
    encode_cursor,
    parts_of,
    require_limit,
)
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

MAX_WALKED: Final = 50_000  # attempts that one page reads to find those that match: about a quarter of a second
_FIRST: Final = ("-infinity", str(UUID(int=0)), 0)
_LAST: Final = ("infinity", str(UUID(int=2**128 - 1)), 2**31 - 1)

_SQL: Final = Statements("hookseal.dispatcher.store", "attempt_queries.sql", seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFilter:
    """Which attempts of a tenant to list: of an endpoint, of an event or of both, as far as every condition is true.

    Their events have the `channel`. They began at `since` or later, and before `until`. `status_class` is the first
    digit of the HTTP status, 0 for an attempt without an answer.
    """

    tenant_id: TenantId
    endpoint_id: EndpointId | None = None
    event_id: EventId | None = None
    event_types: tuple[str, ...] | None = None
    channel: str | None = None
    delivered: bool | None = None
    status_class: int | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page(
    executor: Executor, conditions: AttemptFilter, place: Place, *, limit: int, walked: int = MAX_WALKED
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` attempts at this place, by time, and the cursor of the next page, None after the last.

    A page of an endpoint ends after `walked` attempts were read, even if few match. An event may have fewer than
    `walked` attempts, or fewer to the endpoint that is given.

    Raises `Malformed` for an invalid cursor, an attempt beside the page that is not of this list, more than one of
    them, a limit outside 1 to 1000, or an event with too many attempts; `NotFound` if the endpoint or the event does
    not exist; `Unavailable`. At most three statements.
    """
    require_limit(limit)
    arguments = (
        conditions.tenant_id,
        conditions.endpoint_id,
        None if conditions.event_types is None else list(conditions.event_types),
        conditions.delivered,
        conditions.status_class,
        "-infinity" if conditions.since is None else conditions.since.isoformat(),
        "infinity" if conditions.until is None else conditions.until.isoformat(),
        *await _begin(executor, conditions, place),
        walked,
        limit + 1,
        conditions.channel,
    )
    if conditions.event_id is not None:
        rows = await _SQL.rows(executor, "page_of_event", *arguments, conditions.event_id, place.is_rising)
        if rows and rows[0]["is_end"]:
            raise Malformed(
                f"the event has {walked} attempts or more: name one of its endpoints, too", field="endpoint_id"
            )
        if not rows:
            await event_queries.find(executor, conditions.tenant_id, conditions.event_id)
    else:
        name = "page_of_endpoint_rising" if place.is_rising else "page_of_endpoint"
        rows = await _SQL.rows(executor, name, *arguments)
        if not rows and conditions.endpoint_id is not None:
            await delivery_queries.require_endpoint(executor, conditions.endpoint_id, conditions.tenant_id)
    ended_with = rows[-1]["attempt_id"] if rows and rows[-1]["is_end"] else None
    items, following = place.page([row for row in rows if row["matches"]], limit, "attempt_id")
    items = [{name: item[name] for name in item if name not in {"matches", "is_end"}} for item in items]
    if following is None and ended_with is not None:
        following = encode_cursor(ended_with)
    return items, following


async def show(executor: Executor, tenant: TenantId, attempt_id: AttemptId) -> dict[str, Any]:
    """Return one attempt of the tenant. Raises `NotFound`, `Unavailable`."""
    row = await _SQL.row(executor, "show", tenant, *parts_of(attempt_id))
    if row is None:
        raise NotFound("the tenant has no attempt with this id", field="attempt_id")
    return dict(row)


async def _begin(executor: Executor, conditions: AttemptFilter, place: Place) -> tuple[str, str, int]:
    """Return the time, the delivery and the number of the attempt beside the page; without one those of the end."""
    beside = place.begins_with_attempt
    if beside is None:
        return _FIRST if place.is_rising else _LAST
    delivery, number = parts_of(beside)
    at = await _SQL.value(
        executor, "time_of", conditions.tenant_id, delivery, number, conditions.endpoint_id, conditions.event_id
    )
    if at is None:
        given = "cursor" if place.cursor is not None else "after" if place.after is not None else "before"
        raise Malformed(f"{given} must be an attempt of this list that is not deleted yet", field=given)
    return at, delivery, number
