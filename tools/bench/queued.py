"""Deliveries of hookseal that are published before a worker starts, and awaited until each is recorded."""

import asyncio
from dataclasses import dataclass
from typing import Final

import asyncpg

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.queue.bell import bell
from tools.bench.bodies import order
from tools.bench.plan import Case
from tools.bench.site import ENDPOINTS, MANY, SECURE, SLOW, SLOW_MS, TENANT, WIDE

_LOOK_SECONDS: Final = 0.05
_PUBLISH: Final = """
SELECT p.delivery_id::text, p.endpoint_id::text
  FROM generate_series(1, $2::int) AS n, hookseal.uuid7() AS round,
       LATERAL hookseal.publish_raw($1, 'bench.tick', $3, format('%s-%s', round, n), rings => true) AS p
"""
_STORE: Final = """
SELECT count(*)
  FROM generate_series(1, $2::int) AS n,
       LATERAL hookseal.publish_raw($1, 'bench.tick', $3, format('%s-%s', hookseal.uuid7(), n)) AS p
"""
_UNFINISHED: Final = "SELECT EXISTS (SELECT FROM hookseal.deliveries WHERE state IN ('pending', 'sending'))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Waiting deliveries, and what PostgreSQL spent to store each."""

    rings: tuple[Ring, ...]
    wal_bytes: int


def tenant_of(case: Case) -> str:
    """Return the tenant with the endpoints of the case."""
    if case.endpoints == ENDPOINTS:
        return MANY
    tenant = SLOW if case.receiver_ms == SLOW_MS else (SECURE if case.secure else TENANT)
    return tenant + WIDE if case.limit else tenant


async def published(
    connection: "asyncpg.Connection[asyncpg.Record]", tenant: str, deliveries: int, body_bytes: int
) -> Queued:
    """Publish by SQL until that many deliveries wait; a tenant with many endpoints needs one event for all of them.

    The caller rings them, as the Publisher does.
    """
    events = -(-deliveries // ENDPOINTS) if tenant == MANY else deliveries
    before = await _wal(connection)
    rows = await connection.fetch(_PUBLISH, tenant, events, order(body_bytes).encode())
    wal_bytes = await _wal(connection) - before
    rings = (
        Ring(tenant_id=TenantId(tenant), endpoint_id=EndpointId(row[1]), delivery_id=DeliveryId(row[0])) for row in rows
    )
    return Queued(rings=tuple(rings), wal_bytes=wal_bytes)


async def stored_only(
    connection: "asyncpg.Connection[asyncpg.Record]", tenant: str, events: int, body_bytes: int
) -> int:
    """Publish that many events by SQL without a ring, and return the number of deliveries."""
    return int(await connection.fetchval(_STORE, tenant, events, order(body_bytes).encode()))


async def rung(redis_url: str, queued: Queued) -> None:
    """Ring all of them, as the Publisher does after each event."""
    ringing = bell(redis_url)
    try:
        await ringing.ring(queued.rings)
    finally:
        await ringing.close()


async def all_recorded(connection: "asyncpg.Connection[asyncpg.Record]", patience_seconds: float) -> None:
    """Return once no delivery is pending or being sent. Raises `TimeoutError`."""
    async with asyncio.timeout(patience_seconds):
        while await connection.fetchval(_UNFINISHED):  # noqa: ASYNC110 -- a table tells nobody when it changes
            await asyncio.sleep(_LOOK_SECONDS)


async def size_bytes(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Return the size of the database."""
    return int(await connection.fetchval("SELECT pg_database_size(current_database())"))


async def _wal(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
