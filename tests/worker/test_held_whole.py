"""A whole worker, and endpoints that are disabled or refused for a while: nothing is lost, and nothing costs others."""

import pytest

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.caches import clear_caches
from hookseal.operations.endpoint_state import disable_endpoint, enable_endpoint
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, status

ACME = TenantId("acme")
_FLIP = "UPDATE hookseal.endpoints SET generation = generation + $2 WHERE id = $1::text::uuid"
_WAITING = "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = $1"


async def enable(world: World, endpoint: EndpointId) -> int:
    """Enable the endpoint, and return how many deliveries waited for it."""
    async with world.pool.acquire() as connection:
        operator = world.installation.operator(connection)
        return (await enable_endpoint(operator, ACME, endpoint, own_drain_seconds=25)).woken


async def waiting(world: World, number: int, waiting_for: str) -> None:
    """Return once so many wait for that."""

    async def look() -> bool:
        return bool(number == await world.pool.fetchval(_WAITING, waiting_for))

    await eventually(look)


@pytest.mark.req("DEL-22")
async def test_what_is_published_while_it_is_disabled(world: World, receiver: Receiver) -> None:
    """It waits, is neither rung nor sent, and arrives after `enable`; what is published then arrives too."""
    endpoint = (await world.endpoint(f"{receiver.base_url}/hook")).pointer.endpoint_id
    async with world.pool.acquire() as connection:
        await disable_endpoint(world.installation.operator(connection), ACME, endpoint, reason="moves")
    async with world.worker() as worker:
        rings = [(await world.publish(rung=number % 2 == 0))[0] for number in range(4)]

        await waiting(world, 4, "endpoint_disabled")
        assert [] == receiver.received
        assert 4 == await enable(world, endpoint)
        for ring in (*rings, *await world.publish()):
            await world.state(ring, "delivered")
        figures = await worker.figures()
        assert [] == [key for key, value in figures.items() if key[0] == "hookseal_rings_dropped_total" and value]
    assert 5 == len(receiver.received)


@pytest.mark.req("DEL-22")
@pytest.mark.req("DEL-05", part="each-delivery")
async def test_what_is_published_after_a_410(world: World, receiver: Receiver) -> None:
    """A 410 is a pause for all others: they arrive once the endpoint is enabled; the one that it answered is failed."""
    receiver.answers["/hook"] = status(410)
    endpoint = (await world.endpoint(f"{receiver.base_url}/hook")).pointer.endpoint_id
    async with world.worker():
        [gone] = await world.publish()
        await world.state(gone, "failed")
        later = [(await world.publish())[0] for _ in range(3)]
        await waiting(world, 3, "endpoint_disabled")
        del receiver.answers["/hook"]
        assert 3 == await enable(world, endpoint)
        for ring in later:
            await world.state(ring, "delivered")
    assert 4 == len(receiver.received)


@pytest.mark.req("SEC-07")
async def test_a_refused_secret_beside_another_tenant(world: World, receiver: Receiver) -> None:
    """While one endpoint is refused its deliveries wait and another tenant's arrive; `cache-clear` lets them go."""
    spoilt = (await world.endpoint(f"{receiver.base_url}/hook")).pointer.endpoint_id
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    await world.pool.execute(_FLIP, spoilt, 1)
    async with world.worker() as worker:
        first = [(await world.publish())[0] for _ in range(3)]
        await waiting(world, 3, "secret")
        later = [(await world.publish(rung=False))[0] for _ in range(20)]
        [other] = await world.publish("globex")
        await world.state(other, "delivered")
        assert 3.0 == (await worker.figures())["hookseal_held_total", "secret"]
        await waiting(world, 23, "secret")
        await world.pool.execute(_FLIP, spoilt, -1)
        async with world.pool.acquire() as connection:
            assert 23 == (await clear_caches(world.installation.operator(connection))).woken
        for ring in (*first, *later):
            await world.state(ring, "delivered")
    assert 24 == len(receiver.received)
