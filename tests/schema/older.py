"""A database as an older version left it."""

import pytest

from hookseal.schema.upgrade import upgrade


async def upgraded_to(revision: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upgrade the database to that revision and no further."""
    with monkeypatch.context() as patch:  # the revision that this version works with is where an upgrade ends
        patch.setattr("hookseal.schema.revision.EXPECTED", revision)
        await upgrade(database_url)
