"""The bell of a worker: it puts rings into the arq queue, takes them out, and finds those that are lost."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import InvalidResponse

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.clock import Stopwatch, SystemClock
from hookseal.queue.direct import Direct, is_of_replica
from hookseal.queue.rings import ANSWER_SECONDS, DEFAULT_QUEUE, Rings, Url, pool, translate_redis_errors

_PLACEHOLDER: Final = "nobody"  # no delivery id: a worker drops it at once
_READ_BYTES: Final = 8_192
_MAX_READS: Final = 128  # 1 MiB; the largest rings that are taken at once have 80 KiB, in 60 packets of 1.4 KB
MAX_QUEUED: Final = 2_000  # rings in Redis: a larger backlog waits in PostgreSQL


class Bell(Rings):
    """Rings one queue in one Redis, and takes rings out of it. `bell_key` is the key that wakes workers.

    `redis` is for commands that return at once. `waiting` is for the command that waits for rings: it has its own
    connections, which accept no answer larger than rings can be. `stopwatch` has the time of the former, and `answered`
    is called with the seconds of each.
    """

    def __init__(self, redis: Redis, waiting: Direct, queue: str) -> None:
        super().__init__(redis, queue)
        self.redis = redis
        self.waiting = waiting
        self.stopwatch = Stopwatch(SystemClock())
        self.answered: Callable[[float], object] = lambda _seconds: None

    async def ring(self, rings: Iterable[Ring], *, backlogged: Collection[str] = ()) -> int:
        """Put every ring into the queue, as `Rings.ring` does."""
        with self.stopwatch.timed(self.answered):
            return await super().ring(rings, backlogged=backlogged)

    async def ping(self) -> None:
        """Check that Redis would accept and return rings, without leaving anything there. Raises `Unavailable`.

        A Redis that is full, is a replica, or has a value of another type in place of the queue accepts no rings. One
        that does not run scripts for this user returns none.
        """
        with translate_redis_errors():
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.eval("return 1", 0)
                for key in (self.queue, self.bell_key):
                    pipeline.zadd(key, {_PLACEHOLDER: 0}, xx=True)  # XX writes nothing, but needs the right to write
                answers = await pipeline.execute(raise_on_error=False)
            if any(map(is_of_replica, answers)):  # after a failover the name may lead to another server
                await self.redis.connection_pool.disconnect(inuse_connections=False)
            _checked(answers)

    async def lost(self, rings: Sequence[Ring]) -> list[Ring]:
        """Return the rings that are not in the queue, or are queued for a later time. Raises `Unavailable`."""
        if not rings:
            return []
        with translate_redis_errors(), self.stopwatch.timed(self.answered):
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.time()
                pipeline.zmscore(self.queue, [ring.delivery_id for ring in rings])
                (seconds, _), scores = _checked(await pipeline.execute(raise_on_error=False))
        now = (int(seconds) + 1) * 1000
        return [ring for ring, score in zip(rings, scores, strict=True) if score is None or score > now]

    async def depth(self) -> int:
        """Return how many rings are in the queue. Raises `Unavailable`."""
        with translate_redis_errors(), self.stopwatch.timed(self.answered):
            return int(await self.redis.zcard(self.queue))

    async def close(self) -> None:
        """Close every connection."""
        try:
            await super().close()
        finally:
            await self.waiting.close()


def _checked(answers: list[Any]) -> list[Any]:
    """Return the answers. Raises the first error among them, which redis 6 would raise without its text."""
    for error in answers:
        if isinstance(error, Exception):
            raise error
    return answers


class _BoundedParser(DefaultParser):  # type: ignore[misc,valid-type]  # the client declares it as a variable
    """Reads answers as usual, but ends the connection if an answer takes more than 1 MiB.

    The answer to a blocking pop contains a member of the bell, which another writer of Redis may make 512 MB large.
    """

    _reads = 0

    async def read_response(self, *arguments: Any, **options: Any) -> Any:  # those of each version of the client
        self._reads = 0
        return await super().read_response(*arguments, **options)

    async def read_from_socket(self) -> Any:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise InvalidResponse("the answer of Redis is larger than rings can be")
        return await super().read_from_socket()


def bell(url: Url, queue: str = DEFAULT_QUEUE, *, answer_seconds: float = ANSWER_SECONDS) -> Bell:
    """Return a bell that connects at its first use, and waits that long for each answer of Redis.

    The caller must close it.
    """
    redis = Redis(connection_pool=pool(url, answer_seconds))
    waiting = Direct(pool(url, answer_seconds, parser_class=_BoundedParser, socket_read_size=_READ_BYTES))
    return Bell(redis, waiting, queue)
