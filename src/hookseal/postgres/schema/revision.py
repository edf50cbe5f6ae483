"""The schema revision that this version needs. Every process compares it; only `db upgrade` changes the schema."""

from typing import Final

from hookseal.ground.errors import ConfigError
from hookseal.postgres.handles import Executor

EXPECTED: Final = "0001"


async def current(connection: Executor) -> str | None:
    """Return the revision of the database, None if hookseal was never installed in it."""
    if await connection.fetchval("SELECT pg_catalog.to_regclass('hookseal.alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM hookseal.alembic_version")
    return revision


async def require(connection: Executor) -> None:
    """Raise `ConfigError`, which says what to do, if the schema has another revision."""
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
