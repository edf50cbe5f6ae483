"""A server on which hookseal was never installed, since its roles belong to the server and not to a database."""

from collections.abc import AsyncIterator

import pytest

from hookseal.embedded.server import Server
from tests.fresh import fresh_postgres


@pytest.fixture
async def bare_postgres() -> AsyncIterator[Server]:
    """Yield a PostgreSQL that no other test uses and that was never migrated."""
    async with fresh_postgres(migrated=False) as server:
        yield server
