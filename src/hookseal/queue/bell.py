"""The bell: puts rings into the queue of arq. A ring that is lost is forgiven by the sweep."""

from collections.abc import Iterable
from typing import Final

from arq.connections import ArqRedis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import RedisError

from hookseal.dispatcher.model import Ring
from hookseal.ground.errors import Unavailable
from hookseal.queue.serializer import job_deserializer, job_serializer

FUNCTION: Final = "deliver"
DEFAULT_QUEUE: Final = "hookseal:deliveries"
ANSWER_SECONDS: Final = 5.0
_EXPIRES_MS: Final = 3_600_000  # a ring that nobody took for an hour may go: PostgreSQL knows, the sweep rings again


class Bell:
    """Rings one queue on one Redis. `redis` is open for whoever runs an arq worker on the same queue."""

    def __init__(self, redis: ArqRedis, queue: str) -> None:
        self.redis = redis
        self._queue = queue

    async def ring(self, rings: Iterable[Ring]) -> int:
        """Put every ring into the queue, due now; return how many were put.

        An id that is queued already is due now at the latest. Raises `Unavailable`; what was rung stays rung.
        """
        count = 0
        try:
            for ring in rings:
                await self._put(ring)
                count += 1
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis does not answer ({type(error).__name__})") from error
        return count

    async def ping(self) -> None:
        """Return once Redis answers. Raises what the client raises if it does not."""
        await self.redis.ping()

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose(close_connection_pool=True)

    async def _put(self, ring: Ring) -> None:
        job = await self.redis.enqueue_job(
            FUNCTION, ring.tenant_id, ring.endpoint_id, ring.delivery_id, _job_id=ring.delivery_id
        )
        if job is None:  # arq leaves a queued id as it is; LT also brings back an id that only its job key remembers
            seconds, microseconds = await self.redis.time()
            due = seconds * 1000 + microseconds // 1000
            await self.redis.zadd(self._queue, {ring.delivery_id: due}, lt=True)


def bell(url: str, queue: str = DEFAULT_QUEUE) -> Bell:
    """Return a bell that connects when it is first used. Whoever made it closes it."""
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        socket_keepalive=True,
        health_check_interval=15,
    )
    redis = ArqRedis(
        pool,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
        default_queue_name=queue,
        expires_extra_ms=_EXPIRES_MS,
    )
    return Bell(redis, queue)
