"""The health of endpoints in PostgreSQL: since when each is failing, and which are disabled for it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hookseal.dispatcher.core.endpoint_health import Key
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements

BATCH: Final = 100

_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_SQL: Final = Statements("hookseal.dispatcher.store", "endpoint_health.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """An endpoint that has been failing for too long, and since when."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    first_failure_at: datetime


async def mark_failing(executor: Executor, keys: Iterable[Key]) -> list[Key]:
    """Note that these endpoints are failing; return those that were not failing before. Raises `Unavailable`."""
    return await _marked(executor, "mark_failing", keys)


async def mark_recovered(executor: Executor, keys: Iterable[Key]) -> list[Key]:
    """Note that these endpoints are not failing any more; return those that were. Raises `Unavailable`."""
    return await _marked(executor, "mark_recovered", keys)


async def failing_too_long(executor: Executor, after: Failing | None, *, after_seconds: int) -> list[Failing]:
    """Return a page of the enabled endpoints that have only failed for that long, those first that failed for longest.

    The time counts from the first to the last failure: an endpoint to which nothing was sent is not one of them.
    `after` is the last endpoint of the page before; the last page has fewer than `BATCH`. Raises `Unavailable`.
    """
    place = (_BEGINNING, _NOBODY) if after is None else (after.first_failure_at, after.endpoint_id)
    return [Failing(**row) for row in await _SQL.rows(executor, "failing_too_long", after_seconds, BATCH, *place)]


async def disable_failing(connection: Connection, failing: Failing, *, after_seconds: int) -> str | None:
    """Disable the endpoint if it still fails for too long, in the caller's transaction; return the reason if it was.

    One that another transaction has locked is left out. Raises `Unavailable`.
    """
    reason: str | None = await _SQL.value(
        connection, "disable_failing", after_seconds, failing.tenant_id, failing.endpoint_id
    )
    return reason


async def _marked(executor: Executor, name: str, keys: Iterable[Key]) -> list[Key]:
    tenants, endpoints = zip(*keys, strict=True)
    rows = await _SQL.rows(executor, name, list(tenants), list(endpoints))
    return [(TenantId(row["tenant_id"]), EndpointId(row["endpoint_id"])) for row in rows]
