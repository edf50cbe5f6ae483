"""Statistics of endpoints in PostgreSQL: what workers count, and what an operator reads."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

from hookseal.dispatcher.attempt_counts import Counts, Key
from hookseal.ground.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.paging import before, paged, require_limit
from hookseal.postgres.handles import Executor
from hookseal.postgres.statements import Statements

BATCH: Final = 1_000  # rows that one statement writes or deletes

_SQL: Final = Statements("hookseal.dispatcher", "endpoint_stats.sql")
_OF_PERIOD: Final = ("attempts", "delivered", "success_rate", "p50_ms", "p99_ms")
_OF_ENDPOINT: Final = ("tenant_id", "endpoint_id", "state", "pending", "waiting", "oldest_due_at")


async def add(executor: Executor, counts: Mapping[Key, Counts]) -> None:
    """Add the counts of at most `BATCH` endpoints to those of the current quarter of an hour. Raises `Unavailable`."""
    await _SQL.execute(
        executor,
        "add",
        [tenant for tenant, _ in counts],
        [endpoint for _, endpoint in counts],
        [str(each.delivered) for each in counts.values()],
        [" ".join(map(str, each.durations)) for each in counts.values()],
    )


async def forget(executor: Executor) -> int:
    """Delete at most `BATCH` counts that are older than 25 hours; return how many. Raises `Unavailable`."""
    return await _SQL.execute(executor, "forget", BATCH)


async def page(
    executor: Executor, tenant: TenantId, endpoint: EndpointId | None, *, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the statistics of up to `limit` endpoints, and the cursor of the next page, None after the last.

    Raises `NotFound` if the tenant does not have the named endpoint, `Malformed` for an invalid cursor or a limit
    outside 1 to 1000, and `Unavailable`.
    """
    require_limit(limit)
    rows = await _SQL.rows(executor, "page", tenant, endpoint, before(cursor), limit + 1)
    if not rows and endpoint is not None and cursor is None:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    found = [list(each) for _, each in groupby(rows, key=lambda row: row["endpoint_id"])]
    return paged([_item(each) for each in found], limit, "endpoint_id")


def _item(rows: list[Any]) -> dict[str, Any]:
    periods = {f"last_{row['period']}": {name: row[name] for name in _OF_PERIOD} for row in rows}
    return {**{name: rows[0][name] for name in _OF_ENDPOINT}, **dict(sorted(periods.items(), reverse=True))}
