"""The active master key, and the lock that keeps it the same for the whole of a transaction that seals."""

from typing import Final

from hookseal.errors import Busy, ConfigError, SecretUnavailable
from hookseal.postgres import pool
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.statements import FAILURES, statements

_SQL: Final = statements("active_key.sql", package="hookseal.secrets.key")
_TABLE: Final = "key_lock"  # always empty; only roles that may seal can lock it


async def lock_shared(connection: Connection) -> str:
    """Return the id of the active key. No other key becomes active until the caller's transaction ends.

    Several transactions may hold this lock. Raises `ConfigError` if no key is active, and `SecretUnavailable`, which
    names the holder of the lock if there is one.
    """
    await _lock(connection, "lock_shared")
    return await current(connection)  # a statement after the lock sees what its last holder changed


async def current(source: Executor) -> str:
    """Return the id of the active key now, without a lock. Raises `ConfigError` without one, `SecretUnavailable`."""
    key_id: str | None = await _SQL.value(source, "active")
    if key_id is None:
        raise ConfigError("no master key is active in the table of keys")
    return key_id


async def lock_exclusive(connection: Connection) -> None:
    """Make all others that seal, or change the table of keys, wait until the caller's transaction ends.

    Raises `SecretUnavailable`, which names the holder of the lock if there is one.
    """
    await _lock(connection, "lock_exclusive")


async def _lock(connection: Connection, how: str) -> None:
    with FAILURES.translated():
        try:
            await pool.take(connection, _SQL[how], _TABLE)
        except Busy as error:
            raise SecretUnavailable(f"the table of master keys is locked: {error}") from None
