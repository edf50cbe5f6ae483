"""The health of endpoints in PostgreSQL: since when each is failing, and which are disabled for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hookseal.dispatcher.failing_endpoints import Key
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.handles import Executor
from hookseal.postgres.statements import Statements

BATCH: Final = 100  # endpoints that one statement disables

_SQL: Final = Statements("hookseal.dispatcher", "endpoint_health.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disabled:
    """An endpoint that was disabled because it failed for too long, and the reason that its row has now."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    reason: str


async def mark_failing(executor: Executor, keys: Iterable[Key]) -> list[Key]:
    """Note that these endpoints are failing; return those that were not failing before. Raises `Unavailable`."""
    return await _marked(executor, "mark_failing", keys)


async def mark_recovered(executor: Executor, keys: Iterable[Key]) -> list[Key]:
    """Note that these endpoints are not failing any more; return those that were. Raises `Unavailable`."""
    return await _marked(executor, "mark_recovered", keys)


async def disable_failing(executor: Executor, *, after_seconds: int) -> list[Disabled]:
    """Disable at most `BATCH` endpoints that have only failed for that long; return them. Raises `Unavailable`.

    The time counts from the first to the last failure: an endpoint to which nothing was sent is not disabled.
    """
    rows = await _SQL.rows(executor, "disable_failing", after_seconds, BATCH)
    return [
        Disabled(tenant_id=TenantId(row["tenant_id"]), endpoint_id=EndpointId(row["endpoint_id"]), reason=row["reason"])
        for row in rows
    ]


async def _marked(executor: Executor, name: str, keys: Iterable[Key]) -> list[Key]:
    tenants, endpoints = zip(*keys, strict=True)
    rows = await _SQL.rows(executor, name, list(tenants), list(endpoints))
    return [(TenantId(row["tenant_id"]), EndpointId(row["endpoint_id"])) for row in rows]
