"""Reads endpoints for an operator, without their secrets."""

import json
from dataclasses import dataclass
from typing import Any, Final

from hookseal.dispatcher.model import WaitingFor
from hookseal.ground.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.paging import before, paged, require_limit
from hookseal.postgres.handles import Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher", "endpoint_queries.sql", seconds=None)
_HELD: Final = frozenset({WaitingFor.SECRET.value, WaitingFor.BREAKER.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFilter:
    """Which endpoints to list: every condition that is set must be true."""

    tenant_id: TenantId | None = None
    enabled: bool | None = None


async def page(
    executor: Executor, conditions: EndpointFilter, *, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` endpoints, newest first, and the cursor of the next page, None after the last.

    Raises `Malformed` for an invalid cursor or a limit outside 1 to 1000, `Unavailable`.
    """
    require_limit(limit)
    ended_with = before(cursor)
    name = "page" if conditions.tenant_id is None else "page_of_tenant"
    rows = await _SQL.rows(executor, name, conditions.tenant_id, conditions.enabled, ended_with, limit + 1)
    items, following = paged(rows, limit, "endpoint_id")
    return [_with_state(item) for item in items], following


async def show(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> dict[str, Any]:
    """Return one endpoint, with how many of its deliveries are pending, how many of these are held, since when and why.

    `last_failure` is the last failed attempt among its newest thousand deliveries, None without one. `lane` is what its
    lane waits for, None if it is open; `next_probe_at` is the time of the next probe if that is a secret or its
    breaker, else None. `stopped_by` is the delivery that was given up and stops its line. `tls` has the subject, the
    fingerprint and the end of each of its certificates.

    Raises `NotFound` if the tenant has no such endpoint, `Unavailable`.
    """
    row = await _SQL.row(executor, "show", tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    endpoint, schedule = _with_state(dict(row)), row["retry_schedule"]
    failure = await _SQL.row(executor, "last_failure", tenant, endpoint_id)
    return endpoint | {
        "retry_schedule": None if schedule is None else [int(seconds) for seconds in schedule],
        "tls": None if endpoint["tls"] is None else json.loads(endpoint["tls"]),
        "last_failure": None if failure is None else dict(failure),
    }


def _with_state(endpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the endpoint with its state, the first that is true, as in the view `endpoint_backlog`."""
    if not endpoint["enabled"]:
        state = "disabled"
    elif endpoint["lane"] in _HELD:
        state = "held"
    elif endpoint["stopped_by"] is not None:
        state = "stopped"
    else:
        state = "healthy" if endpoint["failing_since"] is None else "failing"
    return {name: endpoint[name] for name in ("tenant_id", "endpoint_id")} | {"state": state} | endpoint
