"""A database whose clock a test shifts: for sessions that begin with `SETTINGS`, or for all, it runs ahead."""

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
# A session of the product finds PostgreSQL's own functions only, so these are replaced, in this one database. The new
# ones are plain enough to be put in the place of their calls, for the old ones are what a call of them still runs.
_MADE_FOR_ALL: Final = """
CREATE OR REPLACE FUNCTION shifted.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.transaction_timestamp() + by FROM shifted.clock';
CREATE OR REPLACE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.timeofday()::timestamptz + by FROM shifted.clock';
CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT shifted.now()';
CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT shifted.clock_timestamp()';
"""


async def make(database_url: str) -> None:
    """Give the database a clock that can be shifted."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(_MADE)
    finally:
        await connection.close()


async def make_for_all(database_url: str) -> None:
    """Give the database such a clock for every session, those of whole processes too."""
    await make(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(_MADE_FOR_ALL)
    finally:
        await connection.close()


async def shift(source: Executor, by: timedelta) -> None:
    """Let so much time pass at once."""
    await source.execute("UPDATE shifted.clock SET by = by + $1", by)
