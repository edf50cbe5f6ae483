"""The column with the plaintext secrets of an older system: its state, and its removal."""

from enum import StrEnum
from typing import Final

from hookseal.postgres.pool import Connection

# Since 0002 the constraint is one of a domain, in 0001 it is one of the table.
_STATE: Final = """
SELECT CASE WHEN t.oid IS NULL THEN NULL
            WHEN NOT EXISTS (SELECT FROM pg_attribute
                              WHERE attrelid = t.oid AND attname = 'secret' AND NOT attisdropped) THEN 'gone'
            WHEN EXISTS (SELECT FROM pg_constraint
                          WHERE connamespace = to_regnamespace('hookseal')
                            AND conname = 'endpoints_no_plaintext' AND convalidated)
            THEN 'forbidden'
            ELSE 'there' END
  FROM (SELECT to_regclass('hookseal.endpoints')::oid AS oid) AS t
"""
# The generated column becomes an ordinary one that is always false, so that roles can still read it with their rights.
_REMOVE: Final = """
SET LOCAL lock_timeout = '5s';
ALTER TABLE hookseal.endpoints
    ALTER COLUMN has_plaintext DROP EXPRESSION,
    ALTER COLUMN has_plaintext SET DEFAULT false,
    ALTER COLUMN has_plaintext SET NOT NULL;
ALTER TABLE hookseal.endpoints
    ADD CONSTRAINT endpoints_has_no_plaintext CHECK (NOT has_plaintext),
    DROP COLUMN secret;
"""


class PlaintextColumn(StrEnum):
    """The state of the column `endpoints.secret`: it may have values, is always null, or does not exist."""

    THERE = "there"
    FORBIDDEN = "forbidden"
    GONE = "gone"


async def state(connection: Connection) -> PlaintextColumn | None:
    """Return the state of the column, None if hookseal was never installed in the database."""
    text = await connection.fetchval(_STATE)
    return None if text is None else PlaintextColumn(text)


async def remove_forbidden(connection: Connection) -> None:
    """Remove the column for good if plaintext is forbidden in it; otherwise change nothing.

    Afterwards `has_plaintext` is false in every row. Raises what asyncpg raises, and then changes nothing: without the
    rights of the owner, or if it cannot lock the table within five seconds.
    """
    async with connection.transaction():
        if await state(connection) is PlaintextColumn.FORBIDDEN:
            await connection.execute(_REMOVE)
