"""The ring after a publish."""

from redis.asyncio import Redis

from hookseal.client.doorbell import Doorbell
from hookseal.queue.rings import DEFAULT_QUEUE, rings
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
