"""What an operator reads of deliveries and their attempts."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.dispatcher.model import State
from hookseal.dispatcher.paging import before, paged
from hookseal.ground.errors import NotFound
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.paging import cursor_of, require_limit
from hookseal.ground.sql import statements
from hookseal.schema.database import Executor

MAX_WALKED: Final = 250_000  # about a second: so many deliveries one page looks at for those that a secret signed

_SQL: Final = statements("hookseal.dispatcher", "history.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which deliveries to list: every condition that is set must hold. `since` is when they were made.

    `signed_by` is the ref of a secret of the endpoint, which is then named with its tenant: an attempt of the
    delivery was signed with it, or a claim in flight read it.
    """

    tenant_id: TenantId | None = None
    endpoint_id: EndpointId | None = None
    event_type: str | None = None
    state: State | None = None
    since: datetime | None = None
    signed_by: str | None = None


async def page(
    executor: Executor, wanted: Filter, *, limit: int, cursor: str | None, walked: int = MAX_WALKED
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` deliveries, newest first, and the cursor of the next page, None after the last.

    With `signed_by` a page ends after `walked` deliveries of the endpoint, however few of them it keeps. Raises
    `Malformed` for a cursor that no page gave or a limit out of 1 to 1000, `NotFound` without `signed_by` for an
    endpoint that is not there (one that was deleted is, for its history), `Unavailable`.
    """
    require_limit(limit)
    ended_with = before(cursor)
    conditions = (
        wanted.tenant_id,
        wanted.endpoint_id,
        wanted.event_type,
        None if wanted.state is None else wanted.state.value,
        wanted.since,
        ended_with,
        limit + 1,
    )
    with translated():
        if wanted.signed_by is not None:
            rows = await executor.fetch(_SQL["page_signed_by"], *conditions, wanted.signed_by, walked)
            return _of_walk([dict(row) for row in rows], limit)
        rows = await executor.fetch(_SQL["page"], *conditions)
        if not rows and wanted.endpoint_id is not None:
            await _require_endpoint(executor, wanted.endpoint_id, wanted.tenant_id)
    return paged(rows, limit, "delivery_id")


async def show(executor: Executor, wanted: DeliveryId) -> dict[str, Any]:
    """Return one delivery with its attempts, oldest first, in the shape of design 1.3.

    Raises `NotFound`, `Unavailable`.
    """
    with translated():
        row = await executor.fetchrow(_SQL["show"], wanted)
        if row is None:
            raise NotFound("there is no delivery with this id", field="delivery")
        attempts = await executor.fetch(_SQL["attempts"], row["tenant_id"], wanted)
    return {**dict(row), "attempt_log": [dict(attempt) for attempt in attempts]}


def _of_walk(rows: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Return the page of a walk: its cursor names where the page is full, or else where the walk ended."""
    ended_with = rows[-1]["delivery_id"] if rows and rows[-1]["is_end"] else None
    kept = [{name: row[name] for name in row if name not in {"kept", "is_end"}} for row in rows if row["kept"]]
    items, following = paged(kept, limit, "delivery_id")
    return items, following or (None if ended_with is None else cursor_of(ended_with))


async def _require_endpoint(executor: Executor, endpoint: EndpointId, tenant: TenantId | None) -> None:
    if not await executor.fetchval(_SQL["has_endpoint"], endpoint, tenant):
        whose = "" if tenant is None else " of this tenant"
        raise NotFound(f"there is no endpoint{whose} with this id", field="endpoint")
