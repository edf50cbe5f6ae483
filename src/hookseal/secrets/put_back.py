"""Which endpoints were put back to an older state, by table and audit log; and taking them as they are.

A row is old if the log knows a higher generation of it, a record if it contradicts its endpoint or the log, and an
endpoint is lost if the log knows it, nobody deleted it, and its row is gone. Of one that was deleted nothing may sign.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection, Executor
from hookseal.secrets import pointer, versions
from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretDestroyed, SecretTampered
from hookseal.secrets.integrity import IntegrityKey
from hookseal.secrets.ref import SecretRef

_SQL: Final = statements("hookseal.secrets", "put_back.sql")
_BATCH: Final = 500
_LOOKS: Final = ("endpoints", "lost", "left")
_BEGINNING: Final = ("", "00000000-0000-0000-0000-000000000000")


class PutBackKind(StrEnum):
    """What was put back."""

    ENDPOINT = "endpoint"
    RECORD = "record"
    LOST = "lost"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """An endpoint that is not as it was last; `generation` is that of its row, None if that is gone."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    kind: PutBackKind
    generation: int | None
    audited_generation: int | None


async def found(source: Executor, tenant: TenantId | None = None) -> AsyncIterator[PutBack]:
    """Yield every endpoint of the tenant, or of all, that was put back. Raises `SecretUnavailable`."""
    for look in _LOOKS:
        after = _BEGINNING
        while True:
            with outages_translated():
                rows = await source.fetch(_SQL[look], tenant, *after, _BATCH)
            for row in rows:
                if row["kind"] is not None:
                    yield PutBack(**dict(row) | {"kind": PutBackKind(row["kind"])})
            if len(rows) < _BATCH:
                break
            after = (rows[-1]["tenant_id"], rows[-1]["endpoint_id"])


async def altered(source: Executor, integrity: IntegrityKey, tenant: TenantId | None = None) -> AsyncIterator[PutBack]:
    """Yield every endpoint of the tenant, or of all, whose row is not as its MAC says. Raises `SecretUnavailable`.

    A row that hookseal never wrote, of an older system, has no MAC and is none of them.
    """
    async for found in pointer.every(source, tenant):
        try:
            if found.mac is not None or found.secret_ref is not None:
                integrity.verify(replace(found, audited_generation=None))
        except SecretTampered:
            yield PutBack(
                tenant_id=found.tenant_id,
                endpoint_id=found.endpoint_id,
                kind=PutBackKind.ALTERED,
                generation=found.generation,
                audited_generation=found.audited_generation,
            )


async def is_lost(connection: Connection, found: PutBack) -> bool:
    """Return whether that endpoint is lost still: since it was found, its row may have come back, or been let go.

    In the caller's transaction, which nobody appends to its log beside. Raises `SecretUnavailable`.
    """
    with outages_translated():
        lost: bool = await connection.fetchval(_SQL["is_lost"], found.tenant_id, found.endpoint_id)
    return lost


async def is_deleted(connection: Connection, found: PutBack) -> bool:
    """Return whether that endpoint has no row, and the log's last word about it is its deletion.

    In the caller's transaction, as `is_lost`. Raises `SecretUnavailable`.
    """
    with outages_translated():
        deleted: bool = await connection.fetchval(_SQL["is_deleted"], found.tenant_id, found.endpoint_id)
    return deleted


async def destroy_again(connection: Connection, found: PutBack) -> None:
    """Destroy what the log says was destroyed of that endpoint's secrets, and came back. Raises `SecretUnavailable`."""
    with outages_translated():
        await connection.execute(_SQL["destroy_again"], found.tenant_id, found.endpoint_id)


async def gone(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> list[str]:
    """Return which of its refs the endpoint's row has whose material is not there. Raises `SecretUnavailable`."""
    with outages_translated():
        rows = await connection.fetch(_SQL["gone"], tenant, endpoint_id)
    return [row["field"] for row in rows]


async def accept(
    connection: Connection, integrity: IntegrityKey, locked: Pointer
) -> tuple[Pointer, list[dict[str, Any]]]:
    """Make the locked pointer, old as it is, the newest there ever was, and its records what it says.

    Returns it with what is known of each of its secrets from now on, for the audit log. Material that is gone stays
    gone: the secret is then to be rotated. Raises `SecretTampered` if the row is not genuine, `SecretDenied` if
    it points at what is not its own, and `SecretUnavailable`.
    """
    integrity.verify(replace(locked, audited_generation=None))
    after = await pointer.moved(connection, integrity, locked, beyond=locked.audited_generation or 0)
    refs = [None if text is None else SecretRef.parse(text) for text in (after.secret_ref, after.previous_secret_ref)]
    headers = None if after.headers_ref is None else SecretRef.parse(after.headers_ref)
    tls = None if after.tls_ref is None else SecretRef.parse(after.tls_ref)
    for ref in refs:
        if ref is not None:
            pointer.require_own(ref, tenant=after.tenant_id, endpoint_id=after.endpoint_id)
    if headers is not None:
        pointer.require_own_headers(headers, tenant=after.tenant_id, endpoint_id=after.endpoint_id)
        await _arranged(connection, headers, None)
    if tls is not None:
        pointer.require_own_tls(tls, tenant=after.tenant_id, endpoint_id=after.endpoint_id)
        await _arranged(connection, tls, None)
    current, previous = refs
    if current is not None:
        await _arranged(connection, current, previous)
    with outages_translated():
        await connection.execute(_SQL["destroy_again"], after.tenant_id, after.endpoint_id)
        await connection.execute(_SQL["not_drained"], after.tenant_id, after.endpoint_id)
    told = [
        {"generation": after.generation, field: str(ref), "key_id": await _key_id(connection, ref)}
        for field, ref in (
            ("secret_ref", previous),
            ("headers_ref", headers),
            ("tls_ref", tls),
            ("secret_ref", current),
        )
        if ref is not None
    ]
    return after, told


async def reopened(connection: Connection) -> list[str]:
    """Have a re-wrap find work again under every key that was drained and has records; return which those are.

    In the caller's transaction, which holds the table of keys. Raises `SecretUnavailable`.
    """
    with outages_translated():
        rows = await connection.fetch(_SQL["none_drained"])
    return sorted(row["key_id"] for row in rows)


async def _arranged(connection: Connection, active: SecretRef, previous: SecretRef | None) -> None:
    try:
        async with connection.transaction():
            await versions.arrange(connection, active=active, previous=previous)
            if previous is not None:  # unlike a rotation, this gives a retired version its work back
                with outages_translated():
                    await connection.execute(_SQL["as_previous"], previous.tenant, previous.name, previous.version)
    except SecretDestroyed:
        return


async def _key_id(connection: Connection, ref: SecretRef) -> str | None:
    with outages_translated():
        key_id: str | None = await connection.fetchval(_SQL["key_id"], ref.tenant, ref.name, ref.version)
    return key_id
