"""On which revisions of the schema this version runs. Every process asks it; only `db upgrade` changes the schema.

A version runs on the revision that it makes, on those before it back to `OLDEST`, and on each later one whose migration
says that a version of this age may (`runs_from`). So versions that follow each other share a database while workers are
replaced, forwards or back.
"""

from typing import Final

from hookseal.errors import ConfigError
from hookseal.postgres.pool import Executor

EXPECTED: Final = "0002"
OLDEST: Final = "0002"  # to record an attempt, a worker writes its endpoint, which 0001 has no column for
LINE: Final = "hookseal, first line of schemas"  # the first migration marks the schema with it, as its comment

_UPGRADE: Final = "run `hookseal db upgrade`"
_MARK: Final = """
SELECT pg_catalog.obj_description(n.oid, 'pg_namespace') FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'hookseal'
"""
# A schema of 0001 has no such column.
_RUNS_FROM: Final = "SELECT pg_catalog.to_jsonb(v) ->> 'runs_from' FROM hookseal.alembic_version AS v"


async def current(connection: Executor) -> str | None:
    """Return the revision of the database, None if hookseal was never installed in it."""
    if await connection.fetchval("SELECT pg_catalog.to_regclass('hookseal.alembic_version')") is None:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM hookseal.alembic_version")
    return revision


async def runs_from(connection: Executor) -> str | None:
    """Return the oldest revision whose version may run on the schema; None if it does not say so, as 0001 does not."""
    oldest: str | None = await connection.fetchval(_RUNS_FROM)
    return oldest


async def require(connection: Executor) -> None:
    """Raise `ConfigError`, which says what to do, if this version does not run on the schema."""
    at = await current(connection)
    if at is None:
        raise ConfigError("the database has no schema of hookseal", advice=_UPGRADE)
    await require_upgradable(connection, at)
    if at < OLDEST:
        needed = EXPECTED if OLDEST == EXPECTED else f"{OLDEST} to {EXPECTED}"
        raise ConfigError(f"the schema is at revision {at}, this version needs {needed}", advice=_UPGRADE)


async def is_of_this_line(connection: Executor) -> bool:
    """Return whether the schema has the mark of this line."""
    mark: str | None = await connection.fetchval(_MARK)
    return mark == LINE


async def require_upgradable(connection: Executor, at: str) -> None:
    """Raise `ConfigError`, which says what the database is, if this version neither upgrades it nor runs on it.

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
    if at < EXPECTED:
        return
    oldest = await runs_from(connection)
    if oldest is None or oldest > EXPECTED:
        needed = "" if oldest is None else f", and the schema needs one that knows {oldest}"
        raise ConfigError(
            f"the schema is at revision {at}, this version knows up to {EXPECTED}{needed}: install a newer hookseal"
        )
