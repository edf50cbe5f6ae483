"""An Admin on an installation that has begun, and a view of what it stored."""

from collections.abc import AsyncIterator

import pytest

from hookseal import Admin
from tests.doubles.stored import MASTER_KEY_TEXT, Installation


@pytest.fixture
def environ(database_url: str) -> dict[str, str]:
    """Return the settings of an Admin that may send to this machine."""
    return {
        "HOOKSEAL_ENV": "test",
        "DATABASE_URL": database_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
        "HOOKSEAL_DRAIN_SECONDS": "15",
        "HOOKSEAL_ALLOW_HTTP": "true",
        "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
    }


@pytest.fixture
async def admin(installation: Installation, environ: dict[str, str]) -> AsyncIterator[Admin]:
    """Yield an Admin on this installation."""
    async with Admin.connect(environ=environ) as admin:
        yield admin
