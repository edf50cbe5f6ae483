"""The end of a version: retired once its overlap is over, its material destroyed once its retention is.

That it existed stays known. What was destroyed may still be in the write-ahead log, in replicas and in backups, until
those are gone, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Connection, Executor, connected
from hookseal.secrets.context import Purpose
from hookseal.secrets.database import outages_translated
from hookseal.secrets.ref import Provider, SecretRef

PAGE: Final = 100
BATCH: Final = 50  # the tenant's audit log is held for as long as a batch takes

_SQL: Final = statements("hookseal.secrets", "retention.sql")
_PURPOSES: Final = [Purpose.WEBHOOK_SIGNING.value, Purpose.ENDPOINT_HEADERS.value, Purpose.ENDPOINT_TLS.value]
_DAY_SECONDS: Final = 86_400.0
_LEFT_SECONDS: Final = 3_600.0  # the pointer is not moved the moment an overlap ends: whoever watches it may look


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A retired version that is past its retention, with the master key that sealed it."""

    ref: SecretRef
    key_id: str
    retired_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOut:
    """An endpoint whose overlap is over, and whose previous version is not retired yet."""

    tenant_id: TenantId
    endpoint_id: EndpointId


async def run_out(source: Executor, after: RunOut | None) -> list[RunOut]:
    """Return a page of the endpoints whose overlap ended an hour ago or more, behind the last one of the page before.

    It is shorter than `PAGE` at the end. Raises `SecretUnavailable`.
    """
    place = (None, None) if after is None else (after.tenant_id, after.endpoint_id)
    with outages_translated():
        async with connected(source) as connection:
            rows = await connection.fetch(_SQL["run_out"], _LEFT_SECONDS, *place, PAGE, timeout=ANSWER_SECONDS)
    return [RunOut(**row) for row in rows]


async def tenants(source: Executor, *, days: int) -> list[TenantId]:
    """Return the tenants that have a version which was retired so many days ago. Raises `SecretUnavailable`."""
    with outages_translated():
        async with connected(source) as connection:
            rows = await connection.fetch(_SQL["tenants"], _PURPOSES, days * _DAY_SECONDS, timeout=ANSWER_SECONDS)
    return [TenantId(row["tenant_id"]) for row in rows]


async def find(connection: Connection, tenant: TenantId, *, days: int, after: Past | None = None) -> list[Past]:
    """Return up to a batch of versions whose material nobody may need, held for the caller's transaction.

    None is among them that a pointer names or a claim in flight may ask for, nor one that somebody else holds. A
    batch begins behind `after`. Raises `SecretUnavailable`.
    """
    place = (None, None) if after is None else (after.ref.name, after.ref.version)
    with outages_translated():
        rows = await connection.fetch(
            _SQL["find"], tenant, _PURPOSES, days * _DAY_SECONDS, *place, BATCH, timeout=ANSWER_SECONDS
        )
    return [
        Past(
            ref=SecretRef(provider=Provider.DB, tenant=tenant, name=row["name"], version=row["version"]),
            key_id=row["key_id"],
            retired_at=row["retired_at"],
        )
        for row in rows
    ]


async def destroy(connection: Connection, tenant: TenantId, doomed: Sequence[Past]) -> None:
    """Destroy the material of these versions, in the transaction that found them. Raises `SecretUnavailable`."""
    names, numbers = [each.ref.name for each in doomed], [each.ref.version for each in doomed]
    with outages_translated():
        await connection.execute(_SQL["destroy"], tenant, names, numbers, timeout=ANSWER_SECONDS)
