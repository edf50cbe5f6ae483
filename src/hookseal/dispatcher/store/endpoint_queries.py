"""What an operator reads about endpoints: their state, and their statistics."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any, Final, assert_never

import msgspec

from hookseal.dispatcher.core.endpoint_health import Counts, Key
from hookseal.errors import NotFound
from hookseal.ground.ids import EndpointId, Place, TenantId, before, paged, require_limit
from hookseal.postgres.pool import Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "endpoint_queries.sql", seconds=None)
MOST_IN_STATE: Final = 10_000  # endpoints that a page in `states` reads of each


class Trouble(StrEnum):
    """Why an operator looks at an endpoint: not everything is delivered to it, or its rotation by schedule is due."""

    DISABLED = "disabled"
    HELD = "held"
    STOPPED = "stopped"
    FAILING = "failing"
    ROTATION_DUE = "rotation_due"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFilter:
    """Which endpoints to list: every condition that is set must be true.

    One of the `states` must be true, also if the endpoint is shown in another one. A disabled endpoint is listed only
    if that is one of them. With states the list has falling ids, and `enabled` is not set.
    """

    tenant_id: TenantId | None = None
    enabled: bool | None = None
    states: tuple[Trouble, ...] | None = None


async def page(
    executor: Executor, conditions: EndpointFilter, place: Place, *, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` endpoints at this place, and the cursor of the next page, None after the last.

    Raises `Malformed` for an invalid cursor, more than one place, or a limit outside 1 to 1000, `Unavailable`.
    """
    require_limit(limit)
    if conditions.states is not None:
        given = (conditions.tenant_id, [*conditions.states], place.begins_with, limit + 1, MOST_IN_STATE)
        items, following = place.page(await _SQL.rows(executor, "page_in_states", *given), limit, "endpoint_id")
        return [_item(item) for item in items], following
    name = "page" if conditions.tenant_id is None else "page_of_tenant"
    name += "_rising" if place.is_rising else ""
    rows = await _SQL.rows(executor, name, conditions.tenant_id, conditions.enabled, place.begins_with, limit + 1)
    items, following = place.page(rows, limit, "endpoint_id")
    return [_item(item) for item in items], following


async def find(
    executor: Executor, tenant: TenantId, *, endpoint_id: EndpointId | None = None, uid: str | None = None
) -> dict[str, Any]:
    """Return the endpoint with this id, or with this uid, as in a page. Raises `NotFound`, `Unavailable`."""
    row = await _SQL.row(executor, "find", tenant, endpoint_id, uid)
    if row is None:
        raise _not_found(uid)
    return _item(dict(row))


async def find_all(executor: Executor, tenant: TenantId, endpoint_ids: Sequence[EndpointId]) -> list[dict[str, Any]]:
    """Return those of these endpoints that exist, as in a page, in any order. Raises `Unavailable`."""
    return [_item(dict(row)) for row in await _SQL.rows(executor, "some", tenant, endpoint_ids)]


def _not_found(uid: str | None) -> NotFound:
    return NotFound("the tenant has no such endpoint", field="endpoint_id" if uid is None else "uid")


async def show(
    executor: Executor, tenant: TenantId, *, endpoint_id: EndpointId | None = None, uid: str | None = None
) -> dict[str, Any]:
    """Return one endpoint, by its id or its uid, with how many of its deliveries are pending, up to 10,000.

    It also has how many of these are held, since when and why. `last_failure` is the last failed attempt among its
    newest thousand deliveries, None without one. `lane` is what its lane waits for, None if it is open; `next_probe_at`
    is the time of the next probe if that is a secret or its breaker, else None. `stopped_by` is the delivery that was
    given up and stops its line. `tls` has the subject, the fingerprint and the end of each of its certificates.

    Raises `NotFound` if the tenant has no such endpoint, `Unavailable`.
    """
    row = await _SQL.row(executor, "show", tenant, endpoint_id, uid)
    if row is None:
        raise _not_found(uid)
    endpoint = _item(dict(row))
    failure = await _SQL.row(executor, "last_failure", tenant, row["endpoint_id"])
    return endpoint | {
        "next_probe_at": row["states"][3],
        "tls": None if endpoint["tls"] is None else json.loads(endpoint["tls"]),
        "last_failure": None if failure is None else dict(failure),
    }


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in row.items() if name not in {"settings", "states"}}
    settings: dict[str, Any] = msgspec.json.decode(row["settings"])
    state, since, stopped_by, _next_probe_at = row["states"]
    return (
        own
        | settings
        | {
            "state": state,
            "state_since": since,
            "stopped_by": stopped_by,
        }
    )


