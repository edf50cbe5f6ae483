"""The Publisher's own connections to PostgreSQL, few and closed in the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from hookseal.config.settings import Database
from hookseal.dispatcher.database import translated
from hookseal.ground.errors import ConfigError, Refused
from hookseal.schema import revision
from hookseal.schema.connect import pool_of_qualified_statements
from hookseal.schema.database import ANSWER_SECONDS, Connection, Pool, connected
from hookseal.schema.opening import opening

_MOST_CONNECTIONS: Final = 5
_CLOSE_SECONDS: Final = 5.0


@asynccontextmanager
async def connections(database: Database) -> AsyncIterator[Pool]:
    """Hold a pool of one to five connections to a database that has the schema.

    Raises `Unavailable` naming the address, `Refused` if the role may not use hookseal, `ConfigError`.
    """
    pool = await _opened(database)
    try:
        await _require_schema(pool)
        yield pool
    finally:
        await _closed(pool)


@asynccontextmanager
async def connection_of(pool: Pool) -> AsyncIterator[Connection]:
    """Hold one of the connections. Raises `Unavailable` if none is free, or answers, within five seconds.

    Raises `Refused` once the pool is closed.
    """
    if pool.is_closing():
        raise Refused("this Publisher is closed: publish within its `async with`")
    with translated():
        async with connected(pool) as connection:
            yield connection


async def _opened(database: Database) -> Pool:
    name = database.application_name or "hookseal-publisher"
    with opening(address=database.address, variable=database.variable):
        async with asyncio.timeout(ANSWER_SECONDS):
            return await pool_of_qualified_statements(
                database.url,
                size=_MOST_CONNECTIONS,
                application_name=name,
                command_timeout=ANSWER_SECONDS,
            )


async def _require_schema(pool: Pool) -> None:
    # Any revision will do: the functions that publish are the contract, and a producer may be older than the schema.
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


async def _closed(pool: Pool) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()
