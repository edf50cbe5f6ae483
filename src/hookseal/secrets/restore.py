"""Finds stale endpoints by comparing tables and audit log, and accepts them as they are.

A row is stale if the log has a higher generation of it, and unaudited if the log does not know its generation; a
record is stale if it contradicts its endpoint or the log. An endpoint is lost if its row is gone and the log has no
deletion of it. No secret of a deleted endpoint may sign.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hookseal.errors import SecretDestroyed, SecretTampered
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.core.trust import IntegrityKey, require_own
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras import stored
from hookseal.secrets.statements import statements
from hookseal.secrets.store import records

_SQL: Final = statements("restore.sql")
_BATCH: Final = 500
_LOOKS: Final = ("endpoints", "lost", "left")
_BEGINNING: Final = ("", "00000000-0000-0000-0000-000000000000")


class StaleKind(StrEnum):
    """What about an endpoint contradicts the log."""

    ENDPOINT = "endpoint"
    RECORD = "record"
    LOST = "lost"
    UNAUDITED = "unaudited"
    ALTERED = "altered"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleEndpoint:
    """An endpoint that contradicts the log; `generation` is that of its row, None if the row is gone."""

    tenant_id: TenantId
    endpoint_id: EndpointId
    kind: StaleKind
    generation: int | None
    audited_generation: int | None


async def find_stale(source: Executor, tenant: TenantId | None = None) -> AsyncIterator[StaleEndpoint]:
    """Yield every endpoint of the tenant, or of all, that is stale. Raises `SecretUnavailable`."""
    for look in _LOOKS:
        after = _BEGINNING
        while True:
            rows = await _SQL.rows(source, look, tenant, *after, _BATCH)
            for row in rows:
                if row["kind"] is not None:
                    yield StaleEndpoint(**dict(row) | {"kind": StaleKind(row["kind"])})
            if len(rows) < _BATCH:
                break
            after = (rows[-1]["tenant_id"], rows[-1]["endpoint_id"])


async def find_altered(
    source: Executor, integrity: IntegrityKey, tenant: TenantId | None = None
) -> AsyncIterator[StaleEndpoint]:
    """Yield every endpoint of the tenant, or of all, whose MAC does not match. Raises `SecretUnavailable`.

    A row of an older system, which hookseal never wrote, has no MAC and is left out.
    """
    async for row in pointer.iterate(source, tenant):
        try:
            if row.mac is not None or row.secret_ref is not None:
                integrity.require_authentic(row)
        except SecretTampered:
            yield StaleEndpoint(
                tenant_id=row.tenant_id,
                endpoint_id=row.endpoint_id,
                kind=StaleKind.ALTERED,
                generation=row.generation,
                audited_generation=row.audited_generation,
            )


async def find_all(
    source: Executor, integrity: IntegrityKey, tenant: TenantId | None = None
) -> AsyncIterator[StaleEndpoint]:
    """Yield what `find_stale` and `find_altered` find, each endpoint once. Raises `SecretUnavailable`.

    A row whose MAC does not match is altered, even if the log does not know its generation either.
    """
    altered = {each.endpoint_id: each async for each in find_altered(source, integrity, tenant)}
    async for stale in find_stale(source, tenant):
        if stale.kind is not StaleKind.UNAUDITED or stale.endpoint_id not in altered:
            altered.pop(stale.endpoint_id, None)
            yield stale
    for each in altered.values():
        yield each


async def lock_records(connection: Connection, stale: StaleEndpoint) -> None:
    """Lock the endpoint's versions in the caller's transaction. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "lock_records", stale.tenant_id, stale.endpoint_id)


async def is_lost(connection: Connection, stale: StaleEndpoint) -> bool:
    """Return whether the endpoint is still lost: its row may be back, or its deletion recorded, meanwhile.

    The caller's transaction must hold the lock of the tenant's audit log. Raises `SecretUnavailable`.
    """
    lost: bool = await _SQL.value(connection, "is_lost", stale.tenant_id, stale.endpoint_id)
    return lost


