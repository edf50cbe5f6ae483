"""The cache epoch and the restore epoch. Workers read both with every claim.

A new cache epoch makes them discard all cached secrets; a new restore epoch, all generations that they have seen.
"""

from typing import Final

from hookseal.postgres.pool import Connection
from hookseal.secrets.statements import statements

_SQL: Final = statements("epoch.sql", package="hookseal.secrets.resolve")


async def lock_cache(connection: Connection) -> int:
    """Lock the cache epoch until the caller's transaction ends, and return it. Raises `SecretUnavailable`."""
    epoch: int = await _SQL.value(connection, "lock_cache")
    return epoch


async def move_cache(connection: Connection) -> int:
    """Raise the cache epoch, in the caller's transaction, and return it. Raises `SecretUnavailable`."""
    epoch: int = await _SQL.value(connection, "move_cache")
    return epoch


async def begin_restore(connection: Connection) -> int:
    """Begin a new restore epoch, in the caller's transaction, and return it. Raises `SecretUnavailable`."""
    epoch: int = await _SQL.value(connection, "begin_restore")
    return epoch
