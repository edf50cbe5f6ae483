"""A database whose clock a test moves: for sessions with `SETTINGS`, or for all.

The clock runs on from the time to which it was moved. With `stands_still` it stands until it is moved, so that a test
can reach an exact moment.
"""

from datetime import datetime, timedelta
from typing import Final

import asyncpg

from hookseal.postgres.pool import Executor

# In this order the functions of the test are found first; the product always names its own schema.
SETTINGS: Final = {"search_path": "moved, pg_catalog"}
_MADE: Final = """
CREATE SCHEMA moved;
CREATE TABLE moved.clock (by interval NOT NULL, stands_at timestamptz);
INSERT INTO moved.clock VALUES (interval '0', NULL);
CREATE FUNCTION moved.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT coalesce(stands_at, pg_catalog.now()) + by FROM moved.clock';
CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT coalesce(stands_at, pg_catalog.clock_timestamp()) + by FROM moved.clock';
GRANT USAGE ON SCHEMA moved TO PUBLIC;
GRANT SELECT ON moved.clock TO PUBLIC;
"""
# These compare what a worker's role writes with the time.
_GUARDS: Final = """
ALTER FUNCTION hookseal.guard_endpoint() SET search_path = moved, pg_catalog;
ALTER FUNCTION hookseal.guard_record() SET search_path = moved, pg_catalog;
"""
# A day ahead, so that what was published by the server's own clock is due.
_STANDS_STILL: Final = """
UPDATE moved.clock SET stands_at = pg_catalog.date_trunc('second', pg_catalog.now()) + interval '1 day'
"""
# A session of the product finds only the functions of PostgreSQL, so they are replaced in this one database. The new
# ones can be inlined, which is needed because a direct call still runs the old ones.
_MADE_FOR_ALL: Final = """
CREATE OR REPLACE FUNCTION moved.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.transaction_timestamp() + by FROM moved.clock';
CREATE OR REPLACE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.timeofday()::timestamptz + by FROM moved.clock';
CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moved.now()';
CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT moved.clock_timestamp()';
"""


async def make(database_url: str, *, stands_still: bool = False) -> None:
    """Create a clock in the database that can be moved, for sessions that begin with `SETTINGS`."""
    await _execute(database_url, _MADE + _STANDS_STILL if stands_still else _MADE)


async def guard(database_url: str) -> None:
    """Let the guards of the schema, too, use this clock, for sessions with the role of a worker.

    A worker process refuses such a schema.
    """
    await _execute(database_url, _GUARDS)


async def make_for_all(database_url: str) -> None:
    """Create such a clock for every session of the database, also for those of other processes."""
    await _execute(database_url, _MADE + _MADE_FOR_ALL)


async def now(source: Executor) -> datetime:
    """Return the time of that clock, on a session with `SETTINGS`."""
    at: datetime = await source.fetchval("SELECT now()")
    return at


async def move(source: Executor, by: timedelta) -> datetime:
    """Move the clock by that time, and return the new time."""
    at: datetime = await source.fetchval(
        "UPDATE moved.clock SET by = by + $1 RETURNING coalesce(stands_at, pg_catalog.now()) + by", by
    )
    return at


async def _execute(database_url: str, statements: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()
