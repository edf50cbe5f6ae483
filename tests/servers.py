"""The servers of a test run: one PostgreSQL and one Valkey for all its processes, and a template database."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from hookseal.embedded.account import for_servers
from hookseal.embedded.folders import scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.valkey import valkey
from hookseal.schema.upgrade import upgrade

REDIS_DATABASES_PER_PROCESS = 32
_PROCESSES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Servers to use in place of embedded ones, as the environment named them."""

    database_url: str | None
    redis_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What the tests share.

    `database_url` is where databases are made; the names of all of them begin with `prefix`, and
    `{prefix}template` is migrated. `redis_is_ours` tells whether databases may be flushed by number.
    `process` is the number of this process in a parallel run.
    """

    database_url: str
    prefix: str
    redis_url: str
    redis_is_ours: bool
    process: int = 0

    @property
    def template(self) -> str:
        """The name of the migrated database that others are cloned from."""
        return f"{self.prefix}template"


class Shared:
    """Starts the servers when they are first asked for, and holds them until `stop`.

    The loop is its own, so that no test's loop owns them; it runs only while they start and stop.
    """

    def __init__(self, given: Given) -> None:
        self.given = given
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._stack = AsyncExitStack()
        self._servers: Servers | None = None

    def start(self) -> Servers:
        """Return the servers, which answer now."""
        if self._servers is None:
            self._servers = self._runner.run(self._stack.enter_async_context(_running(self.given)))
        return self._servers

    def stop(self) -> None:
        """End the servers; nothing of them is left afterwards."""
        try:
            if self._servers is not None:
                self._runner.run(self._stack.aclose())
        finally:
            self._runner.close()


def for_process(servers: Servers, worker: str) -> dict[str, Any]:
    """Return the servers in a form that can be sent to that process of a parallel run (`gw0`, `gw1`, ...)."""
    return asdict(servers) | {"process": int(worker.removeprefix("gw"))}


def sibling(database_url: str, name: str) -> str:
    """Return the url of another database on the same server."""
    return urlsplit(database_url)._replace(path=f"/{name}").geturl()


@asynccontextmanager
async def database(servers: Servers, name: str, *, template: str = "template1") -> AsyncIterator[str]:
    """Make a database and yield its url; it is dropped afterwards, whoever is still connected."""
    # Copied by way of the journal, it waits for no checkpoint.
    await _execute(servers.database_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY wal_log')
    try:
        yield sibling(servers.database_url, name)
    finally:
        await _execute(servers.database_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def empty_by_flush(redis_url: str) -> None:
    """Empty a Redis database of an embedded server."""
    async with Redis.from_url(redis_url) as client:
        await client.flushdb()


async def require_empty(redis_url: str) -> None:
    """Fail unless the given Redis database is empty: what is in it is not ours."""
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
        folder = parts.enter_context(scratch(for_servers()))
        database_url, redis_url = given.database_url, given.redis_url
        if database_url is None:
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
            redis_url=redis_url,
            redis_is_ours=given.redis_url is None,
        )
        await upgrade(await parts.enter_async_context(database(servers, servers.template)))
        yield servers


async def _make_logins_cheap(url: str) -> None:
    """Have a login cost one round of hashing in place of 4,096: tests log in ten thousand times, each by Python."""
    await _execute(url, "ALTER SYSTEM SET scram_iterations = 1")
    await _execute(url, f"SET scram_iterations = 1; ALTER ROLE CURRENT_USER PASSWORD '{urlsplit(url).password}'")
    await _execute(url, "SELECT pg_reload_conf()")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
