"""A server on which hookseal was never installed: its roles belong to the server, not to a database."""

from collections.abc import AsyncIterator

import pytest

from hookseal.embedded.account import for_servers
from hookseal.embedded.folders import scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server


@pytest.fixture
async def bare_postgres() -> AsyncIterator[Server]:
    """Yield a PostgreSQL that no other test uses and no migration has seen."""
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False) as server:
            yield server
