"""Publishing inside a transaction of the caller."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hookseal.ground.errors import Malformed
from hookseal.postgres.handles import Connection
from hookseal.postgres.savepoint import savepoint


@asynccontextmanager
async def join_transaction(connection: Connection) -> AsyncIterator[bool]:
    """Run the block in the caller's transaction, if there is one: an error undoes the block and nothing else.

    Yields whether there is one; without it each statement of the block commits by itself. Raises `Malformed` if this is
    not a connection of asyncpg, `Conflict` if its transaction has already failed.
    """
    if not callable(getattr(connection, "is_in_transaction", None)):
        raise Malformed(
            "connection must be one of asyncpg: for SQLAlchemy, Django, psycopg and other drivers there is "
            "hookseal.producers",
            field="connection",
        )
    if connection.is_closed() or not connection.is_in_transaction():  # a closed one raises here
        yield False
        return
    async with savepoint(connection):
        yield True
