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

_TURNS: Final = 4  # turns of the event loop after which a connection is released, unless PostgreSQL has to do something
ANSWER_SECONDS: Final = 5.0  # the time-out of a statement: after it PostgreSQL counts as not answering


def connected(source: Executor) -> AbstractAsyncContextManager[Connection]:
    """Yield a connection for a few statements. Pass `timeout=ANSWER_SECONDS` to each of them.

    Callers that wait here for a connection of a pool get it in the order in which they ask. Each waits at most
    `ANSWER_SECONDS` for its turn, and then as long for a connection that must be opened, else `TimeoutError` is raised.
    After a block that raised nothing the caller continues at once, and the connection is back in the pool a few turns
    of the event loop later. After an error it continues when the connection is back. The time-out of `acquire` limits
    the release, too: without one, a statement that timed out on a frozen server would block its caller until the
    server continues.
    """
    return _Connected(source)


class _Places:
    """The places of a pool, one for each of its connections: its callers get them in the order in which they ask.

    From asyncpg's own queue a later caller may take the connection for which an earlier one waits, again and again.
    """

    __slots__ = ("_callers", "_free", "_pool", "releasing")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._free = asyncio.Semaphore(pool.get_max_size())
        self._callers = 0
        self.releasing = set[asyncio.Task[None]]()  # the event loop itself keeps no reference to its tasks

    async def take(self) -> None:
        """Wait for a place. Raises `TimeoutError`.

        The time to open a connection begins after this wait. If both shared it, a caller that has waited long would
        give the connection up just before it is open, and so would the next one, for as long as there are callers.
        """
        self._callers += 1
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._free.acquire()
        except BaseException:
            self._leave()
            raise

    def give_back(self) -> None:
        """Let the next caller have the place. The connection must be back in the pool."""
        self._leave()
        self._free.release()

    def _leave(self) -> None:
        self._callers -= 1
        if not self._callers:
            del _PLACES[self._pool]


_PLACES: Final = dict[Pool, _Places]()  # of each pool that has callers now


class _Connected:  # a generator takes twice the time, and each statement is in such a block
    __slots__ = ("_acquired", "_places", "_source")

    _acquired: "PoolConnectionProxy[asyncpg.Record]"
    _places: _Places

    def __init__(self, source: Executor) -> None:
        self._source = source

    async def __aenter__(self) -> Connection:
        source = self._source
        if not isinstance(source, asyncpg.Pool):
            return source
        self._places = places = _PLACES.get(source) or _PLACES.setdefault(source, _Places(source))
        await places.take()
        try:
            for _ in range(_TURNS):  # else statements that follow each other would open a second connection
                if not places.releasing or source.get_idle_size():
                    break
                await asyncio.sleep(0)  # noqa: TID251 -- a turn of the event loop, in which no time passes
            self._acquired = await source.acquire(timeout=ANSWER_SECONDS)
        except BaseException:
            places.give_back()
            raise
        return self._acquired

    async def __aexit__(self, kind: object, _error: object, _traceback: object) -> None:
        source = self._source
        if not isinstance(source, asyncpg.Pool):
            return
        releasing = asyncio.ensure_future(source.release(self._acquired))
        self._places.releasing.add(releasing)
        releasing.add_done_callback(self._released)
        if kind is not None:
            await asyncio.wait([releasing])  # it goes on if the caller is cancelled here

    def _released(self, task: asyncio.Task[None]) -> None:
        try:
            self._places.releasing.discard(task)
            if task.cancelled():
                with suppress(asyncpg.InterfaceError):  # it is in the pool already
                    self._acquired.terminate()  # else the pool would wait for it for ever
            else:
                task.exception()  # asyncio would log it; a connection that cannot be released is closed
        finally:
            self._places.give_back()


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
