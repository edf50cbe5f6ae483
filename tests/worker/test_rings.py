"""What a writer to Redis can do to the loop that takes rings."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from hookseal.embedded.server import Server
from hookseal.queue.bell import bell
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.health import BEAT_SECONDS
from tests.faults.tcp_proxy import tcp_proxy
from tests.worker.test_engine import RecordingHandler, beat, ring, running
from tests.worker.waiting import eventually

RUNNING = Path(__file__).parents[2] / "docs" / "guide" / "running.md"
MEGABYTE = 1_000_000
FORGED = [f"01900000-0000-7000-8000-{number:012x}" for number in range(0xF000, 0xF000 + 1_000)]
Poison = Callable[[Redis], Awaitable[object]]


async def sent(client: Redis) -> int:
    """Return how many bytes Redis has sent to all clients."""
    return int((await client.info("stats"))["total_net_output_bytes"])


async def held_for_ever(client: Redis) -> None:
    """Queue a thousand forged ids without jobs, with arq's keys for jobs in progress, without expiry."""
    await client.mset({f"arq:in-progress:{each}": "1" for each in FORGED})
    await client.zadd(DEFAULT_QUEUE, dict.fromkeys(FORGED, 1))


async def held_for_a_day(client: Redis) -> None:
    """Queue a thousand forged ids without jobs, with arq's keys for jobs in progress, for a day."""
    async with client.pipeline(transaction=False) as pipeline:
        for each in FORGED:
            pipeline.set(f"arq:in-progress:{each}", "1", ex=86_400)
        pipeline.zadd(DEFAULT_QUEUE, dict.fromkeys(FORGED, 1))
        await pipeline.execute()


@pytest.mark.req("DUR-06")
@pytest.mark.parametrize("poison", [held_for_ever, held_for_a_day])
async def test_forged_ids_in_progress_stop_nothing(poison: Poison, redis_url: str) -> None:
    """A thousand forged ids marked as in progress stop nothing, and all of their keys are deleted."""
    handler = RecordingHandler()
    async with Redis.from_url(redis_url) as client, running(redis_url, handler) as (_, ringing):
        await poison(client)
        await ringing.ring([ring(1)])
        await handler.wait_until_handled(ring(1))

        async def clean() -> bool:
            return not await client.dbsize()

        await eventually(clean)


async def _large_jobs(client: Redis) -> None:
    for each in FORGED[:3]:
        await client.set(f"arq:job:{each}", b"\x00" * 20 * MEGABYTE)
    await client.zadd(DEFAULT_QUEUE, dict.fromkeys(FORGED[:3], 1))


async def _large_ids(client: Redis) -> None:
    await client.zadd(DEFAULT_QUEUE, {bytes([each]) * 20 * MEGABYTE: 1 for each in b"abc"})


async def _large_holds(client: Redis) -> None:
    for each in FORGED[:3]:
        await client.set(f"arq:in-progress:{each}", b"\x00" * 20 * MEGABYTE)
    await client.zadd(DEFAULT_QUEUE, dict.fromkeys(FORGED[:3], 1))


@pytest.mark.req("DUR-06")
@pytest.mark.parametrize("poison", [_large_jobs, _large_ids, _large_holds])
async def test_large_values_are_not_loaded(poison: Poison, own_valkey: Server) -> None:
    """Jobs, ids and in-progress keys of 20 MB are deleted without being sent to the worker."""
    handler = RecordingHandler()
    async with Redis.from_url(own_valkey.url) as client:
        await poison(client)
        before = await sent(client)
        async with running(own_valkey.url, handler) as (_, ringing):
            await ringing.ring([ring(1)])
            await handler.wait_until_handled(ring(1))

            async def clean() -> bool:
                return not await client.dbsize()

            await eventually(clean)
            assert MEGABYTE > await sent(client) - before


@pytest.mark.req("DUR-06")
async def test_the_documented_redis_rights_suffice(own_valkey: Server) -> None:
    """A Redis user with the rights documented in docs/guide/running.md can run a worker."""
    [line] = [each for each in RUNNING.read_text(encoding="utf-8").splitlines() if "ACL SETUSER" in each]
    async with Redis.from_url(own_valkey.url) as client:
        await cast("Awaitable[object]", client.execute_command(*line.split()))
        await client.acl_setuser("default", enabled=False)
    parts = urlsplit(own_valkey.url)
    url = parts._replace(netloc=f"hookseal:PASSWORD@{parts.hostname}:{parts.port}").geturl()
    handler = RecordingHandler()
    async with running(url, handler) as (_, ringing):
        await ringing.ping()
        await ringing.ring([ring(1)])
        await handler.wait_until_handled(ring(1))
        assert [ring(1)] == await ringing.lost([ring(1)])
        assert 0 == await ringing.depth()


@pytest.mark.req("OPS-01")
async def test_a_distant_redis_does_not_stop_the_beat(own_valkey: Server) -> None:
    """With Redis 10 ms away and hundreds of rings due, the beat of the loop never stops for long."""
    handler, rings = RecordingHandler(), [ring(number) for number in range(300)]
    ringing = bell(own_valkey.url)
    await ringing.ring(rings)
    await ringing.close()
    loop = asyncio.get_running_loop()
    longest = [0.0]
    async with (
        tcp_proxy(own_valkey.port, seconds=0.01) as proxy,
        running(proxy.url(own_valkey.url), handler) as (engine, _),
    ):

        async def all_heard() -> bool:
            longest[0] = max(longest[0], loop.time() - beat(engine))
            return len(set(handler.handled)) == len(rings)

        await eventually(all_heard, within=60)
    assert BEAT_SECONDS / 3 > longest[0]
