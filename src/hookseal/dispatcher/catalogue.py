"""What an operator reads of endpoints: everything but their secrets."""

import json
from dataclasses import dataclass
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.paging import before, paged
from hookseal.ground.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.paging import require_limit
from hookseal.ground.sql import statements
from hookseal.schema.database import Executor

_SQL: Final = statements("hookseal.dispatcher", "catalogue.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """Which endpoints to list: every condition that is set must hold."""

    tenant_id: TenantId | None = None
    enabled: bool | None = None


async def page(
    executor: Executor, sought: Sought, *, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` endpoints, newest first, and the cursor of the next page, None after the last.

    Raises `Malformed` for a cursor that no page gave or a limit out of 1 to 1000, `Unavailable`.
    """
    require_limit(limit)
    ended_with = before(cursor)
    with translated():
        rows = await executor.fetch(_SQL["page"], sought.tenant_id, sought.enabled, ended_with, limit + 1)
    return paged(rows, limit, "endpoint_id")


async def show(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> dict[str, Any]:
    """Return one endpoint with how many of its deliveries are pending, how many of these wait, and since when.

    `next_probe_at` is when the oldest of them is tried, if they wait for a secret, else None. `tls` tells of its
    certificates by subject, fingerprint and end.

    Raises `NotFound` if the tenant has no such endpoint, `Unavailable`.
    """
    with translated():
        row = await executor.fetchrow(_SQL["show"], tenant, endpoint_id)
    if row is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    found = dict(row)
    return found | {"tls": None if found["tls"] is None else json.loads(found["tls"])}
