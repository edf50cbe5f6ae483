"""A fixture of pytest: an installation on embedded servers, for all tests of a run."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest

from hookseal.demo.installation import install
from hookseal.embedded.folders import scratch
from hookseal.embedded.stack import temporary_stack


@dataclass(frozen=True, slots=True, kw_only=True)
class TestInstallation:
    """A PostgreSQL with the schema of hookseal and a master key, and a Valkey.

    `settings` are the variables with which `Admin.connect(environ=...)`, `hookseal worker` and every other command use
    it. It may send to this machine, also by http, and it is not durable.
    """

    __test__ = False  # pytest collects classes with such a name

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    settings: Mapping[str, str] = field(repr=False)


@pytest.fixture(scope="session")
def hookseal_servers() -> Iterator[TestInstallation]:
    """Run both servers for the tests of this process, and end them with it. It needs the extra `embedded`.

    All tests share the tables: give each a tenant of its own. Raises `Unavailable` if a server does not start.
    """
    with asyncio.Runner() as runner, scratch(None) as folder:
        servers = AsyncExitStack()
        try:
            stack = runner.run(servers.enter_async_context(temporary_stack()))
            installation = runner.run(install(stack, folder))
            yield TestInstallation(
                database_url=installation.database_url,
                redis_url=installation.redis_url,
                settings=MappingProxyType(installation.settings),
            )
        finally:
            runner.run(servers.aclose())
