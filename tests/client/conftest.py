"""A Publisher on a migrated database and an empty Redis, and a view of what it stored."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from hookseal.client import Publisher
from hookseal.postgres.pool import Pool
from tests.client.stored import Stored


@pytest.fixture
async def publisher(database_url: str, redis_url: str) -> AsyncIterator[Publisher]:
    async with Publisher.connect(database_url, redis_url) as publisher:
        yield publisher


@pytest.fixture
async def stored(pool: Pool, redis_url: str) -> AsyncIterator[Stored]:
    """Yield a view of the database and Redis; acme has one endpoint, which subscribes to everything."""
    async with Redis.from_url(redis_url) as redis:
        made = Stored(pool, redis)
        await made.endpoint()
        yield made
