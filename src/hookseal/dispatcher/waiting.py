"""What an operator's change does to the deliveries of an endpoint: it wakes, waits for, or cancels them."""

from typing import Final

from hookseal.dispatcher.database import translated
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection

_SQL: Final = statements("hookseal.dispatcher", "waiting.sql")


async def wake(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> int:
    """Make every delivery of the endpoint that is held back due at once; return how many. Raises `Unavailable`."""
    return await _changed(connection, "wake", tenant, endpoint_id)


async def wake_all(connection: Connection) -> int:
    """Make every delivery of the installation that waits for a secret due at once; return how many."""
    return await _changed(connection, "wake_all")


async def cancel(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> int:
    """Cancel every pending delivery of an endpoint that is being deleted; return how many. Raises `Unavailable`."""
    return await _changed(connection, "cancel", tenant, endpoint_id)


async def older_claims(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, generation: int) -> int:
    """Return how many claims that read an older generation of the endpoint still hold their lease.

    None is left, and none can come any more, once this is 0 after the generation was committed. Raises
    `Unavailable`.
    """
    with translated():
        count: int = await connection.fetchval(_SQL["older_claims"], tenant, endpoint_id, generation)
    return count


async def _changed(connection: Connection, name: str, *arguments: str) -> int:
    with translated():
        status = await connection.execute(_SQL[name], *arguments)
    return int(status.rpartition(" ")[2])
