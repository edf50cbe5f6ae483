"""The column that holds the plaintext secrets of an older system: whether it is there, and its removal."""

from enum import StrEnum
from typing import Final

from hookseal.schema.database import Connection

_STATE: Final = """
SELECT CASE WHEN t.oid IS NULL THEN NULL
            WHEN NOT EXISTS (SELECT FROM pg_attribute
                              WHERE attrelid = t.oid AND attname = 'secret' AND NOT attisdropped) THEN 'gone'
            WHEN EXISTS (SELECT FROM pg_constraint
                          WHERE conrelid = t.oid AND conname = 'endpoints_no_plaintext' AND convalidated)
            THEN 'forbidden'
            ELSE 'there' END
  FROM (SELECT to_regclass('hookseal.endpoints')::oid AS oid) AS t
"""
# What was generated becomes a plain column that stays false: whoever reads it goes on to, with the rights of before.
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
    """What may be in the column `endpoints.secret`: anything, nothing any more, or it is not there."""

    THERE = "there"
    FORBIDDEN = "forbidden"
    GONE = "gone"


async def state(connection: Connection) -> PlaintextColumn | None:
    """Return how it stands with the column, None if hookseal was never installed in the database."""
    found = await connection.fetchval(_STATE)
    return None if found is None else PlaintextColumn(found)


async def remove_forbidden(connection: Connection) -> None:
    """Remove the column for good once plaintext is forbidden in it; before that, and again, nothing is done.

    Afterwards `has_plaintext` is false in every row. Raises what asyncpg raises: without the rights of the owner,
    or while somebody holds the table for longer than five seconds, nothing was changed.
    """
    async with connection.transaction():
        if await state(connection) is PlaintextColumn.FORBIDDEN:
            await connection.execute(_REMOVE)
