"""Releases, probes, counts and cancels the deliveries of an endpoint for an operator who changes that endpoint."""

from dataclasses import dataclass
from typing import Final

from hookseal.dispatcher.model import WaitingFor
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.postgres.handles import Connection, Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher", "held_deliveries.sql", seconds=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The held deliveries of an enabled endpoint: a release makes `due` of them due.

    If it is ordered, `in_line` others wait behind the `head` of its line, which is None if nothing does.
    """

    due: int
    in_line: int
    head: DeliveryId | None


async def release(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> None:
    """Make the leader release the held deliveries of the endpoint, oldest first, once this is committed.

    If the endpoint is disabled, they stay held for that reason. Raises `Unavailable`.
    """
    await _execute(connection, "release", tenant, endpoint_id)


async def probe(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> WaitingFor | None:
    """Make the leader probe the endpoint within a second after this is committed; return what it is held for, if it is.

    Once the probe was signed, the other deliveries that wait for a secret are released. Raises `Unavailable`.
    """
    held_for = await _SQL.value(connection, "probe", tenant, endpoint_id)
    return None if held_for is None else WaitingFor(held_for)


async def probe_all(connection: Connection) -> int:
    """Make the leader probe every held endpoint; return how many deliveries wait for a secret.

    Raises `Unavailable`.
    """
    await _execute(connection, "probe_all")
    number: int = await _SQL.value(connection, "count_all")
    return number


async def count(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> Held:
    """Return how many deliveries of the endpoint are held. Raises `Unavailable`."""
    [row] = await _SQL.rows(connection, "count", tenant, endpoint_id)
    return Held(due=row["due"], in_line=row["in_line"], head=DeliveryId(row["head"]) if row["in_line"] else None)


async def cancel(connection: Connection, tenant: TenantId, endpoint_id: EndpointId) -> int:
    """Cancel every pending delivery of an endpoint that is being deleted; return how many. Raises `Unavailable`."""
    return await _execute(connection, "cancel", tenant, endpoint_id)


async def older_claims(source: Executor, tenant: TenantId, endpoint_id: EndpointId, generation: int) -> int:
    """Return how many claims with a valid lease have read an older generation of the endpoint.

    If this is 0 after the new generation was committed, it stays 0. Raises `Unavailable`.
    """
    count: int = await _SQL.value(source, "older_claims", tenant, endpoint_id, generation)
    return count


async def _execute(connection: Connection, name: str, *arguments: str) -> int:
    return await _SQL.execute(connection, name, *arguments)
