"""What the tests of commands run on."""

import asyncpg
import pytest

from tests.cli.begun import Begun
from tests.doubles.stored import MASTER_KEY_TEXT, begin


@pytest.fixture
async def begun(pool: "asyncpg.Pool[asyncpg.Record]", database_url: str, redis_url: str) -> Begun:
    """An installation that has begun, and the settings of a development that reaches it."""
    settings = {
        "HOOKSEAL_ENV": "development",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
    }
    return Begun(stored=await begin(pool), settings=settings)
