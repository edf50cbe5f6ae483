"""Finds versions to retire, after their overlap, and versions to destroy, after their retention.

The row of a destroyed version stays. Its material may still be in the write-ahead log, in replicas and in backups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Executor
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.statements import statements
from hookseal.secrets.store import external

PAGE: Final = 100
BATCH: Final = 50  # a batch locks the tenant's audit log
MOST_DAYS: Final = 3_650  # that an operator may name

_SQL: Final = statements("retention.sql", package="hookseal.secrets.store", seconds=ANSWER_SECONDS)
_PURPOSES: Final = [Purpose.WEBHOOK_SIGNING.value, Purpose.ENDPOINT_HEADERS.value, Purpose.ENDPOINT_TLS.value]
_DAY_SECONDS: Final = 86_400.0
_LEFT_SECONDS: Final = (
    3_600.0  # the pointer moves an hour after the end, so that an operator who watches the overlap can still see it
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredVersion:
    """A retired version after its retention, with the master key that sealed it, None outside PostgreSQL."""

    ref: SecretRef
    key_id: str | None
    retired_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedOverlap:
    """An endpoint whose overlap is over, and whose previous version is not retired yet."""

    tenant_id: TenantId
    endpoint_id: EndpointId


async def ended_overlaps(source: Executor, after: EndedOverlap | None) -> list[EndedOverlap]:
    """Return a page of the endpoints whose overlap ended an hour ago or more, in the order of tenant and id.

    `after` is the last endpoint of the page before. The last page has fewer than `PAGE`. Raises `SecretUnavailable`.
    """
    cursor = (None, None) if after is None else (after.tenant_id, after.endpoint_id)
    rows = await _SQL.rows(source, "ended_overlaps", _LEFT_SECONDS, *cursor, PAGE)
    return [EndedOverlap(**row) for row in rows]


async def tenants(source: Executor, *, days: int) -> list[TenantId]:
    """Return the tenants with a version that was retired `days` ago or earlier. Raises `SecretUnavailable`."""
    rows = await _SQL.rows(source, "tenants", _PURPOSES, days * _DAY_SECONDS)
    return [TenantId(row["tenant_id"]) for row in rows]


async def lock_expired(
    connection: Connection, tenant: TenantId, *, days: int, after: ExpiredVersion | None = None
) -> list[ExpiredVersion]:
    """Lock and return up to `BATCH` versions whose material is no longer needed, for the caller's transaction.

    It leaves out versions that a pointer names, that a claim in flight may read, and that others have locked. A batch
    begins after `after`. Raises `SecretUnavailable`.
    """
    cursor = (None, None) if after is None else (after.ref.name, after.ref.version)
    rows = await _SQL.rows(connection, "lock_expired", tenant, _PURPOSES, days * _DAY_SECONDS, *cursor, BATCH)
    return [
        ExpiredVersion(
            ref=SecretRef.parse(row["ref"]),
            key_id=row["key_id"],
            retired_at=row["retired_at"],
        )
        for row in rows
    ]


async def destroy(connection: Connection, tenant: TenantId, expired: Sequence[ExpiredVersion]) -> None:
    """Destroy the material of these versions, in the transaction that locked them. Raises `SecretUnavailable`.

    Outside PostgreSQL it is worthless from then on, and `leftovers.remove` removes it there.
    """
    names, numbers = [each.ref.name for each in expired], [str(each.ref.version) for each in expired]
    await _SQL.execute(connection, "destroy", tenant, names, numbers)
    await external.add_destroyed(connection, tenant, [(each.ref.name, each.ref.version) for each in expired])
