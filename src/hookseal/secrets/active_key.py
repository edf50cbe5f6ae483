"""Which master key seals: one lock makes it the same for a whole transaction, and for everybody who seals meanwhile."""

from typing import Final

from hookseal.ground.errors import Busy, ConfigError
from hookseal.ground.sql import statements
from hookseal.schema import locks
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretUnavailable

_SQL: Final = statements("hookseal.secrets", "active_key.sql")
_TABLE: Final = "key_lock"  # always empty: it is there to be locked, by roles that may seal and by no other


async def settled(connection: Connection) -> str:
    """Return the id of the active key, which stays it until the caller's transaction ends.

    Raises `ConfigError` if none is active, `SecretUnavailable`, which names who holds the lock if somebody does.
    """
    await _taken(connection, "share")
    return await current(connection)  # a statement after the lock: it sees what whoever had it did


async def current(connection: Connection) -> str:
    """Return the id of the key that is active at this moment. Raises `ConfigError` if none is, `SecretUnavailable`."""
    with outages_translated():
        found: str | None = await connection.fetchval(_SQL["active"])
    if found is None:
        raise ConfigError("no master key is active in the table of keys")
    return found


async def hold(connection: Connection) -> None:
    """Have everybody else who seals, or changes the table of keys, wait until the caller's transaction ends.

    Raises `SecretUnavailable`, which names who holds the lock if somebody does.
    """
    await _taken(connection, "hold")


async def _taken(connection: Connection, how: str) -> None:
    with outages_translated():
        try:
            await locks.take(connection, _SQL[how], _TABLE)
        except Busy as error:
            raise SecretUnavailable(f"the table of master keys is locked: {error}") from None
