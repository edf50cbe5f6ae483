"""The ring after a publish."""

import asyncio

import pytest
from redis.asyncio import Redis

from hookseal.client.doorbell import Doorbell
from hookseal.queue.rings import DEFAULT_QUEUE, rings
from tests.cli.listeners import black_hole
from tests.doubles.claims import DELIVERY, RING


async def test_a_doorbell_rings_the_given_deliveries(redis_url: str) -> None:
    """A doorbell rings the given deliveries and reports no loss."""
    lost: list[str] = []
    doorbell = Doorbell(rings(redis_url), lost.append)
    await doorbell.ring([RING])
    await doorbell.close()

    async with Redis.from_url(redis_url) as redis:
        assert [DELIVERY.encode()] == await redis.zrange(DEFAULT_QUEUE, 0, -1)
    assert [] == lost


async def test_a_doorbell_may_be_closed_twice(redis_url: str) -> None:
    """A closed doorbell rings nothing, and may be closed again."""
    doorbell = Doorbell(rings(redis_url), print)
    await doorbell.close()
    await doorbell.close()
    await doorbell.ring([RING])

    async with Redis.from_url(redis_url) as redis:
        assert 0 == await redis.dbsize()


async def test_a_cancelled_ring_counts_as_failed() -> None:
    """The caller may have a shorter time limit than the doorbell: what it publishes next is left to the outbox."""
    async with black_hole() as (hole, _):
        doorbell = Doorbell(rings(f"redis://127.0.0.1:{hole}/0"), print)
        before = doorbell.rings
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await doorbell.ring([RING])
        after = doorbell.rings
        await doorbell.close()

    assert (True, False) == (before, after)
