"""A database whose clock a test moves: every statement that asks for `now()` is answered by a function of the test's.

It stands still until it is moved, so that what happens at the very moment at which an overlap ends can be tried.
"""

from datetime import datetime, timedelta

import asyncpg

from hookseal.schema.database import Executor

# Named in this order, what is found first is the test's; the product names its own schema everywhere.
SETTINGS = {"search_path": "moved, pg_catalog"}
# A day ahead: what was published by the server's own clock is due.
_MADE = """
CREATE SCHEMA moved;
CREATE TABLE moved.clock (at timestamptz NOT NULL);
INSERT INTO moved.clock VALUES (pg_catalog.date_trunc('second', pg_catalog.now()) + interval '1 day');
CREATE FUNCTION moved.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM moved.clock';
"""


async def make(database_url: str) -> None:
    """Give the database a clock that can be moved, for sessions that begin with `SETTINGS`."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(_MADE)
    finally:
        await connection.close()


async def now(source: Executor) -> datetime:
    """Return the time by that clock."""
    at: datetime = await source.fetchval("SELECT now()")
    return at


async def move(source: Executor, by: timedelta) -> datetime:
    """Move the clock, and return the time that it is then."""
    at: datetime = await source.fetchval("UPDATE moved.clock SET at = at + $1 RETURNING at", by)
    return at
