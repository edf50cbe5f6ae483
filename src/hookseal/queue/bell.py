"""The bell: puts rings into the queue of arq. A ring that is lost is forgiven by the sweep."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis._parsers import _AsyncHiredisParser
from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import InvalidResponse

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
_READS: Final = 8  # of 64 KiB each: what waits for a ring gets an answer of 200 bytes, in one or two
_CHUNK: Final = 500  # rings in one round trip: enough to make the way cheap, too few to hold Redis up


class Bell:
    """Rings one queue on one Redis.

    `redis` is open for whoever takes from the queue, and `waiting` for whoever waits for rings: it has connections of
    its own, which take no answer that is larger than a ring may be.
    """

    def __init__(self, redis: ArqRedis, waiting: Redis, queue: str) -> None:
        self.redis = redis
        self.waiting = waiting
        self.queue = queue

    async def ring(self, rings: Iterable[Ring]) -> int:
        """Put every ring into the queue, due now; return how many were put.

        An id that is queued already is due now at the latest. Raises `Unavailable`; what was rung stays rung.
        """
        remaining = iter(rings)
        count, due_ms = 0, None
        with redis_translated():
            while chunk := tuple(islice(remaining, _CHUNK)):
                due_ms = due_ms or await self._due_ms()
                await self._put(chunk, due_ms)
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
                pipeline.zadd(self.queue, {_NOBODY: 0}, xx=True)  # to write nothing is a write all the same
                await pipeline.execute()

    async def lost(self, rings: Sequence[Ring]) -> list[Ring]:
        """Return those that are not in the queue, or stand there behind all that is due now. Raises `Unavailable`."""
        if not rings:
            return []
        with redis_translated():
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.time()
                pipeline.zmscore(self.queue, [ring.delivery_id for ring in rings])
                (seconds, _), scores = await pipeline.execute()
        now = (int(seconds) + 1) * 1000
        return [ring for ring, score in zip(rings, scores, strict=True) if score is None or score > now]

    async def depth(self) -> int:
        """Return how many rings are in the queue. Raises `Unavailable`."""
        with redis_translated():
            return int(await self.redis.zcard(self.queue))

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose(close_connection_pool=True)
        await self.waiting.aclose(close_connection_pool=True)

    async def _due_ms(self) -> int:
        seconds, microseconds = await self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000 - MARGIN_MS

    async def _put(self, rings: Sequence[Ring], due_ms: int) -> None:
        async with self.redis.pipeline(transaction=False) as pipeline:
            for ring in rings:
                arguments = (ring.tenant_id, ring.endpoint_id, ring.delivery_id)
                job = serialize_job(FUNCTION, arguments, {}, None, due_ms, serializer=job_serializer)
                # The job first: an id without one is dropped by whoever takes it.
                pipeline.psetex(job_key_prefix + ring.delivery_id, _EXPIRES_MS, job)
                pipeline.zadd(self.queue, {ring.delivery_id: due_ms}, lt=True)
            await pipeline.execute()


class _BoundedParser(_AsyncHiredisParser):
    """Reads answers as any connection does; one that takes more than 512 KiB ends the connection.

    A member of the queue comes with the answer to whoever waits for it, and a writer of Redis may make it 512 MB.
    """

    _read = 0

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002 -- the client's own
        self._read = 0
        return await super().read_response(disable_decoding=disable_decoding)

    async def read_from_socket(self) -> Any:
        self._read += 1
        if self._read > _READS:
            raise InvalidResponse("an answer of Redis is larger than a ring")
        return await super().read_from_socket()  # type: ignore[no-untyped-call]


def bell(url: str, queue: str = DEFAULT_QUEUE, *, answer_seconds: float = ANSWER_SECONDS) -> Bell:
    """Return a bell that connects when it is first used, and waits that long for each answer of Redis.

    Whoever made it closes it.
    """
    redis = ArqRedis(
        _pool(url, answer_seconds),
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
        default_queue_name=queue,
        expires_extra_ms=_EXPIRES_MS,
    )
    waiting = Redis(connection_pool=_pool(url, answer_seconds, parser_class=_BoundedParser))
    return Bell(redis, waiting, queue)


def _pool(url: str, answer_seconds: float, **options: Any) -> ConnectionPool:
    return ConnectionPool.from_url(
        url,
        socket_timeout=answer_seconds,
        socket_connect_timeout=answer_seconds,
        socket_keepalive=True,
        health_check_interval=15,
        **options,
    )
