"""Fixtures of the tests of commands."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.cli.in_turn import InTurn
from tests.cli.installation import Begun
from tests.doubles.stored import MASTER_KEY_TEXT, begin


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a checkout in which somebody ran `hookseal up`, errors have one more line.
    monkeypatch.chdir(tmp_path)


@pytest.fixture
async def begun(begun_pool: "asyncpg.Pool[asyncpg.Record]", database_url: str, redis_url: str) -> AsyncIterator[Begun]:
    """Yield an installation that has begun, with the settings of a development environment that reaches it."""
    settings = {
        "HOOKSEAL_ENV": "development",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
    }
    in_turn = InTurn()
    yield Begun(stored=await begin(begun_pool), settings=settings, in_turn=in_turn)
    await in_turn.end()
