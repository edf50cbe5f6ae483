"""What the tests of operations run on."""

import asyncpg
import pytest

from tests.doubles.stored import Installation, begin


@pytest.fixture
async def installation(pool: "asyncpg.Pool[asyncpg.Record]") -> Installation:
    """Return a begun installation."""
    return await begin(pool)
