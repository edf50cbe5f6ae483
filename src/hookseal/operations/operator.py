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

# What PostgreSQL says to a commit that it did not make.
_ANSWERS: Final = (
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
)
_BOUNDS: Final = "SET LOCAL idle_in_transaction_session_timeout = '5s'; SET LOCAL lock_timeout = '5s'"


async def bound(connection: Connection) -> None:
    """Have PostgreSQL end the open transaction if we stand still in it, or wait too long: others wait for its rows."""
    await connection.execute(_BOUNDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One who may change the installation. `who` is how the audit log names them, beside their database role."""

    connection: Connection
    unlocked: Unlocked
    who: str

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Connection]:
        """Give the connection in a transaction: all that the block writes, with its audit row, or nothing.

        Raises `Unavailable` if PostgreSQL does not answer, or somebody else holds a row for longer than we wait,
        and `InDoubt` if it did not answer to the commit.
        """
        with translated():
            transaction = self.connection.transaction()
            await transaction.start()
            try:
                await bound(self.connection)
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

    async def tell(self, change: Change) -> None:
        """Write the change into the audit log, in the transaction of `changing`. Raises `Unavailable`."""
        await append(self.connection, self.unlocked.integrity, self.who, change)
