"""Who changes something: a connection, the installation's unlocked secrets, and a name for the audit log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from hookseal.audit.entry import Change
from hookseal.audit.log import append
from hookseal.dispatcher.database import translated
from hookseal.ground.errors import InDoubt, Unavailable
from hookseal.schema.database import OUTAGES, Connection
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.errors import SecretError

# What PostgreSQL says to a commit that it did not make.
_ANSWERS: Final = (
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
# With the newest version of the integrity key, in one statement: most changes are small, and each waits for it.
_BOUNDS: Final = """
SELECT (SELECT max(version)::text
          FROM hookseal.secret_records
         WHERE tenant_id = '_system' AND name = 'integrity' AND state <> 'destroyed') AS newest,
       set_config('idle_in_transaction_session_timeout', '5s', true),
       set_config('lock_timeout', '5s', true)
"""


async def bound(connection: Connection) -> str | None:
    """Have PostgreSQL end the open transaction if we stand still in it, or wait too long: others wait for its rows.

    Return the id of the newest version of the integrity key, None where the store is not in PostgreSQL.
    """
    newest: str | None = await connection.fetchval(_BOUNDS)
    return newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One who may change the installation. `who` is how the audit log names them, beside their database role."""

    connection: Connection
    unlocked: Unlocked
    who: str

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Connection]:
        """Give the connection in a transaction: all that the block writes, with its audit row, or nothing.

        A version of the integrity key that somebody has made since the last one is known, and used, in it.
        Raises `Unavailable` if PostgreSQL does not answer, or somebody else holds a row for longer than we wait,
        and `InDoubt` if it did not answer to the commit.
        """
        with translated():
            transaction = self.connection.transaction()
            await transaction.start()
            try:
                await self._know(await bound(self.connection))
                yield self.connection
            except BaseException:
                with suppress(*OUTAGES):  # without an answer it is rolled back with its session
                    await transaction.rollback()
                raise
            if self.connection.is_closed():
                raise Unavailable("PostgreSQL ended the change, which stood still for too long: nothing was changed")
            try:
                await transaction.commit()
            except _ANSWERS:
                raise
            except OUTAGES as error:
                said = f"PostgreSQL did not answer to the commit ({type(error).__name__})"
                raise InDoubt(f"{said}: it may have been done all the same") from error

    async def _know(self, newest: str | None) -> None:
        if newest not in {None, self.unlocked.integrity.key_id}:
            with suppress(SecretError):  # one that somebody spoilt holds up no change
                await self.unlocked.versions.refresh(self.unlocked.store_on(self.connection))

    async def tell(self, change: Change) -> None:
        """Write the change into the audit log, in the transaction of `changing`. Raises `Unavailable`."""
        await append(self.connection, self.unlocked.integrity, self.who, change)
