"""The revision of a database."""

import asyncpg
import pytest

from hookseal.postgres.schema import revision


@pytest.mark.req("OPS-09", part="compared")
async def test_a_migrated_database_has_the_current_revision(database_url: str, empty_database_url: str) -> None:
    """An empty database has no revision; a migrated one has the revision of this version."""
    found = []
    for url in (empty_database_url, database_url):
        connection = await asyncpg.connect(url)
        found.append(await revision.current(connection))
        await connection.close()

    assert [None, revision.EXPECTED] == found
