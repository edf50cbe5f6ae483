"""Fixtures of the tests of backup and restore."""

from collections.abc import AsyncIterator

import pytest

from tests.restore.sites import Site, site
from tests.worker.world import Receiver, receiving


@pytest.fixture
async def old() -> AsyncIterator[Site]:
    """Yield the server that is backed up."""
    async with site() as made:
        yield made


@pytest.fixture
async def new() -> AsyncIterator[Site]:
    """Yield an empty server."""
    async with site() as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made
