"""Two epochs, which come with every claim: who meets a newer one forgets what it knows from before.

Under a new epoch of caches that is every cached secret, under one of restores every generation that was seen.
"""

from typing import Final

from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated

_SQL: Final = statements("hookseal.secrets", "epoch.sql")


async def locked(connection: Connection) -> int:
    """Return the epoch, which nobody else moves until the caller's transaction ends. Raises `SecretUnavailable`."""
    with outages_translated():
        epoch: int = await connection.fetchval(_SQL["locked"])
    return epoch


async def move(connection: Connection) -> int:
    """Move the epoch by one, in the caller's transaction, and return it. Raises `SecretUnavailable`."""
    with outages_translated():
        epoch: int = await connection.fetchval(_SQL["move"])
    return epoch


async def open_restore(connection: Connection) -> int:
    """Open a new epoch of restores, in the caller's transaction, and return it. Raises `SecretUnavailable`."""
    with outages_translated():
        epoch: int = await connection.fetchval(_SQL["open_restore"])
    return epoch
