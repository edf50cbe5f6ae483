"""A part of an open transaction: if it fails, it undoes itself and nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg

from hookseal.ground.errors import Conflict, Unavailable
from hookseal.postgres.connect import SEARCH_PATH
from hookseal.postgres.handles import Connection
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import of_the_caller

_SQL: Final = Statements("hookseal.postgres", "savepoint.sql", seconds=None)


@asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """Run the block in the open transaction: an error undoes the block and nothing else.

    Without the savepoint a caller who continues after an error would lose everything: PostgreSQL answers the commit
    of a failed transaction with a rollback, and no client reports that. Raises `Conflict` if the transaction has
    already failed.
    """
    await _run(connection, "begin")
    try:
        yield
    except BaseException:
        with suppress(Unavailable):  # then the transaction is lost as well, and the first error says why
            await _run(connection, "undo")
            await _run(connection, "keep")
        raise
    await _run(connection, "keep")


@asynccontextmanager
async def part_with_our_path(connection: Connection) -> AsyncIterator[None]:
    """Run the block as `savepoint` does, with our search path; the caller's search path is back after the block.

    So no function of another role is called in place of PostgreSQL's own. A lock time-out that the block sets is
    also undone. Raises as `of_the_caller` does.
    """
    with of_the_caller():
        async with savepoint(connection):
            row = await _SQL.row(connection, "settings")
            path, lock_timeout = ("", "0") if row is None else row
            await _SQL.execute(connection, "set", SEARCH_PATH, lock_timeout)
            yield
            await _SQL.execute(connection, "set", path, lock_timeout)


async def _run(connection: Connection, name: str) -> None:
    try:
        await _SQL.execute(connection, name)
    except asyncpg.InFailedSQLTransactionError:
        raise Conflict("the transaction has already failed: roll it back first", field="connection") from None
