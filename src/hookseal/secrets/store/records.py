"""Reads the rows of versions. Reads of one moment on a pool share a statement."""

import asyncio
from collections.abc import Sequence
from typing import Final

import asyncpg

from hookseal.errors import Malformed, SecretDestroyed, SecretTampered
from hookseal.ground.batches import Batch, Batches, resolve
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.postgres.pool import Connection, Executor, connected
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.statements import FAILURES, statements
from hookseal.secrets.store.port import SecretVersion, VersionState, no_such_secret, require_purpose

_SQL: Final = statements("records.sql", package="hookseal.secrets.store")
_READ_SECONDS: Final = 2.0  # no caller waits longer for a read

_Row = asyncpg.Record | None


class Records:
    """The rows of versions on a pool, or on a connection in its open transaction."""

    def __init__(self, source: Executor) -> None:
        self._source = source
        self._reads: Batches[SecretRef, _Row] = Batches(self._read_all)

    async def row(self, ref: SecretRef) -> _Row:
        """Return the row of the version, None if there is none. Raises `SecretUnavailable` after two seconds."""
        if isinstance(self._source, asyncpg.Pool):
            return await self._reads.add(ref)
        # On the caller's connection the read ends if the caller is cancelled.
        return (await self._rows([ref])).get(str(ref))

    async def _read_all(self, batch: Batch[SecretRef, _Row]) -> None:
        """Read all refs of the batch in one statement, and resolve their futures. No single row can make it fail."""
        try:
            rows = await self._rows([ref for ref, _ in batch])
        except Exception as error:  # noqa: BLE001 -- it is raised for each caller
            for _, future in batch:
                resolve(future, error)
        else:
            for ref, future in batch:
                resolve(future, rows.get(str(ref)))

    async def _rows(self, refs: list[SecretRef]) -> dict[str, asyncpg.Record]:
        rows: list[asyncpg.Record] = []
        with FAILURES.translated():
            async with asyncio.timeout(_READ_SECONDS), connected(self._source) as connection:
                for statement, is_own in (("get", False), ("get_own", True)):
                    asked = [ref for ref in refs if (ref.tenant == SYSTEM_TENANT) is is_own]
                    if asked:
                        rows += await _SQL.rows(connection, statement, *_columns(asked))
        return {row["ref"]: row for row in rows}


def _columns(refs: Sequence[SecretRef]) -> list[list[str]]:
    columns = zip(*[(ref.tenant, ref.name, str(ref.version), str(ref)) for ref in refs], strict=True)
    return [list(column) for column in columns]


async def versions(
    source: Executor, tenant: TenantId, name: str, *, provider: Provider | None = None
) -> tuple[SecretVersion, ...]:
    """Return every version of the name, of one provider or of all, oldest first.

    Raises `Malformed` if tenant or name is malformed, `SecretTampered` if a row was altered, and `SecretUnavailable`.
    """
    SecretRef(provider=provider or Provider.DB, tenant=tenant, name=name, version=1)
    rows = await _SQL.rows(source, "versions", tenant, name, None if provider is None else provider.value)
    return tuple(_version(row) for row in rows)


def _version(row: asyncpg.Record) -> SecretVersion:
    if row["purpose"] not in tuple(Purpose):
        raise SecretTampered("a secret record has a purpose that this hookseal does not know")
    try:
        ref = SecretRef.parse(row["ref"], reserved=True)
    except Malformed:
        raise SecretTampered("a secret record has a ref that is malformed") from None
    return SecretVersion(
        ref=ref,
        state=VersionState(row["state"]),
        purpose=Purpose(row["purpose"]),
        scheme=row["scheme"],
        created_at=row["created_at"],
        changed_at=row["changed_at"],
    )


async def lock(connection: Connection, tenant: TenantId, name: str, purpose: Purpose) -> None:
    """Lock the name until the caller's transaction ends. A later statement sees what an earlier rotation wrote.

    Raises `SecretNotFound` if there is no such name, `SecretDenied` if it exists for another purpose, and
    `SecretUnavailable`.
    """
    locked = await _SQL.row(connection, "lock", tenant, name)
    if locked is None:
        raise no_such_secret()
    require_purpose(locked["purpose"], purpose)


async def next_version(source: Executor, tenant: TenantId, name: str) -> int:
    """Return the number of the next version of the name. Raises `SecretUnavailable`."""
    number: int = await _SQL.value(source, "next_version", tenant, name)
    return number


async def step_back(connection: Connection, tenant: TenantId, name: str) -> None:
    """Make the active version the previous one, and retire the previous one. Raises `SecretUnavailable`."""
    await _SQL.execute(connection, "step_back", tenant, name)


async def in_use(source: Executor, providers: frozenset[Provider]) -> frozenset[str]:
    """Return the other providers, outside PostgreSQL, that have versions in use. Raises `SecretUnavailable`."""
    rows = await _SQL.rows(source, "in_use", sorted(providers))
    return frozenset(row["provider"] for row in rows)


async def installation(source: Executor) -> str:
    """Return the id of this installation, which marks what it keeps at providers. Raises `SecretUnavailable`."""
    id_: str | None = await _SQL.value(source, "installation")
    if id_ is None:
        raise SecretTampered("hookseal.control lacks its row `installation`: restore it from a backup")
    return id_


_VERSIONS: Final = statements("versions.sql", package="hookseal.secrets.store")


async def arrange(connection: Connection, *, active: SecretRef, previous: SecretRef | None) -> None:
    """Make these two the active and the previous version of their name, in the caller's transaction.

    Every other active or previous version is retired. A retired `previous` and destroyed versions do not change. Raises
    `SecretDestroyed` if the material of `active` is destroyed, and `SecretUnavailable`.
    """
    older = None if previous is None else previous.version
    # the old one first, because at most one version of a name may be active
    await _VERSIONS.execute(connection, "step_aside", active.tenant, active.name, active.version, older)
    activated = await _VERSIONS.value(connection, "activate", active.tenant, active.name, active.version)
    if activated is None:
        raise SecretDestroyed("the material of that version was destroyed: rotate the secret instead")


async def retire(connection: Connection, ref: SecretRef) -> None:
    """Retire every version of the reference's name, in the caller's transaction. Raises `SecretUnavailable`."""
    await _VERSIONS.execute(connection, "step_aside", ref.tenant, ref.name, 0, None)
