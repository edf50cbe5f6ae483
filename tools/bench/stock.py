"""The second baseline: arq's own worker, tuned; it signs with a secret in memory and records nothing."""

import base64
import hmac
import os
import sys
import time
from typing import Any, Final, cast

import aiohttp
import uvloop
from arq import Worker, func
from arq.connections import ArqRedis
from arq.typing import StartupShutdown
from redis.asyncio.connection import ConnectionPool

from hookseal.queue.serializer import job_deserializer, job_serializer

QUEUE: Final = "bench:stock"


async def post(context: dict[Any, Any], delivery_id: str, body: bytes) -> None:
    """Sign the body and POST it; a failure is arq's to tell."""
    timestamp = int(time.time())
    digest = hmac.digest(context["secret"], b"%b.%d.%b" % (delivery_id.encode(), timestamp, body), "sha256")
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        "content-type": "application/json",
    }
    async with context["session"].post(context["url"], data=body, headers=headers) as response:
        await response.read()


async def started(context: dict[Any, Any]) -> None:
    """Open the one session of the worker."""
    context["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    context["secret"] = os.urandom(32)
    print("ready", flush=True)


async def main(url: str, redis_url: str, concurrency: int) -> None:
    """Work until it is killed."""
    worker = Worker(
        functions=[func(post, name="post")],  # type: ignore[arg-type]
        queue_name=QUEUE,
        redis_pool=ArqRedis(ConnectionPool.from_url(redis_url)),
        max_jobs=concurrency,
        queue_read_limit=5 * concurrency,
        poll_delay=0.01,
        keep_result=0,
        job_completion_wait=1,
        on_startup=cast("StartupShutdown", started),
        ctx={"url": url},
        log_results=False,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
    )
    await worker.async_run()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
