"""A database whose clock a test shifts: for sessions that begin with `SETTINGS` it runs ahead of the server's."""

from datetime import timedelta
from typing import Final

import asyncpg

from hookseal.schema.database import Executor

# Named in this order, what is found first is the test's; the product names its own schema everywhere.
SETTINGS: Final = {"search_path": "shifted, pg_catalog"}
_MADE: Final = """
CREATE SCHEMA shifted;
CREATE TABLE shifted.clock (by interval NOT NULL);
INSERT INTO shifted.clock VALUES (interval '0');
CREATE FUNCTION shifted.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.now() + by FROM shifted.clock';
CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + by FROM shifted.clock';
GRANT USAGE ON SCHEMA shifted TO PUBLIC;
GRANT SELECT ON shifted.clock TO PUBLIC;
"""


async def make(database_url: str) -> None:
    """Give the database a clock that can be shifted."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(_MADE)
    finally:
        await connection.close()


async def shift(source: Executor, by: timedelta) -> None:
    """Let so much time pass at once."""
    await source.execute("UPDATE shifted.clock SET by = by + $1", by)