BATCH: Final = 1_000  # rows that one statement writes or deletes

_ENDPOINT_STATS: Final = Statements("hookseal.dispatcher.store", "endpoint_stats.sql")
_OF_PERIOD: Final = ("attempts", "delivered", "success_rate", "p50_ms", "p99_ms")
_OF_ENDPOINT: Final = (
    "tenant_id", "endpoint_id", "state", "state_since", "pending", "waiting", "oldest_due_at", "waiting_since",
)  # fmt: skip


async def add(executor: Executor, counts: Mapping[Key, Counts]) -> None:
    """Add the counts of at most `BATCH` endpoints to those of the current quarter of an hour. Raises `Unavailable`."""
    await _ENDPOINT_STATS.execute(
        executor,
        "add",
        [tenant for tenant, _ in counts],
        [endpoint for _, endpoint in counts],
        [str(each.delivered) for each in counts.values()],
        [" ".join(map(str, each.durations)) for each in counts.values()],
    )


async def forget(executor: Executor) -> int:
    """Delete at most `BATCH` counts that are older than 25 hours; return how many. Raises `Unavailable`."""
    return await _ENDPOINT_STATS.execute(executor, "forget", BATCH)


class StatsOrder(StrEnum):
    """By what statistics are sorted, the worst first."""

    PENDING = "pending"
    WAITING = "waiting"
    OLDEST_DUE = "oldest_due"
    P99 = "p99"


async def stats_page(
    executor: Executor,
    tenant: TenantId | None,
    endpoint: EndpointId | None,
    *,
    states: Sequence[Trouble] | None = None,
    order: StatsOrder | None = None,
    limit: int,
    cursor: str | None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the statistics of up to `limit` endpoints, and the cursor of the next page, None after the last.

    They are those of the tenant, or of every tenant, of which one of the `states` is true if some are given, by falling
    id. With an order they are the first of the 1,000 with the highest ids, and there is no next page. Raises `NotFound`
    if the tenant does not have the named endpoint, `Malformed` for an invalid cursor or a limit outside 1 to 1000, and
    `Unavailable`.
    """
    require_limit(limit)
    place, most = before(cursor), limit + 1 if order is None else BATCH
    if states is not None:
        rows = await _SQL.rows(executor, "stats_in_states", tenant, [*states], place, most, MOST_IN_STATE)
    elif tenant is None:
        rows = await _SQL.rows(executor, "stats_of_all", place, most)
    else:
        rows = await _SQL.rows(executor, "stats_of_tenant", tenant, endpoint, place, most)
    if not rows and endpoint is not None and cursor is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint_id")
    items = [_stats(list(each)) for _, each in groupby(rows, key=lambda row: row["endpoint_id"])]
    if order is None:
        return paged(items, limit, "endpoint_id")
    return sorted(items, key=lambda item: _worse(item, order), reverse=True)[:limit], None


def _worse(item: Mapping[str, Any], order: StatsOrder) -> float:
    """Return a number that is higher for what is worse."""
    match order:
        case StatsOrder.PENDING | StatsOrder.WAITING:
            return float(item[order.value])
        case StatsOrder.OLDEST_DUE:
            return -math.inf if item["oldest_due_at"] is None else -item["oldest_due_at"].timestamp()
        case StatsOrder.P99:
            return -1.0 if item["last_hour"]["p99_ms"] is None else item["last_hour"]["p99_ms"]
        case _:
            assert_never(order)


def _stats(rows: list[Any]) -> dict[str, Any]:
    periods = {f"last_{row['period']}": {name: row[name] for name in _OF_PERIOD} for row in rows}
    return {**{name: rows[0][name] for name in _OF_ENDPOINT}, **dict(sorted(periods.items(), reverse=True))}
