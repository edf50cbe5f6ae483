"""The servers of a test run: one PostgreSQL and one Valkey for all its processes, and a template database."""

import asyncio
import atexit
import secrets
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from hookseal.embedded.postgres import postgres
from hookseal.embedded.valkey import valkey
from hookseal.postgres.schema.upgrade import upgrade
from tests.doubles.stored import begin
from tests.memory import is_in_memory, servers_state

T = TypeVar("T")
REDIS_DATABASES_PER_PROCESS = 32
_PROCESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Servers named by the environment, to use in place of embedded ones."""

    database_url: str | None
    redis_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What the tests share.

    `database_url` is the database in which others are created; their names begin with `prefix`. `{prefix}template` is
    migrated, and `{prefix}begun` also has an initialised installation. `copied_by` is the copy strategy of the server.
    `redis_is_ours` says whether databases may be flushed by number. `process` is the number of this process in a
    parallel run.
    """

    database_url: str
    prefix: str
    copied_by: str
    redis_url: str
    redis_is_ours: bool
    process: int = 0

    @property
    def template(self) -> str:
        """The name of the migrated database that others are cloned from."""
        return f"{self.prefix}template"

    @property
    def begun(self) -> str:
        """The name of the database with an initialised installation, whose clones `begin` finds initialised."""
        return f"{self.prefix}begun"


class Shared:
    """Starts the servers when they are first needed, and runs them until `stop`.

    It has an event loop of its own, so that no test's loop owns them; it runs only while they start and stop.
    """

    def __init__(self, given: Given) -> None:
        self.given = given
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._stack = AsyncExitStack()
        self._servers: Servers | None = None

    def start(self) -> Servers:
        """Return the running servers."""
        if self._servers is None:
            self._servers = self._runner.run(self._stack.enter_async_context(_running(self.given)))
        return self._servers

    def stop(self) -> None:
        """End the servers and delete their data."""
        try:
            if self._servers is not None:
                self._runner.run(self._stack.aclose())
        finally:
            self._runner.close()


def for_process(servers: Servers, worker: str) -> dict[str, Any]:
    """Return the servers in a form that can be sent to that process of a parallel run (`gw0`, `gw1`, ...)."""
    return asdict(servers) | {"process": int(worker.removeprefix("gw"))}


def sibling(database_url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlsplit(database_url)._replace(path=f"/{name}").geturl()


@asynccontextmanager
async def database(servers: Servers, name: str, *, template: str = "template1") -> AsyncIterator[str]:
    """Create a database and yield its URL; it is dropped afterwards, even if clients are still connected."""
    execute = _maintenance(servers.database_url).execute
    await execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY {servers.copied_by}')
    try:
        yield sibling(servers.database_url, name)
    finally:
        await execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class _Maintenance:
    """The connection on which this process creates and drops databases.

    It has a thread with an event loop, because it outlives the event loop of each test.
    """

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="maintenance", daemon=True)
        self._thread.start()
        self._connection = self._begin(asyncpg.connect(url, timeout=10)).result()

    async def execute(self, statement: str) -> None:
        """Execute the statement."""
        await asyncio.wrap_future(self._begin(self._connection.execute(statement)))

    def close(self) -> None:
        """End the connection and the thread."""
        self._begin(self._terminate()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _terminate(self) -> None:
        self._connection.terminate()
        await asyncio.sleep(0)  # the transport closes its socket in the next turn of the event loop


@cache
def _maintenance(url: str) -> _Maintenance:
    made = _Maintenance(url)
    atexit.register(made.close)
    return made


class WithoutReset(asyncpg.Connection):
    """A connection that a pool does not reset at release, as those of hookseal: a reset costs one more statement."""

    def get_reset_query(self) -> str:
        """Return no statement."""
        return ""


async def empty_by_flush(redis_url: str) -> None:
    """Empty a Redis database of an embedded server."""
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()


async def require_empty(redis_url: str) -> None:
    """Fail unless the given Redis database is empty, because its contents would belong to somebody else."""
    async with Redis.from_url(redis_url) as client:
        if await client.dbsize():
            pytest.exit("the Redis database that HOOKSEAL_TEST_REDIS_URL names is not empty: nothing was changed in it")


async def empty_by_key(redis_url: str) -> None:
    """Delete every key of a given Redis database that was empty before the test."""
    async with Redis.from_url(redis_url) as client:
        async for key in client.scan_iter(count=1000):
            await client.unlink(key)


@asynccontextmanager
async def _running(given: Given) -> AsyncIterator[Servers]:
    async with AsyncExitStack() as parts:
        folder = parts.enter_context(servers_state())
        database_url, redis_url = given.database_url, given.redis_url
        copied_by = "wal_log"  # needs no checkpoint, which takes long on a disk
        if database_url is None:
            copied_by = "file_copy" if is_in_memory(folder) else copied_by
            database_url = (await parts.enter_async_context(postgres(folder, durable=False))).url
            await _make_logins_cheap(database_url)
        if redis_url is None:
            count = REDIS_DATABASES_PER_PROCESS * _PROCESSES
            redis_url = (await parts.enter_async_context(valkey(folder, durable=False, databases=count))).url
        else:
            await require_empty(redis_url)
        servers = Servers(
            database_url=database_url,
            prefix=f"hookseal_test_{secrets.token_hex(4)}_",
            copied_by=copied_by,
            redis_url=redis_url,
            redis_is_ours=given.redis_url is None,
        )
        template = await parts.enter_async_context(database(servers, servers.template))
        await upgrade(template)
        if given.database_url is None:
            await _make_clones_cheap(template)
        begun = await parts.enter_async_context(database(servers, servers.begun, template=servers.template))
        async with asyncpg.create_pool(begun, min_size=1, max_size=2) as pool:
            await begin(pool)
        yield servers


async def _make_logins_cheap(url: str) -> None:
    """Make a login cost one round of hashing instead of 4,096, because tests log in ten thousand times."""
    await _execute(url, "ALTER SYSTEM SET scram_iterations = 1")
    await _execute(url, f"SET scram_iterations = 1; ALTER ROLE CURRENT_USER PASSWORD '{urlsplit(url).password}'")
    await _execute(url, "SELECT pg_reload_conf()")


async def _make_clones_cheap(url: str) -> None:
    """Leave free space, and what describes PostgreSQL's own objects, out of the template and so out of each copy."""
    await _execute(url, "DELETE FROM pg_catalog.pg_description WHERE objoid < 16384")
    await _execute(url, "VACUUM FULL")
    await _execute(url, "SELECT 1")  # the first session afterwards leaves a cache file that the copies need, too


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
