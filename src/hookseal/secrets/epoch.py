"""The cache epoch: whoever holds secrets cached under an older one forgets them at its next claim."""

from typing import Final

from hookseal.ground.sql import statements
from hookseal.schema.database import Connection
from hookseal.secrets.database import outages_translated

_SQL: Final = statements("hookseal.secrets", "epoch.sql")


async def move(connection: Connection) -> int:
    """Move the epoch by one, in the caller's transaction, and return it. Raises `SecretUnavailable`."""
    with outages_translated():
        epoch: int = await connection.fetchval(_SQL["move"])
    return epoch
