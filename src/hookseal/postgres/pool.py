"""The types of connections and pools, and context managers that give a connection or a transaction of either."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from hookseal.errors import Busy
from hookseal.ground.clock import Stopwatch, SystemClock

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
    server continues. A pool that is no `FairPool` has no such order, and its callers wait for the release.
    """
    if isinstance(source, FairPool):
        return _Connected(source)
    if isinstance(source, asyncpg.Pool):
        return source.acquire(timeout=ANSWER_SECONDS)
    return nullcontext(source)


class _Permits:
    """One permit for each connection of a pool; callers get them in the order in which they ask."""

    __slots__ = ("_free", "releasing", "waiting")

    def __init__(self, number: int) -> None:
        self._free = asyncio.Semaphore(number)
        self.waiting = Stopwatch(SystemClock())
        self.releasing = set[asyncio.Task[None]]()  # the event loop itself keeps no reference to its tasks

    async def take(self) -> None:
        """Wait for a permit. Raises `TimeoutError`.

        The time to open a connection begins after this wait. If both shared it, a caller that has waited long would
        give the connection up just before it is open, and so would the next one, for as long as there are callers.
        """
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        with self.waiting.timed():
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._free.acquire()

    def give_back(self) -> None:
        """Let the next caller have the permit. The connection must be back in the pool."""
        self._free.release()


# What `asyncpg.create_pool` passes by default, but for `min_size`: the class itself has no defaults.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "min_size": 1,
    "max_queries": 50_000,
    "max_inactive_connection_lifetime": 300.0,
    "loop": None,
    "connection_class": asyncpg.Connection,
    "record_class": asyncpg.Record,
}


class FairPool(Pool):
    """A pool whose callers get a connection in the order in which they ask, by `connected`.

    From asyncpg's own queue a later caller may take the connection for which an earlier one waits, again and again.
    """

    def __init__(self, *arguments: Any, max_size: int, **options: Any) -> None:
        super().__init__(*arguments, max_size=max_size, **{**_DEFAULTS, **options})
        self.permits: Final = _Permits(max_size)


def waited_seconds(source: Pool) -> float:
    """Return for how long a caller has waited because all connections were in use. A pool that is no `FairPool`: 0."""
    return source.permits.waiting.seconds if isinstance(source, FairPool) else 0.0


class _Connected:  # a generator takes twice the time, and each statement is in such a block
    __slots__ = ("_acquired", "_pool")

    _acquired: "PoolConnectionProxy[asyncpg.Record]"

    def __init__(self, pool: FairPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        pool, permits = self._pool, self._pool.permits
        await permits.take()
        try:
            for _ in range(_TURNS):  # else statements that follow each other would open a second connection
                if not permits.releasing or pool.get_idle_size():
                    break
                await asyncio.sleep(0)  # noqa: TID251 -- a turn of the event loop, in which no time passes
            self._acquired = await pool.acquire(timeout=ANSWER_SECONDS)
        except BaseException:
            permits.give_back()
            raise
        return self._acquired

    async def __aexit__(self, kind: object, _error: object, _traceback: object) -> None:
        releasing = asyncio.ensure_future(self._pool.release(self._acquired))
        self._pool.permits.releasing.add(releasing)
        releasing.add_done_callback(self._released)
        if kind is not None:
            await asyncio.wait([releasing])  # it goes on if the caller is cancelled here

    def _released(self, task: asyncio.Task[None]) -> None:
        permits = self._pool.permits
        try:
            permits.releasing.discard(task)
            if task.cancelled():
                with suppress(asyncpg.InterfaceError):  # it is in the pool already
                    self._acquired.terminate()  # else the pool would wait for it for ever
            else:
                task.exception()  # asyncio would log it; a connection that cannot be released is closed
        finally:
            permits.give_back()


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


WAIT_SECONDS: float = 5

_ANSWER_SECONDS: Final = WAIT_SECONDS + 1.0  # longer than PostgreSQL's own time-out, so that its error arrives
_TAKE: Final = """
SAVEPOINT hookseal_lock;
SET LOCAL lock_timeout = '{seconds}s';
{statement};
RELEASE SAVEPOINT hookseal_lock;
SET LOCAL lock_timeout = '{before}'
"""
_UNDO: Final = "ROLLBACK TO SAVEPOINT hookseal_lock; RELEASE SAVEPOINT hookseal_lock"
# A read lock only blocks ALTER TABLE. `xact_start` is null if this role may not see that of another role.
_HOLDERS: Final = """
SELECT DISTINCT a.pid, a.usename, a.application_name, a.xact_start
  FROM pg_locks AS l
  JOIN pg_stat_activity AS a ON a.pid = l.pid
  JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
  LEFT JOIN pg_class AS c ON c.oid = l.relation
  LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE l.granted AND l.locktype = 'relation' AND l.pid <> pg_backend_pid()
   AND (n.nspname = 'hookseal' AND ($1::text IS NULL OR c.relname = $1 AND l.mode <> 'AccessShareLock')
        OR $1::text IS NULL AND a.application_name = $2::text)
 ORDER BY a.xact_start NULLS LAST
 LIMIT 3
"""


async def take(connection: Connection, statement: str, table: str) -> None:
    """Run a `LOCK TABLE` on that table of ours in the caller's transaction, whose `lock_timeout` does not change.

    Raises `Busy`, which names the holder, after `WAIT_SECONDS`; the transaction is then as it was before.
    """
    before: str = await connection.fetchval("SELECT current_setting('lock_timeout')")
    script = _TAKE.format(seconds=WAIT_SECONDS, statement=statement, before=before)
    try:
        await connection.execute(script, timeout=_ANSWER_SECONDS)
    except asyncpg.LockNotAvailableError:
        await connection.execute(_UNDO)
        held_by = await holders(connection, table=table)
        raise Busy(
            f"waited {WAIT_SECONDS} s for the lock hookseal.{table}, {held_by}: try again once it has ended"
        ) from None


async def holders(connection: Connection, *, table: str | None = None, application: str | None = None) -> str:
    """Return a text that names the sessions of others with a lock on that table of ours now.

    Without a table it is a lock on any table of ours, or on any table at all if the session has that application name.
    """
    rows = await connection.fetch(_HOLDERS, table, application)
    if not rows:
        return "which nobody holds any more"
    return f"which is held by {' and '.join(map(_described, rows))}"


def _described(row: asyncpg.Record) -> str:
    since = "" if row["xact_start"] is None else f", since {row['xact_start']:%Y-%m-%dT%H:%M:%SZ}"
    name = row["application_name"] or "without a name"
    return f"process {row['pid']} (role {row['usename']}, application {name!r}{since})"
