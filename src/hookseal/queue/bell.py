"""The bell: puts rings into the queue of arq. A ring that is lost is forgiven by the sweep."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio.connection import ConnectionPool

from hookseal.dispatcher.model import Ring
from hookseal.queue.outage import redis_translated
from hookseal.queue.serializer import job_deserializer, job_serializer

FUNCTION: Final = "deliver"
DEFAULT_QUEUE: Final = "hookseal:deliveries"
ANSWER_SECONDS: Final = 5.0
# What we ring is due now. A worker of arq compares the time of a ring with its clock, which may be set back by hours or
# by years: so the time is ten years earlier. Not one time for all: who was rung first is taken first.
MARGIN_MS: Final = 10 * 365 * 86_400_000
_EXPIRES_MS: Final = 3_600_000  # a ring that nobody took for an hour may go: PostgreSQL knows, the sweep rings again
_NOBODY: Final = "nobody"  # what is queued under this id is thrown out at once
_CHUNK: Final = 500  # rings in one round trip: enough to make the way cheap, too few to hold Redis up


class Bell:
    """Rings one queue on one Redis. `redis` is open for whoever runs an arq worker on the same queue."""

    def __init__(self, redis: ArqRedis, queue: str) -> None:
        self.redis = redis
        self._queue = queue

    async def ring(self, rings: Iterable[Ring], *, again: bool = False) -> int:
        """Put every ring into the queue, due now; return how many were put.

        An id that is queued already is due now at the latest. With `again` it is free, too, if arq holds it back for a
        worker that may be dead: should that one live, only one of the two will claim. Raises `Unavailable`; what was
        rung stays rung.
        """
        remaining = iter(rings)
        count, due_ms = 0, None
        with redis_translated():
            while chunk := tuple(islice(remaining, _CHUNK)):
                due_ms = due_ms or await self._due_ms()
                await self._put(chunk, due_ms, again=again)
                count += len(chunk)
        return count

    async def ping(self) -> None:
        """Return once Redis answers that it would take and give rings, and leave nothing there. Raises `Unavailable`.

        One that is full, a replica, or has something else in the place of the queue answers, and takes none. One that
        runs no scripts for us gives none.
        """
        with redis_translated():
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.eval("return 1", 0)
                pipeline.zadd(self._queue, {_NOBODY: 0}, xx=True)  # to write nothing is a write all the same
                await pipeline.execute()

    async def lost(self, rings: Sequence[Ring]) -> list[Ring]:
        """Return those that nobody may take now: not in the queue, there for later, or held back by arq.

        Raises `Unavailable`.
        """
        if not rings:
            return []
        ids: list[str] = [ring.delivery_id for ring in rings]
        with redis_translated():
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.time()
                pipeline.zmscore(self._queue, ids)
                for each in ids:
                    pipeline.exists(in_progress_key_prefix + each)  # whatever lies there, however large
                (seconds, _), scores, *held = await pipeline.execute()
        return [
            ring
            for ring, score, taken in zip(rings, scores, held, strict=True)
            if score is None or score > (int(seconds) + 1) * 1000 or taken
        ]

    async def depth(self) -> int:
        """Return how many rings are in the queue. Raises `Unavailable`."""
        with redis_translated():
            return int(await self.redis.zcard(self._queue))

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose(close_connection_pool=True)

    async def _due_ms(self) -> int:
        seconds, microseconds = await self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000 - MARGIN_MS

    async def _put(self, rings: Sequence[Ring], due_ms: int, *, again: bool) -> None:
        async with self.redis.pipeline(transaction=False) as pipeline:
            for ring in rings:
                arguments = (ring.tenant_id, ring.endpoint_id, ring.delivery_id)
                job = serialize_job(FUNCTION, arguments, {}, None, due_ms, serializer=job_serializer)
                # The job first: an id without one is dropped by whoever takes it.
                pipeline.psetex(job_key_prefix + ring.delivery_id, _EXPIRES_MS, job)
                pipeline.zadd(self._queue, {ring.delivery_id: due_ms}, lt=True)
            if again:
                pipeline.unlink(*(in_progress_key_prefix + ring.delivery_id for ring in rings))
            await pipeline.execute()


def bell(url: str, queue: str = DEFAULT_QUEUE, *, answer_seconds: float = ANSWER_SECONDS) -> Bell:
    """Return a bell that connects when it is first used, and waits that long for each answer of Redis.

    Whoever made it closes it.
    """
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=answer_seconds,
        socket_connect_timeout=answer_seconds,
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
