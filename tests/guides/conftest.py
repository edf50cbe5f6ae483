"""Fixtures of the tests of guides: an installation, a receiver, and a reader with a shell for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hookseal.postgres.pool import Pool
from tests.cli.shell import Shell
from tests.guides.reader import Reader
from tests.worker import world as worlds
from tests.worker.environment import environment
from tests.worker.world import Receiver, World, receiving


@pytest.fixture
async def world(begun_pool: Pool, database_url: str, redis_url: str, tmp_path: Path) -> World:
    return await worlds.world(begun_pool, database_url, redis_url, tmp_path)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture
def reader(database_url: str, redis_url: str, tmp_path: Path) -> Reader:
    """Return a reader with the settings of a worker, in a folder of its own, which is its home, too."""
    folder = tmp_path / "home"
    folder.mkdir()
    return Reader(shell=Shell(folder, environment(database_url, redis_url) | {"HOME": str(folder)}))
