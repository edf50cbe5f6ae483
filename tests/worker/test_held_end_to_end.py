"""A whole worker and held endpoints: nothing is lost, and others are not delayed."""

import pytest

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import disable_endpoint, enable_endpoint
from hookseal.operations.secret import clear_caches
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, status

ACME = TenantId("acme")
_FLIP = "UPDATE hookseal.endpoints SET generation = generation + $2 WHERE id = $1::text::uuid"
_WAITING = "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = $1"


async def enable(world: World, endpoint: EndpointId) -> int:
    """Enable the endpoint, and return the number of released deliveries."""
    async with world.pool.acquire() as connection:
        operator = world.installation.operator(connection)
        return (await enable_endpoint(operator, ACME, endpoint, own_drain_seconds=25)).woken


async def waiting(world: World, number: int, waiting_for: str) -> None:
    """Return when that many deliveries wait for that reason."""

    async def look() -> bool:
        return bool(number == await world.pool.fetchval(_WAITING, waiting_for))

    await eventually(look)


@pytest.mark.req("DEL-22")
async def test_a_disabled_endpoints_events_arrive_after_enable(world: World, receiver: Receiver) -> None:
    """Events for a disabled endpoint wait, neither rung nor sent, and are delivered after `enable`, like later ones."""
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
async def test_events_after_a_410_arrive_after_enable(world: World, receiver: Receiver) -> None:
    """A 410 fails its own delivery and disables the endpoint; the others wait, and arrive after `enable`."""
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
async def test_a_refused_secret_delays_no_other_tenant(world: World, receiver: Receiver) -> None:
    """While a secret is refused its deliveries wait and another tenant's arrive; `cache-clear` releases them."""
    altered = (await world.endpoint(f"{receiver.base_url}/hook")).pointer.endpoint_id
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    await world.pool.execute(_FLIP, altered, 1)
    async with world.worker() as worker:
        first = [(await world.publish())[0] for _ in range(3)]
        await waiting(world, 3, "secret")
        later = [(await world.publish(rung=False))[0] for _ in range(20)]
        [other] = await world.publish("globex")
        await world.state(other, "delivered")
        # No worker saw what was published after the endpoint was held.
        assert 1.0 <= (await worker.figures())["hookseal_held_total", "secret"] <= 3.0
        await waiting(world, 23, "secret")
        await world.pool.execute(_FLIP, altered, -1)
        async with world.pool.acquire() as connection:
            assert 23 == (await clear_caches(world.installation.operator(connection))).woken
        for ring in (*first, *later):
            await world.state(ring, "delivered")
    assert 24 == len(receiver.received)
