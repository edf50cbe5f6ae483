"""What a publish stored in PostgreSQL and in Redis."""

from redis.asyncio import Redis

from hookseal.dispatcher.core.model import Ring
from hookseal.postgres.pool import Pool
from hookseal.queue.rings import DEFAULT_QUEUE
from tests import rows


class Stored:
    """Reads the tables and the queue."""

    def __init__(self, pool: Pool, redis: Redis) -> None:
        self.pool = pool
        self._redis = redis

    async def endpoint(self, tenant: str = "acme") -> None:
        """Insert an endpoint that subscribes to everything."""
        await rows.endpoint(self.pool, tenant, secret="old")

    async def body(self, event_id: str) -> bytes:
        body: bytes = await self.pool.fetchval("SELECT body FROM hookseal.events WHERE id = $1", event_id)
        return body

    async def count(self, table: str = "events") -> int:
        """Return the number of rows of a table."""
        count: int = await self.pool.fetchval(f"SELECT count(*) FROM hookseal.{table}")  # noqa: S608 -- a name of ours
        return count

    async def delivery_ids(self) -> set[str]:
        return {row["id"] for row in await self.pool.fetch("SELECT id::text AS id FROM hookseal.deliveries")}

    async def rung(self, queue: str = DEFAULT_QUEUE) -> set[str]:
        """Return the ids of the deliveries that are in the queue."""
        return {member.decode() for member in await self._redis.zrange(queue, 0, -1)}


def ids(deliveries: tuple[Ring, ...]) -> set[str]:
    return {ring.delivery_id for ring in deliveries}
