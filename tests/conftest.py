"""The fixtures of every test: databases of its own on servers that the whole run shares.

Whoever freezes or kills a server, changes its settings or flushes all of it takes `own_postgres` or
`own_valkey`.
"""

import os
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hookseal.embedded.account import for_servers
from hookseal.embedded.folders import scratch
from hookseal.embedded.server import Server
from hookseal.embedded.valkey import valkey
from tests.fresh import fresh_postgres
from tests.servers import (
    REDIS_DATABASES_PER_PROCESS,
    Given,
    Servers,
    Shared,
    database,
    empty_by_flush,
    empty_by_key,
    for_process,
    sibling,
)

pytest_plugins = ["tests.plugins.requirements"]

_SHARED = pytest.StashKey[Shared]()
_NUMBERS = count()


def pytest_configure(config: pytest.Config) -> None:
    """Remember which servers were given, then take every setting of the product out of the environment."""
    given = Given(
        database_url=os.environ.get("HOOKSEAL_TEST_DATABASE_URL"),
        redis_url=os.environ.get("HOOKSEAL_TEST_REDIS_URL"),
    )
    for name in list(os.environ):
        if name.startswith(("HOOKSEAL_", "SECRETS_", "PG")) or name in {"DATABASE_URL", "REDIS_URL"}:
            del os.environ[name]
    if not hasattr(config, "workerinput"):
        config.stash[_SHARED] = Shared(given)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each process of a parallel run which servers all of them share."""
    shared = node.config.stash[_SHARED]
    if shared.given.redis_url is not None:
        raise pytest.UsageError("HOOKSEAL_TEST_REDIS_URL is one database for one process: leave out -n")
    node.workerinput["servers"] = for_process(shared.start(), node.gateway.id)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers of this run."""
    shared = config.stash.get(_SHARED, None)
    if shared is not None:
        shared.stop()


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """The servers that this run shares."""
    config = request.config
    return Servers(**config.workerinput["servers"]) if hasattr(config, "workerinput") else config.stash[_SHARED].start()


@pytest.fixture
async def database_url(servers: Servers) -> AsyncIterator[str]:
    """Yield the url of a migrated database of its own."""
    async with database(servers, _name(servers), template=servers.template) as url:
        yield url


@pytest.fixture
async def empty_database_url(servers: Servers) -> AsyncIterator[str]:
    """Yield the url of a database of its own, in which nothing was ever made."""
    async with database(servers, _name(servers)) as url:
        yield url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """Yield a pool on the database of `database_url`."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=10) as pool:
        yield pool


@pytest.fixture
async def redis_url(servers: Servers) -> AsyncIterator[str]:
    """Yield the url of an empty Redis database of its own."""
    if not servers.redis_is_ours:
        yield servers.redis_url
        await empty_by_key(servers.redis_url)
        return
    number = servers.process * REDIS_DATABASES_PER_PROCESS + next(_NUMBERS) % REDIS_DATABASES_PER_PROCESS
    url = sibling(servers.redis_url, str(number))
    await empty_by_flush(url)
    yield url
    await empty_by_flush(url)


@pytest.fixture
def servers_folder() -> Iterator[Path]:
    """Yield a fresh folder that servers can reach, whoever they run as (as root, `tmp_path` is not)."""
    with scratch(for_servers()) as folder:
        yield folder


@pytest.fixture
async def own_postgres() -> AsyncIterator[Server]:
    """Yield a PostgreSQL that no other test uses; its database is migrated."""
    async with fresh_postgres(migrated=True) as server:
        yield server


@pytest.fixture
async def own_valkey() -> AsyncIterator[Server]:
    """Yield a Valkey that no other test uses."""
    with scratch(for_servers()) as folder:
        async with valkey(folder, durable=False) as server:
            yield server


def _name(servers: Servers) -> str:
    return f"{servers.prefix}{servers.process}_{next(_NUMBERS)}"
