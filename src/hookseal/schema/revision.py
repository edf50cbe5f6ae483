"""The schema revision that this version works with. The worker compares; only `db upgrade` changes."""

from typing import Final

from hookseal.schema.database import Executor

EXPECTED: Final = "0002"


async def current(connection: Executor) -> str | None:
    """Return the revision of the database, None if hookseal was never installed in it."""
    if await connection.fetchval("SELECT to_regclass('hookseal.alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM hookseal.alembic_version")
    return revision
