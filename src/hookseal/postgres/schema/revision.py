"""The schema revision that this version needs. Every process compares it; only `db upgrade` changes the schema."""

from typing import Final

from hookseal.errors import ConfigError
from hookseal.postgres.pool import Executor

EXPECTED: Final = "0002"
LINE: Final = "hookseal, first line of schemas"  # the first migration marks the schema with it, as its comment

_UPGRADE: Final = "run `hookseal db upgrade`"
_MARK: Final = """
SELECT pg_catalog.obj_description(n.oid, 'pg_namespace') FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hookseal'
"""


async def current(connection: Executor) -> str | None:
    """Return the revision of the database, None if hookseal was never installed in it."""
    if await connection.fetchval("SELECT pg_catalog.to_regclass('hookseal.alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM hookseal.alembic_version")
    return revision


async def require(connection: Executor) -> None:
    """Raise `ConfigError`, which says what to do, if the schema has another revision."""
    at = await current(connection)
    if at is None:
        raise ConfigError("the database has no schema of hookseal", advice=_UPGRADE)
    await require_upgradable(connection, at)
    if at != EXPECTED:
        raise ConfigError(f"the schema is at revision {at}, this version needs {EXPECTED}", advice=_UPGRADE)


async def is_of_this_line(connection: Executor) -> bool:
    """Return whether the schema has the mark of this line."""
    mark: str | None = await connection.fetchval(_MARK)
    return mark == LINE


async def require_upgradable(connection: Executor, at: str) -> None:
    """Raise `ConfigError`, which says what the database is, if its revision is neither this version's nor an older one.

    Builds before the first release numbered their schemas in the same way. Only a schema with the mark of this line is
    a newer one.
    """
    if at == EXPECTED:  # the fingerprint says whether it is of this line
        return
    if not await is_of_this_line(connection):
        raise ConfigError(
            f"the schema says revision {at}, but not that this line of hookseal made it (this version knows up to "
            f"{EXPECTED}): it is from a build before the first release, which no version upgrades. Use that build, or "
            "move to a new database (docs/guide/upgrading.md)"
        )
    if at > EXPECTED:
        raise ConfigError(
            f"the schema is at revision {at}, this version knows up to {EXPECTED}: install a newer hookseal"
        )
