"""Fixtures of the fault suite.

`site` and `calm_site` use the servers that all tests share, `own_site` uses servers that a test may stop or flush.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hookseal.embedded.server import Server
from tests.faults import site as sites
from tests.faults.site import Site


@pytest.fixture
async def site(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with sites.open_site(database_url, redis_url, tmp_path) as made:
        yield made


@pytest.fixture
async def calm_site(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Yield a site on databases of its own, on which requests time out and leases expire only by a fault."""
    async with sites.open_site(database_url, redis_url, tmp_path, calm=True) as made:
        yield made


@pytest.fixture
async def own_site(own_postgres: Server, own_valkey: Server, tmp_path: Path) -> AsyncIterator[Site]:
    """Yield a site on servers of its own, for tests that flush, freeze or kill them."""
    async with sites.open_site(own_postgres.url, own_valkey.url, tmp_path) as made:
        yield made
