"""The context of a change: a connection, the installation's unlocked secrets, and a name for the audit log."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

import asyncpg

from hookseal.audit.chain import Action, Change
from hookseal.audit.log import append
from hookseal.errors import Defect, InDoubt, SecretError, Unavailable
from hookseal.ground.ids import EVERY_TENANT, SYSTEM_TENANT, EndpointId, TenantId
from hookseal.postgres.pool import Connection
from hookseal.postgres.savepoint import savepoint
from hookseal.postgres.translate import OUTAGES, translated
from hookseal.secrets.statements import statements

if TYPE_CHECKING:  # what unlocks the secrets loads much, and a command that only reads does not need it
    from hookseal.secrets.boot import Unlocked

Follow = Callable[[str], Awaitable["Unlocked"]]

# Errors that prove that PostgreSQL did not commit.
_NOT_COMMITTED: Final = (
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
LOCK_SECONDS: Final = 4.5  # less than the time-out of a statement (5 s), so that the error says that a row is locked
# One statement also reads what the secrets depend on, to save each change a round trip.
_LIMITS: Final = """
SELECT ({asked}),
       set_config('idle_in_transaction_session_timeout', '5s', true),
       set_config('lock_timeout', $1, true)
"""
_NEWEST: Final = """
SELECT max(version)::text
  FROM hookseal.secret_records
 WHERE tenant_id = '_system' AND name = 'integrity' AND state <> 'destroyed'
"""
_LIMITS_AND_NEWEST: Final = _LIMITS.format(asked=_NEWEST)
_LIMITS_AND_BASIS: Final = _LIMITS.format(asked=statements("boot.sql")["basis"])


async def limit_transaction(connection: Connection) -> str | None:
    """Make PostgreSQL end the open transaction if it is idle for 5 s, or waits for a lock for 4.5 s: others wait.

    Returns the id of the newest version of the integrity key, None if the store is not in PostgreSQL.
    """
    newest: str | None = await connection.fetchval(_LIMITS_AND_NEWEST, _lock_timeout())
    return newest


def _lock_timeout() -> str:
    return f"{LOCK_SECONDS * 1_000:.0f}ms"


class OfEndpoint(Protocol):
    """An object about an endpoint: a pointer, a request or a result."""

    @property
    def tenant_id(self) -> TenantId:
        """The tenant of the endpoint."""
        ...

    @property
    def endpoint_id(self) -> EndpointId:
        """The endpoint."""
        ...


class Operator:
    """The context in which an operator changes the installation. The audit log stores `who` and the database role.

    It has the `unlocked` secrets, or `follow`, which returns those that fit a basis (`secrets.boot.basis`): then the
    first transaction reads the basis.
    """

    __slots__ = ("_follow", "_is_joined", "_unlocked", "connection", "who")

    def __init__(
        self, *, connection: Connection, who: str, unlocked: "Unlocked | None" = None, follow: Follow | None = None
    ) -> None:
        self.connection: Final = connection
        self.who: Final = who
        self._unlocked = unlocked
        self._follow = follow
        # The secrets were compared a moment before, and the transaction of the caller may see older versions of keys.
        self._is_joined = unlocked is not None and follow is not None

    @property
    def unlocked(self) -> "Unlocked":
        """The secrets of the installation. With `follow` there are none before the first `changing`."""
        if self._unlocked is None:
            raise Defect("secrets are used before they were compared with the database")
        return self._unlocked

    async def compare(self) -> None:
        """Make the secrets ready for use outside of `changing`. Raises as `changing` does."""
        if self._unlocked is None:
            async with self.changing():
                pass

    def on(self, connection: Connection) -> "Operator":
        """Return this operator on another connection. With `follow` its first transaction there reads the basis."""
        unlocked = self._unlocked if self._follow is None else None
        return Operator(connection=connection, who=self.who, unlocked=unlocked, follow=self._follow)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Connection]:
        """Yield the connection in a transaction: everything that the block writes is committed together, or nothing is.

        If a transaction is open already, the block becomes a part of it, which an error undoes alone. A newer version
        of the integrity key is read first, and used in the block. Raises `Unavailable` if PostgreSQL does not answer,
        or if another transaction has a row locked for longer than the limit, `InDoubt` if PostgreSQL did not
        answer to the commit, and what `follow` raises.
        """
        with translated():
            if not self.connection.is_closed() and self.connection.is_in_transaction():  # a closed one raises here
                async with savepoint(self.connection):
                    await self._begin()
                    yield self.connection
                return
            transaction = self.connection.transaction()
            await transaction.__aenter__()  # after a `start` that is cancelled, asyncpg reports an active transaction
            try:
                await self._begin()
                yield self.connection
            except BaseException as error:
                with suppress(*OUTAGES):  # without an answer it is rolled back with its session
                    await transaction.__aexit__(type(error), error, error.__traceback__)
                raise
            if self.connection.is_closed():
                raise Unavailable("PostgreSQL ended the change because it was idle for too long: nothing was changed")
            try:
                await transaction.__aexit__(None, None, None)
            except _NOT_COMMITTED:
                raise
            except OUTAGES as error:
                said = f"PostgreSQL did not answer to the commit ({type(error).__name__})"
                raise InDoubt(f"{said}: it may have been done all the same") from error

    async def _begin(self) -> None:
        """Limit the open transaction, and bring the secrets up to date."""
        if self._unlocked is None and self._follow is not None:
            basis = await self.connection.fetchval(_LIMITS_AND_BASIS, _lock_timeout())
            self._unlocked = await self._follow(basis)
            return
        newest = await limit_transaction(self.connection)
        if not self._is_joined:
            await self._learn_integrity_key(newest)

    async def _learn_integrity_key(self, newest: str | None) -> None:
        if newest not in {None, self.unlocked.integrity.key_id}:
            with suppress(SecretError):  # a damaged version must not prevent the change
                await self.unlocked.versions.refresh(self.unlocked.store_on(self.connection))

    async def audit(
        self,
        action: Action,
        *,
        of: OfEndpoint | str,
        tenant: TenantId = SYSTEM_TENANT,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> None:
        """Append a row to the audit log, in the transaction of `changing`.

        `of` is the endpoint that was changed, or another subject of `tenant`, by default and for `*` the installation.
        Raises `Unavailable`, and `Refused` if the log accepts no row.
        """
        if isinstance(of, str):
            owner = SYSTEM_TENANT if tenant == EVERY_TENANT else tenant
            change = Change(tenant_id=owner, action=action, subject=of, before=before, after=after)
        else:
            subject = f"endpoint:{of.endpoint_id}"
            change = Change(tenant_id=of.tenant_id, action=action, subject=subject, before=before, after=after)
        await append(self.connection, self.unlocked.integrity, self.who, change)
