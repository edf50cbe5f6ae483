"""A database as an older version left it."""

import pytest
from alembic import command

from hookseal.schema.upgrade import upgrade


async def upgraded_to(revision: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upgrade the database to that revision and no further."""
    real = command.upgrade
    with monkeypatch.context() as patch:  # the one way to stop at an older revision: Alembic is told its name
        patch.setattr(command, "upgrade", lambda config, _: real(config, revision))
        await upgrade(database_url)
