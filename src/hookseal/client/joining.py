"""Publishing inside a transaction of the caller."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg

from hookseal.dispatcher.database import translated
from hookseal.ground.errors import Conflict, Malformed, Unavailable
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection

_SQL: Final = statements("hookseal.client", "savepoint.sql")


@asynccontextmanager
async def joined(connection: Connection) -> AsyncIterator[None]:
    """Run the block in the caller's transaction, if there is one: what fails in it undoes the block and no more.

    Without that, a caller who goes on after a conflict would lose all: PostgreSQL answers the commit of a
    failed transaction with a rollback, and no client tells. Raises `Malformed` if it is no connection of asyncpg,
    `Conflict` if its transaction has failed already.
    """
    if not callable(getattr(connection, "is_in_transaction", None)):
        raise Malformed("connection must be one of asyncpg: from others, call hookseal.publish", field="connection")
    if not connection.is_in_transaction():
        yield
        return
    await _run(connection, "begin")
    try:
        yield
    except BaseException:
        with suppress(Unavailable):  # then the transaction is gone as well, and the first error says why
            await _run(connection, "undo")
            await _run(connection, "keep")
        raise
    await _run(connection, "keep")


async def _run(connection: Connection, name: str) -> None:
    # asyncpg's own savepoints refuse a transaction that was begun by a statement.
    try:
        with translated():
            await connection.execute(_SQL[name])
    except asyncpg.InFailedSQLTransactionError:
        raise Conflict("the transaction has failed already: roll it back first", field="connection") from None
