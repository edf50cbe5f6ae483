"""PostgreSQL as this room sees it: a transaction to write in, and its failures translated once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from hookseal.schema.database import OUTAGES, Connection, Executor, connected
from hookseal.secrets.errors import SecretDenied, SecretUnavailable


@contextmanager
def outages_translated() -> Iterator[None]:
    """Translate what PostgreSQL raises in the block.

    Raises `SecretUnavailable`, naming the type of the cause and nothing of its text, or `SecretDenied`
    if the SQL role lacks the right. Anything else that PostgreSQL says is a fault of ours and passes.
    """
    try:
        yield
    except OUTAGES as cause:
        if isinstance(cause, ValueError):  # asyncpg's word about an argument, which we gave
            raise
        raise SecretUnavailable(f"the secret store in PostgreSQL does not answer ({type(cause).__name__})") from None
    except asyncpg.InsufficientPrivilegeError:
        raise SecretDenied(
            "this SQL role has no right to the table of secrets: grant it hookseal_worker (a worker) "
            "or hookseal_operator (an operator)"
        ) from None


@asynccontextmanager
async def one_write(source: Executor) -> AsyncIterator[Connection]:
    """Give a connection for one write: in the transaction that the caller has open there, else in one of its own.

    A savepoint, which `transaction` makes there, would cost two more round trips and have nothing to take back.
    Raises what `outages_translated` does.
    """
    with outages_translated():
        async with connected(source) as connection:
            if not connection.is_closed() and connection.is_in_transaction():  # a closed one cannot say
                yield connection
                return
            async with connection.transaction():
                yield connection


@asynccontextmanager
async def transaction(source: Executor) -> AsyncIterator[Connection]:
    """Give a connection in a transaction of its own, which is a savepoint where the caller has one open.

    Raises what `outages_translated` does.
    """
    with outages_translated():
        async with connected(source) as connection, connection.transaction():
            yield connection
