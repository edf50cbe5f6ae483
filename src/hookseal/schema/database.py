"""PostgreSQL as every room sees it: the types of its handles, and which failures are outages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy

if TYPE_CHECKING:  # the classes are generic in the stubs only
    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection | PoolConnectionProxy
    Pool = asyncpg.Pool
Executor = Connection | Pool

ANSWER_SECONDS: Final = 5.0  # PostgreSQL answers a statement of ours within this, or it does not answer

# What a database says that is not there, or not whole yet: somebody restores it. Our names are right, for the revision
# of the schema was compared at start.
NOT_THERE: Final = (
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
)
# What the server or the way to it says for a while; the same statement may succeed later.
OUTAGES: Final = (
    OSError,  # TimeoutError is one
    asyncpg.InterfaceError,  # a closed connection or pool
    asyncpg.InternalClientError,  # the server left in mid-answer
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # no connection left, disk full
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,  # deadlock or serialization: the same again may succeed
    asyncpg.LockNotAvailableError,  # somebody holds it for longer than this session waits
    asyncpg.ReadOnlySQLTransactionError,  # a standby answers, in a failover
    asyncpg.InvalidAuthorizationSpecificationError,
    *NOT_THERE,
)


@asynccontextmanager
async def connected(source: Executor) -> AsyncIterator[Connection]:
    """Give a connection for a few statements, each to be given `timeout=ANSWER_SECONDS`.

    The time-out of acquiring also bounds what the pool does at release: without one, a statement that
    timed out on a frozen server would hold its caller until the server thaws.
    """
    if isinstance(source, asyncpg.Pool):
        async with source.acquire(timeout=ANSWER_SECONDS) as connection:
            yield connection
    else:
        yield source
