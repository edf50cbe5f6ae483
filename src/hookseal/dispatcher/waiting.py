"""What an operator's change does to the deliveries of an endpoint: it releases, tries, waits for, or cancels them."""

from typing import Final

from hookseal.dispatcher.database import translated
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Connection

_SQL: Final = statements("hookseal.dispatcher", "waiting.sql")


async def release(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Have the worker that leads let go what waits for the endpoint, oldest first, once this is committed.

    What waits for one that is disabled goes on waiting, for that. Raises `Unavailable`.
    """
    await _changed(connection, "release", tenant, endpoint_id)


async def probe(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Have the oldest delivery that waits for a secret of the endpoint tried within a second after this is committed.

    The others are let go once it was signed. Raises `Unavailable`.
    """
    await _changed(connection, "probe", tenant, endpoint_id)


async def probe_all(connection: Connection) -> int:
    """Do so for every endpoint whose secret was refused; return how many deliveries wait for a secret.

    Raises `Unavailable`.
    """
    await _changed(connection, "probe_all")
    with translated():
        number: int = await connection.fetchval(_SQL["count_all"])
    return number


async def count(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> int:
    """Return how many deliveries of the endpoint wait. Raises `Unavailable`."""
    with translated():
        number: int = await connection.fetchval(_SQL["count"], tenant, endpoint_id)
    return number


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
