"""Fixtures of the tests that run whole workers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hookseal.postgres.pool import Pool
from tests.worker import world as worlds
from tests.worker.world import Receiver, World, receiving


@pytest.fixture
async def world(begun_pool: Pool, database_url: str, redis_url: str, tmp_path: Path) -> World:
    return await worlds.world(begun_pool, database_url, redis_url, tmp_path)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made