async def is_deleted(connection: Connection, stale: StaleEndpoint) -> bool:
    """Return whether the endpoint has no row, and its deletion is the last entry about it in the log.

    The caller's transaction must hold the lock of the tenant's audit log. Raises `SecretUnavailable`.
    """
    deleted: bool = await _SQL.value(connection, "is_deleted", stale.tenant_id, stale.endpoint_id)
    return deleted


async def destroy_again(connection: Connection, stale: StaleEndpoint) -> None:
    """Destroy again what a restore brought back of the versions that the log has as destroyed.

    Raises `SecretUnavailable`.
    """
    await _SQL.execute(connection, "destroy_again", stale.tenant_id, stale.endpoint_id)


async def missing_material(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> list[str]:
    """Return the ref columns of the endpoint's row whose material is missing. Raises `SecretUnavailable`."""
    rows = await _SQL.rows(connection, "missing_material", tenant, endpoint_id)
    return [row["field"] for row in rows]


async def accept(
    connection: Connection, integrity: IntegrityKey, locked: Pointer
) -> tuple[Pointer, list[dict[str, Any]]]:
    """Give the stale, locked pointer a generation above all others, and its records the states that it implies.

    Returns the pointer, and for the audit log the facts about each of its secrets. Missing material stays missing: the
    secret must then be rotated. Raises `SecretTampered` if the row is not genuine, `SecretDenied` if it names a secret
    of another endpoint, and `SecretUnavailable`.
    """
    integrity.require_authentic(locked)
    after = await pointer.move(connection, integrity, locked, beyond=locked.audited_generation or 0)
    refs = [None if text is None else SecretRef.parse(text) for text in (after.secret_ref, after.previous_secret_ref)]
    for ref in refs:
        if ref is not None:
            require_own(ref, tenant=after.tenant_id, endpoint_id=after.endpoint_id)
    own: list[tuple[str, SecretRef]] = []
    for extra in stored.ALL:
        if (text := getattr(after, extra.ref_field)) is not None:
            ref = SecretRef.parse(text)
            require_own(ref, tenant=after.tenant_id, endpoint_id=after.endpoint_id, purpose=extra.purpose)
            await _set_states(connection, ref, None)
            own.append((extra.ref_field, ref))
    current, previous = refs
    if current is not None:
        await _set_states(connection, current, previous)
    await _SQL.execute(connection, "destroy_again", after.tenant_id, after.endpoint_id)
    await _SQL.execute(connection, "reopen_keys_of_endpoint", after.tenant_id, after.endpoint_id)
    facts = [
        {"generation": after.generation, field: str(ref), "key_id": await _key_id(connection, ref)}
        for field, ref in (("secret_ref", previous), *own, ("secret_ref", current))
        if ref is not None
    ]
    return after, facts


async def reopen_drained_keys(connection: Connection) -> list[str]:
    """Unmark every drained key that has records, so that a re-wrap includes it again; return these keys.

    The caller's transaction must hold `active_key.lock_exclusive`. Raises `SecretUnavailable`.
    """
    rows = await _SQL.rows(connection, "reopen_drained_keys")
    return sorted(row["key_id"] for row in rows)


async def _set_states(connection: Connection, active: SecretRef, previous: SecretRef | None) -> None:
    try:
        async with connection.transaction():
            await records.arrange(connection, active=active, previous=previous)
            if previous is not None:  # unlike a rotation, this makes a retired version sign again
                await _SQL.execute(connection, "make_previous", previous.tenant, previous.name, previous.version)
    except SecretDestroyed:
        return


async def _key_id(connection: Connection, ref: SecretRef) -> str | None:
    key_id: str | None = await _SQL.value(connection, "key_id", ref.tenant, ref.name, ref.version)
    return key_id
