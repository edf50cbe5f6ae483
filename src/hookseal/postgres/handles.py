"""The types of connections and pools, and context managers that give a connection or a transaction of either."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
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

_RELEASING: Final = dict[asyncio.Task[None], Pool]()  # the event loop itself keeps no reference to its tasks
_TURNS: Final = 4  # turns of the event loop after which a connection is released, unless PostgreSQL has to do something
ANSWER_SECONDS: Final = 5.0  # the time-out of a statement: after it PostgreSQL counts as not answering


def connected(source: Executor) -> AbstractAsyncContextManager[Connection]:
    """Yield a connection for a few statements. Pass `timeout=ANSWER_SECONDS` to each of them.

    The time-out of `acquire` also limits the release. Without one, a statement that timed out on a frozen server would
    block its caller until the server continues. After a block that raised nothing the caller continues at once, and the
    connection is back in the pool a few turns of the event loop later.
    """
    return _Connected(source)


class _Connected:  # a generator takes twice the time, and each statement is in such a block
    __slots__ = ("_acquired", "_source")

    _acquired: "PoolConnectionProxy[asyncpg.Record]"

    def __init__(self, source: Executor) -> None:
        self._source = source

    async def __aenter__(self) -> Connection:
        source = self._source
        if not isinstance(source, asyncpg.Pool):
            return source
        for _ in range(_TURNS):  # else statements that follow each other would open a second connection
            if source not in _RELEASING.values() or source.get_idle_size():
                break
            await asyncio.sleep(0)  # noqa: TID251 -- a turn of the event loop, in which no time passes
        self._acquired = await source.acquire(timeout=ANSWER_SECONDS)
        return self._acquired

    async def __aexit__(self, kind: object, _error: object, _traceback: object) -> None:
        source = self._source
        if not isinstance(source, asyncpg.Pool):
            return
        if kind is not None:
            await source.release(self._acquired)
            return
        releasing = asyncio.ensure_future(source.release(self._acquired))
        _RELEASING[releasing] = source
        releasing.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        del _RELEASING[task]
        if not task.cancelled():
            task.exception()  # asyncio would log it; a connection that cannot be released is closed
            return
        with suppress(asyncpg.InterfaceError):  # it is in the pool already
            self._acquired.terminate()  # else the pool would wait for it for ever


@asynccontextmanager
async def one_write(source: Executor) -> AsyncIterator[Connection]:
    """Yield a connection for one write: in the caller's open transaction, else in a transaction of its own.

    `transaction` would add a savepoint to an open transaction: two more round trips, and useless for one write.
    """
    async with connected(source) as connection:
        if not connection.is_closed() and connection.is_in_transaction():  # a closed connection raises here
            yield connection
            return
        async with connection.transaction():
            yield connection


@asynccontextmanager
async def transaction(source: Executor) -> AsyncIterator[Connection]:
    """Yield a connection in a transaction of its own; in an open transaction of the caller it is a savepoint."""
    async with connected(source) as connection, connection.transaction():
        yield connection
