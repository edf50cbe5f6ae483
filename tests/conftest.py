"""The fixtures of every test: databases of its own on servers that the whole run shares.

A test that freezes or kills a server, changes its settings or flushes all of it uses `own_postgres` or `own_valkey`.
"""

import gc
import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from hookseal import Admin
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.server import Server
from hookseal.embedded.valkey import valkey
from hookseal.postgres.pool import FairPool
from tests.doubles.aws import running_aws
from tests.doubles.openbao import running_openbao
from tests.doubles.stored import MASTER_KEY_TEXT, Installation, begin
from tests.fresh import fresh_postgres
from tests.memory import servers_state, temporary_files
from tests.servers import (
    REDIS_DATABASES_PER_PROCESS,
    Given,
    Servers,
    Shared,
    WithoutReset,
    database,
    empty_by_flush,
    empty_by_key,
    for_process,
    sibling,
)

pytest_plugins = ["tests.plugins.requirements"]

# No test depends on an idle machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_SHARED = pytest.StashKey[Shared]()
_AT_THE_END = pytest.StashKey[ExitStack]()
_NUMBERS = count()


def pytest_configure(config: pytest.Config) -> None:
    """Remember the given servers, then remove every setting of the product from the environment."""
    config.addinivalue_line("markers", "servers: needs a server; every test that does has it by itself")
    config.addinivalue_line(
        "markers", "pure: a part of `make coverage` although it needs a server: only it makes exports"
    )
    given = Given(
        database_url=os.environ.get("HOOKSEAL_TEST_DATABASE_URL"),
        redis_url=os.environ.get("HOOKSEAL_TEST_REDIS_URL"),
    )
    for name in list(os.environ):
        if name.startswith(("HOOKSEAL_", "SECRETS_", "PG")) or name in {"DATABASE_URL", "REDIS_URL"}:
            del os.environ[name]
    if not hasattr(config, "workerinput"):
        config.stash[_SHARED] = Shared(given)
        config.stash[_AT_THE_END] = ExitStack()
        config.stash[_AT_THE_END].enter_context(temporary_files())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude what is collected from garbage collection, because it exists until the end of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test that needs a server, so that all others can be run alone."""
    if "servers" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.servers)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long tests, which have a higher time limit, first, so that the processes of a run end together."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send each process of a parallel run the servers that all of them share."""
    shared = node.config.stash[_SHARED]
    if shared.given.redis_url is not None:
        raise pytest.UsageError("HOOKSEAL_TEST_REDIS_URL is one database for one process: leave out -n")
    node.workerinput["servers"] = for_process(shared.start(), node.gateway.id)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers of this run, and remove its temporary files."""
    shared = config.stash.get(_SHARED, None)
    if shared is not None:
        shared.stop()
        config.stash[_AT_THE_END].close()


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """The servers that this run shares."""
    config = request.config
    return Servers(**config.workerinput["servers"]) if hasattr(config, "workerinput") else config.stash[_SHARED].start()


@pytest.fixture(scope="session")
def aws_address() -> Iterator[str]:
    """Yield the address of an AWS that the tests share: each uses keys and names of its own."""
    with running_aws() as address:
        yield address


@pytest.fixture(scope="session")
def openbao_address() -> Iterator[str]:
    """Yield the address of an OpenBao that the tests share: each uses mounts, keys and policies of its own."""
    with running_openbao() as address:
        yield address


@pytest.fixture
async def database_url(servers: Servers, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Yield the URL of a migrated database of its own."""
    template = servers.begun if "begun_pool" in request.fixturenames else servers.template
    async with database(servers, _name(servers), template=template) as url:
        yield url


@pytest.fixture
async def empty_database_url(servers: Servers) -> AsyncIterator[str]:
    """Yield the URL of an empty database of its own."""
    async with database(servers, _name(servers)) as url:
        yield url


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """Yield a pool on the database of `database_url`."""
    async with FairPool(database_url, max_size=10, connection_class=WithoutReset) as pool:
        yield pool


@pytest.fixture
def begun_pool(pool: "asyncpg.Pool[asyncpg.Record]") -> "asyncpg.Pool[asyncpg.Record]":
    """Return the same pool, on a database with an initialised installation, which makes `begin` cheaper."""
    return pool


@pytest.fixture
async def installation(begun_pool: "asyncpg.Pool[asyncpg.Record]") -> Installation:
    """Return an installation that has begun."""
    return await begin(begun_pool)


@pytest.fixture
async def redis_url(servers: Servers) -> AsyncIterator[str]:
    """Yield the URL of an empty Redis database of its own."""
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
    """Yield a new folder that the user of the servers can reach (as root, `tmp_path` is not)."""
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
    with servers_state() as folder:
        async with valkey(folder, durable=False) as server:
            yield server


def _name(servers: Servers) -> str:
    return f"{servers.prefix}{servers.process}_{next(_NUMBERS)}"


@pytest.fixture
def environ(database_url: str) -> dict[str, str]:
    """Return the settings of an Admin that may send to this machine."""
    return {
        "HOOKSEAL_ENV": "test",
        "DATABASE_URL": database_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
        "HOOKSEAL_DRAIN_SECONDS": "15",
        "HOOKSEAL_ALLOW_HTTP": "true",
        "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
    }


@pytest.fixture
async def admin(installation: Installation, environ: dict[str, str]) -> AsyncIterator[Admin]:
    """Yield an Admin on this installation."""
    async with Admin.connect(environ=environ) as admin:
        yield admin
