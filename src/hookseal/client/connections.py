"""The Publisher's own few connections to PostgreSQL, which are closed with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from hookseal.config.settings import Database
from hookseal.ground.errors import ConfigError, Refused
from hookseal.postgres import opening
from hookseal.postgres.connect import pool_of_qualified_statements
from hookseal.postgres.handles import ANSWER_SECONDS, Pool
from hookseal.postgres.schema import revision
from hookseal.postgres.translate import translated

_MAX_CONNECTIONS: Final = 5
_CLOSE_SECONDS: Final = 5.0


@asynccontextmanager
async def connections(database: Database) -> AsyncIterator[Pool]:
    """Open a pool of one to five connections to a database with the schema of hookseal, and close it at the end.

    Raises `Unavailable` with the address, `Refused` if the role may not use hookseal, `ConfigError`.
    """
    async with opening.pool(
        database,
        size=_MAX_CONNECTIONS,
        name="hookseal-publisher",
        seconds=ANSWER_SECONDS,
        close_seconds=_CLOSE_SECONDS,
        make=pool_of_qualified_statements,
    ) as pool:
        await _require_schema(pool)
        yield pool


async def _require_schema(pool: Pool) -> None:
    # Any revision is accepted: the SQL functions are the contract, and a producer may be older than the schema.
    with translated():
        try:
            found = await revision.current(pool)
        except asyncpg.InsufficientPrivilegeError:
            raise Refused(
                "this database role may not publish: an operator must run "
                "`hookseal producer grant --role ROLE --tenant TENANT`, which makes it a member of hookseal_producer"
            ) from None
    if found is None:
        raise ConfigError("the database has no schema of hookseal: run `hookseal db upgrade`")
