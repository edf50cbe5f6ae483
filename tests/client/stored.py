"""What a publish stored in PostgreSQL and in Redis."""

import asyncpg
from redis.asyncio import Redis

from hookseal.dispatcher.core.model import Ring
from hookseal.queue.rings import DEFAULT_QUEUE


class Stored:
    """Reads the tables and the queue."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", redis: Redis) -> None:
        self.pool = pool
        self._redis = redis

    async def endpoint(self, tenant: str = "acme") -> None:
        """Insert an endpoint that subscribes to everything."""
        await self.pool.execute(
            "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
            " VALUES ($1, hookseal.uuid7(), 'https://r.example/' || hookseal.uuid7(), '{*}', 'old')",
            tenant,
        )

    async def body(self, event_id: str) -> bytes:
        """Return the body of an event."""
        body: bytes = await self.pool.fetchval("SELECT body FROM hookseal.events WHERE id = $1", event_id)
        return body

    async def count(self, table: str = "events") -> int:
        """Return the number of rows of a table."""
        count: int = await self.pool.fetchval(f"SELECT count(*) FROM hookseal.{table}")  # noqa: S608 -- a name of ours
        return count

    async def delivery_ids(self) -> set[str]:
        """Return the ids of all deliveries."""
        return {row["id"] for row in await self.pool.fetch("SELECT id::text AS id FROM hookseal.deliveries")}

    async def rung(self, queue: str = DEFAULT_QUEUE) -> set[str]:
        """Return the ids of the deliveries that are in the queue."""
        return {member.decode() for member in await self._redis.zrange(queue, 0, -1)}


def ids(deliveries: tuple[Ring, ...]) -> set[str]:
    """Return the ids of these deliveries."""
    return {ring.delivery_id for ring in deliveries}
