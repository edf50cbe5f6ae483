"""Tenants: their ids and uids, what a product says of them, and which ids are taken."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from hookseal.errors import Conflict, Malformed, NotFound
from hookseal.ground.ids import EndpointId, TenantId, require_limit
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "tenants.sql")
# Before and after every tenant, in times that Python can read.
_FIRST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTenant:
    """A tenant to add: by default with a new id, without a uid and a name."""

    tenant_id: TenantId | None
    uid: str | None
    name: str | None
    metadata: Mapping[str, str]


async def add(connection: Connection, tenant: NewTenant) -> dict[str, Any]:
    """Store the tenant, in the caller's transaction. A deleted one that has no event or delivery left begins anew.

    Raises `Conflict` if its id or uid is taken, `Unavailable`.
    """
    try:
        row = await _SQL.row(
            connection, "add", tenant.tenant_id, tenant.uid, tenant.name, json.dumps(dict(tenant.metadata))
        )
    except asyncpg.UniqueViolationError:
        raise _uid_taken() from None
    if row is None:
        raise Conflict(
            "there is a tenant with this id, or there was one whose events or deliveries are still kept",
            field="tenant_id",
        )
    return _read(row)


async def get(executor: Executor, wanted: str) -> dict[str, Any]:
    """Return the tenant with this id or uid. Raises `NotFound` and `Unavailable`."""
    return _found(await _SQL.row(executor, "get", wanted))


async def lock(connection: Connection, wanted: str) -> dict[str, Any]:
    """Return the tenant with this id or uid; it gets no endpoint until the caller's transaction ends.

    Raises `NotFound` and `Unavailable`.
    """
    return _found(await _SQL.row(connection, "lock", wanted))


async def update(connection: Connection, tenant: NewTenant) -> dict[str, Any]:
    """Store what is said of a tenant that the caller has locked.

    Raises `Conflict` if its uid is taken, `Unavailable`.
    """
    try:
        row = await _SQL.row(
            connection, "update", tenant.tenant_id, tenant.uid, tenant.name, json.dumps(dict(tenant.metadata))
        )
    except asyncpg.UniqueViolationError:
        raise _uid_taken() from None
    return _found(row)


async def endpoints(connection: Connection, tenant: TenantId, *, at_most: int) -> list[EndpointId]:
    """Return the ids of up to so many endpoints of the tenant, the lowest first. Raises `Unavailable`."""
    return [EndpointId(row["id"]) for row in await _SQL.rows(connection, "endpoints", tenant, at_most)]


async def delete(connection: Connection, tenant: TenantId) -> None:
    """Delete a tenant that the caller has locked and that has no endpoint. Raises `Unavailable`."""
    await _SQL.execute(connection, "delete", tenant)


async def page(
    executor: Executor, *, limit: int, after: str | None, oldest_first: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` tenants behind the one with the id `after`, and the id of the last if others follow.

    Raises `Malformed` if there never was a tenant `after`, and for a limit outside 1 to 1000, `Unavailable`.
    """
    require_limit(limit)
    place: datetime | None = _FIRST if oldest_first else _LAST
    if after is not None:
        place = await _SQL.value(executor, "added_at", after)
    if place is None:
        raise Malformed("after must be the id of a tenant", field="after")
    rows = await _SQL.rows(executor, "oldest" if oldest_first else "newest", place, after or "", limit + 1)
    items = [_read(row) for row in rows[:limit]]
    return items, items[-1]["tenant_id"] if len(rows) > limit else None


def _found(row: asyncpg.Record | None) -> dict[str, Any]:
    if row is None:
        raise NotFound("there is no such tenant", field="tenant_id")
    return _read(row)


def _read(row: asyncpg.Record) -> dict[str, Any]:
    return dict(row) | {"metadata": json.loads(row["metadata"])}


def _uid_taken() -> Conflict:
    return Conflict("another tenant has this uid", field="uid")
