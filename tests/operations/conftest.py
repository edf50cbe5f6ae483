"""Fixtures of the tests of operations."""

from collections.abc import AsyncIterator

import pytest

from tests.doubles.stored import Installation
from tests.operations import every_await
from tests.operations.every_await import Place, Program


@pytest.fixture
async def program(installation: Installation, database_url: str) -> AsyncIterator[Program]:
    """Yield the program that runs an operation in a process which is killed at an await."""
    async with every_await.program(Place(database_url=database_url, pool=installation.pool)) as started:
        yield started
