"""An ordered endpoint in whole workers: its deliveries arrive in the order of publishing, whatever happens."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.replay import replay_delivery
from tests.doubles.serving import serving
from tests.worker.test_rotation import rotated
from tests.worker.waiting import eventually
from tests.worker.world import World

ACME = TenantId("acme")
HELD, DEAD, LAST = 7, 14, 24  # deliveries by number: in flight at the kill, given up at first, the last one
EXPIRED = "UPDATE hookseal.deliveries SET lease_expires_at = now() WHERE state = 'sending' AND lease_owner = $1"


@dataclass
class Reader:
    """A receiver that fails some attempts, and notes in which order deliveries began and succeeded."""

    numbers: dict[str, int] = field(default_factory=dict)
    succeeded: list[int] = field(default_factory=list)
    overtook: list[tuple[int, list[int]]] = field(default_factory=list)
    tried: set[int] = field(default_factory=set)
    answering: int = 0
    most: int = 0
    is_repaired: bool = False
    holds: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: web.Request) -> web.Response:
        """Answer, and note whether a delivery before this one has not succeeded yet."""
        number = self.numbers[request.headers["webhook-id"]]
        if number > len(self.succeeded):
            self.overtook.append((number, list(self.succeeded)))
        is_first = number not in self.tried
        self.tried.add(number)
        if number == HELD and is_first:
            self.holds.set()
            await asyncio.Event().wait()  # its worker is killed meanwhile
        if (number % 4 == 1 and is_first) or (number == DEAD and not self.is_repaired):
            return web.Response(status=500)
        if number not in self.succeeded:
            self.succeeded.append(number)
        return web.Response(status=204)

    async def has(self, number: int) -> None:
        """Return once that many deliveries have succeeded."""

        async def look() -> bool:
            return len(self.succeeded) >= number

        await eventually(look)


@pytest.fixture
async def reader() -> AsyncIterator[tuple[str, Reader]]:
    """Yield the url of a receiver, and the receiver."""
    found = Reader()
    async with serving(found.serve) as url:
        yield url, found


async def ordered(world: World, url: str) -> EndpointId:
    """Add an ordered endpoint that gives a delivery up after three attempts."""
    new = NewEndpoint(
        tenant_id=ACME, url=f"{url}/", event_types=("*",), timeout_ms=2_000, ordered=True, retry_schedule=(1, 1)
    )
    return (await world.installation.add(new)).pointer.endpoint_id


async def publish(world: World, reader: Reader, number: int) -> list[Ring]:
    """Publish that many events, and tell the receiver their order."""
    rings = []
    for _ in range(number):
        (ring,) = await world.publish()
        reader.numbers[ring.delivery_id] = len(reader.numbers)
        rings.append(ring)
    return rings


@pytest.mark.req("DEL-17")
async def test_two_workers_keep_the_order(world: World, reader: tuple[str, Reader]) -> None:
    """Two workers keep the order through retries, a kill, a rotation, a dead letter and its replay."""
    url, found = reader
    endpoint = await ordered(world, url)
    async with world.worker() as first, world.worker() as second:
        rings = await publish(world, found, LAST)
        await found.holds.wait()
        lease = await world.pool.fetchval("SELECT lease_owner FROM hookseal.deliveries WHERE state = 'sending'")
        owner = next(each for each in (first, second) if each.process.ready["worker_id"] == lease)
        os.kill(owner.pid, signal.SIGKILL)
        assert -signal.SIGKILL == await owner.ended()
        await world.pool.execute(EXPIRED, lease)
        await rotated(world, endpoint, overlap_seconds=3600)
        await world.state(rings[DEAD], "dead_letter")
        rings += await publish(world, found, 1)
        assert list(range(DEAD)) == found.succeeded
        found.is_repaired = True
        async with world.pool.acquire() as connection:
            await replay_delivery(world.installation.operator(connection), rings[DEAD].delivery_id, new_id=False)
        await found.has(LAST + 1)
        await world.state(rings[LAST], "delivered")

    assert [] == found.overtook
    assert list(range(LAST + 1)) == found.succeeded
    assert 0 == await world.pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE position IS NOT NULL")


@pytest.mark.req("DEL-17")
async def test_the_next_delivery_of_a_line_needs_no_ring(world: World, reader: tuple[str, Reader]) -> None:
    """A delivery behind the head is sent without a ring, as soon as the one before it is recorded."""
    url, found = reader
    await ordered(world, url)
    found.tried = set(range(LAST))  # it fails none
    found.is_repaired = True
    rings = await publish(world, found, LAST)
    async with world.worker() as worker:
        await world.state(rings[-1], "delivered")
        rung = (await worker.figures())["hookseal_rings_total", "outbox"]

    assert list(range(LAST)) == found.succeeded
    assert rung < LAST / 2
