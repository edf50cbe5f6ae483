"""Which master key seals: one lock makes it the same for a whole transaction, and for everybody who seals meanwhile."""

from typing import Final

from hookseal.ground.errors import ConfigError
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated

_SQL: Final = statements("hookseal.secrets", "active_key.sql")
_KEYS: Final = 0x686F6F6B7365616C  # the advisory lock of the table of keys


async def settled(connection: Connection) -> str:
    """Return the id of the active key, which stays it until the caller's transaction ends.

    Raises `ConfigError` if none is active, `SecretUnavailable`.
    """
    with outages_translated():
        await connection.execute(_SQL["share"], _KEYS)
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

    Raises `SecretUnavailable`.
    """
    with outages_translated():
        await connection.execute(_SQL["hold"], _KEYS)
