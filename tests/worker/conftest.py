"""Fixtures of the tests that run whole workers."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.worker import world as worlds
from tests.worker.world import Receiver, World, receiving

Pool = asyncpg.Pool


@pytest.fixture
async def world(begun_pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str, tmp_path: Path) -> World:
    """Return an installation on databases of its own."""
    return await worlds.world(begun_pool, database_url, redis_url, tmp_path)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Yield a receiver on this machine."""
    async with receiving() as made:
        yield made
