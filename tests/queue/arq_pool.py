"""The queue as a producer or a worker that uses arq sees it."""

from arq.connections import ArqRedis

from hookseal.queue.bell import Bell
from hookseal.queue.serializer import job_deserializer, job_serializer


def arq_pool(ringing: Bell) -> ArqRedis:
    """Return a pool of arq on the connections of the bell, which closes them."""
    return ArqRedis(
        ringing.redis.connection_pool,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
        default_queue_name=ringing.queue,
    )
