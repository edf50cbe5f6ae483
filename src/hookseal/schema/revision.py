"""The schema revision that this version works with. Everybody compares; only `db upgrade` changes."""

from typing import Final

from hookseal.ground.errors import ConfigError
from hookseal.schema.database import Executor

EXPECTED: Final = "0006"


async def current(connection: Executor) -> str | None:
    """Return the revision of the database, None if hookseal was never installed in it."""
    if await connection.fetchval("SELECT pg_catalog.to_regclass('hookseal.alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM hookseal.alembic_version")
    return revision


async def require(connection: Executor) -> None:
    """Return only if the schema is that of this version. Raises `ConfigError` naming what to do."""
    found = await current(connection)
    if found is None:
        raise ConfigError("the database has no schema of hookseal: run `hookseal db upgrade`")
    if found < EXPECTED:
        raise ConfigError(
            f"the schema is at revision {found}, this version needs {EXPECTED}: run `hookseal db upgrade`"
        )
    if found > EXPECTED:
        raise ConfigError(
            f"the schema is at revision {found}, this version knows up to {EXPECTED}: install a newer hookseal"
        )
