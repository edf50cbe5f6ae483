"""What may lie at a provider outside PostgreSQL although no version in use needs it, and its removal there.

A number is taken (`begun`) and committed before anything is written under it. The transaction that adds the version
settles it. So whatever is still begun after a while belongs to a change that failed: it is removed at the provider, and
its number is burnt. A destroyed version is listed until it is removed there; it is worthless from the first moment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hookseal.ground.ids import TenantId
from hookseal.postgres.handles import Connection, Executor
from hookseal.secrets.errors import SecretError, SecretUnavailable
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.statements import statements
from hookseal.secrets.store.provider_api import ProviderApi, Rest

UNSETTLED_SECONDS: Final = 3_600.0  # no transaction that adds a version takes nearly as long
BATCH: Final = 500
_MOST_ATTEMPTS: Final = 16

_SQL: Final = statements("leftovers.sql", package="hookseal.secrets.store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """How many versions were removed at their providers, and the first error of those that could not be."""

    removed: int
    error: SecretError | SecretUnavailable | None = None


async def take_number(apart: Connection, first: SecretRef, *, at_least: int) -> int:
    """Take the next number of the name for a version that is about to be written, and return it.

    `apart` must not be in a transaction that may be rolled back. Raises `SecretUnavailable`.
    """
    for _ in range(_MOST_ATTEMPTS):  # another change may take the same number at this moment
        number = await _SQL.value(apart, "take", first.tenant, first.name, first.provider.value, at_least)
        if number is not None:
            return int(number)
    raise SecretUnavailable("other changes of this secret take all version numbers: try again")


async def begin(apart: Connection, ref: SecretRef, share: bytes) -> bytes:
    """Note that a version that keeps its number is about to be written with this share, or that of an earlier attempt.

    Returns the share to use. Raises `SecretUnavailable`.
    """
    used: bytes = await _SQL.value(apart, "begin", ref.tenant, ref.name, ref.version, ref.provider.value, share)
    return used


async def burn(apart: Connection, ref: SecretRef) -> None:
    """Note that the number is taken by something that must not be removed. Raises `SecretUnavailable`."""
    await _SQL.execute(apart, "burn", ref.tenant, ref.name, ref.version)


async def settle(connection: Connection, ref: SecretRef) -> None:
    """Note that the version has its row, in the transaction that adds the row. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "settle", ref.tenant, ref.name, ref.version)


async def add_left(connection: Connection, ref: SecretRef) -> None:
    """Note that the version leaves this provider, before its row names the next one. Raises `SecretUnavailable`.

    If it returns before it was removed there, what lies there is used again.
    """
    if ref.provider is not Provider.DB:
        await _SQL.execute(connection, "add_left", ref.tenant, ref.name, ref.version, ref.provider.value)


async def add_destroyed(connection: Connection, tenant: TenantId, places: Sequence[tuple[str, int]]) -> None:
    """Note the versions outside PostgreSQL among these, in the transaction that destroys them.

    Raises `SecretUnavailable`.
    """
    names, numbers = [name for name, _ in places], [str(number) for _, number in places]
    await _SQL.execute(connection, "add_destroyed", tenant, names, numbers)


async def remove(
    source: Executor,
    apis: Mapping[Provider, ProviderApi],
    *,
    owner: str,
    limit: int = BATCH,
    unsettled_seconds: float = UNSETTLED_SECONDS,
) -> Removal:
    """Remove at their providers up to `limit` versions that nobody needs; one that is refused does not stop the others.

    A provider that does not answer ends it. Each is removed in a transaction of its own that locks it, so that several
    may do this at the same time. Raises `SecretUnavailable` if PostgreSQL does not answer.
    """
    removed, error, after = 0, None, ("", "", 0)
    for _ in range(limit):
        async with _SQL.transaction(source) as connection:
            row = await _SQL.row(connection, "lock_one", sorted(apis), unsettled_seconds, *after)
            if row is None:
                break
            after = (row["tenant_id"], row["name"], row["version"])
            ref = SecretRef(
                provider=Provider(row["provider"]),
                tenant=TenantId(row["tenant_id"]),
                name=row["name"],
                version=row["version"],
            )
            active = None if row["active"] is None else SecretRef.parse(row["active"], reserved=True)
            try:
                await apis[ref.provider].remove(ref, Rest(is_needed=row["is_needed"], active=active), owner=owner)
            except SecretUnavailable as failed:  # the others would wait for it, too
                return Removal(removed=removed, error=failed)
            except SecretError as failed:
                error = error or failed
                continue
            await _SQL.execute(connection, "removed", *after)
            removed += 1
    return Removal(removed=removed, error=error)
