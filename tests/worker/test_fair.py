"""Lanes in whole workers, with real sockets: an endpoint that hangs, fails or is at its limit delays no other."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.lanes.lane import BREAKER_FAILURES
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.replay import replay_delivery
from tests.doubles.serving import serving
from tests.worker.test_rotation import rotated
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import QUICK, Receiver, World, held, status

HEALTHY = 20
SLOTS = 36
ENDPOINTS = 12
BACKLOG = 14_400
_PUBLISH = "SELECT hookseal.publish($1, 'invoice.paid', '{}'::json) FROM generate_series(1, $2)"
_COUNT = "SELECT count(*) FROM hookseal.deliveries WHERE tenant_id = $1 AND state = 'delivered'"


async def add(world: World, url: str, *, tenant: str, timeout_ms: int = 20_000, concurrency: int | None = None) -> None:
    """Add an endpoint that subscribes to everything."""
    await world.installation.add(
        NewEndpoint(
            tenant_id=TenantId(tenant),
            url=url,
            event_types=("*",),
            settings={"timeout_ms": timeout_ms, "concurrency": concurrency},
        )
    )


async def all_delivered(world: World, tenant: str, number: int) -> None:
    await eventually_equals(number, lambda: world.pool.fetchval(_COUNT, tenant))


@pytest.mark.req("DEL-09")
async def test_a_hanging_tenant_leaves_slots_for_others(world: World, receiver: Receiver) -> None:
    """With 360 deliveries for twelve endpoints that never answer, those of another tenant are sent while all hang."""
    never = asyncio.Event()
    for number in range(ENDPOINTS):
        receiver.answers[f"/hang/{number}"] = held(never)
        await add(world, f"{receiver.base_url}/hang/{number}", tenant="bad")
    await add(world, f"{receiver.base_url}/well", tenant="good")
    await world.pool.execute(_PUBLISH, "bad", 30)
    async with world.worker(HOOKSEAL_CONCURRENCY=str(SLOTS)):
        await receiver.wait_for(SLOTS * 8 // 9 - 1)
        await world.pool.execute(_PUBLISH, "good", HEALTHY)
        await all_delivered(world, "good", HEALTHY)
        ended = await world.pool.fetchval("SELECT count(*) FROM hookseal.attempts WHERE tenant_id = 'bad'")
        never.set()

    assert 0 == ended, "the healthy deliveries waited for a time-out"


@pytest.mark.req("DEL-09")
async def test_an_unrung_backlog_delays_no_other_tenant(world: World, receiver: Receiver) -> None:
    """Behind 14,400 deliveries that a healthy tenant published by SQL, that of another waits for few of them."""
    for number in range(ENDPOINTS):  # so many that none of them is at its limit
        await add(world, f"{receiver.base_url}/many/{number}", tenant="many")
    await add(world, f"{receiver.base_url}/one", tenant="one")
    await world.pool.execute(_PUBLISH, "many", BACKLOG // ENDPOINTS)
    async with world.worker(HOOKSEAL_CONCURRENCY=str(SLOTS)):
        await receiver.wait_for(100)
        await world.pool.execute(_PUBLISH, "one", 1)
        await all_delivered(world, "one", 1)
    waited_for = await world.pool.fetchval(
        "SELECT count(*) FROM hookseal.attempts AS a, hookseal.deliveries AS one, hookseal.attempts AS its"
        " WHERE a.tenant_id = 'many' AND one.tenant_id = 'one' AND its.delivery_id = one.id"
        " AND a.started_at BETWEEN one.created_at AND its.started_at"
    )

    assert waited_for < BACKLOG / 24


def counting(most: list[int]) -> Callable[[], Awaitable[web.Response]]:
    """Return an answer that notes how many requests are being answered at the same time."""
    now = 0

    async def answer() -> web.Response:
        nonlocal now
        now += 1
        most.append(now)
        await asyncio.sleep(0.01)  # so long is it in flight
        now -= 1
        return web.Response(status=200)

    return answer


async def acquainted(world: World) -> None:
    """Return when every worker has seen all others: each has beaten after the first beat of the last one was stored."""

    async def look() -> bool:
        query = "SELECT min(beaten_at) > max(started_at) + interval '1 s' FROM hookseal.workers"
        return bool(await world.pool.fetchval(query))

    await eventually(look)


@pytest.mark.req("DEL-09")
async def test_the_limit_of_an_endpoint_holds_for_all_workers(world: World, receiver: Receiver) -> None:
    """With `--concurrency 3` and two workers no more than three requests are in flight, and every delivery arrives.

    With `--concurrency 1` only one is, though neither worker knows that before its first claim.
    """
    most: list[int] = []
    most_of_one: list[int] = []
    receiver.answers["/few"], receiver.answers["/one"] = counting(most), counting(most_of_one)
    await add(world, f"{receiver.base_url}/few", tenant="acme", concurrency=3)
    await add(world, f"{receiver.base_url}/one", tenant="globex", concurrency=1)

    async with world.worker(module=QUICK), world.worker(module=QUICK):
        await acquainted(world)
        for tenant in ("acme", "globex"):
            await world.pool.execute(_PUBLISH, tenant, 60)
        for tenant in ("acme", "globex"):
            await all_delivered(world, tenant, 60)

    assert (True, 1) == (max(most) <= 3, max(most_of_one))
    assert 120 == len(receiver.received)


@pytest.mark.req("DEL-09")
async def test_a_draining_worker_stops_no_endpoint(world: World, receiver: Receiver) -> None:
    """While a worker that stops waits for a slow receiver, the other one sends what it had no share of before."""
    answer, rounds = asyncio.Event(), 10
    receiver.answers["/slow"] = held(answer)
    await add(world, f"{receiver.base_url}/slow", tenant="slow")
    for number in range(ENDPOINTS):  # so many that each worker has the share of some
        await add(world, f"{receiver.base_url}/few/{number}", tenant="good", concurrency=1)
    async with world.worker(module=QUICK) as one, world.worker(module=QUICK) as other:
        await acquainted(world)
        await world.pool.execute(_PUBLISH, "good", rounds)  # so that both know the limits
        await all_delivered(world, "good", rounds * ENDPOINTS)
        await world.pool.execute(_PUBLISH, "slow", 1)
        await receiver.wait_for(rounds * ENDPOINTS + 1)
        owner = await world.pool.fetchval("SELECT lease_owner FROM hookseal.deliveries WHERE state = 'sending'")
        [stops] = [each for each in (one, other) if each.worker_id == owner]
        stops.send(signal.SIGTERM)
        await world.pool.execute(_PUBLISH, "good", 1)
        await all_delivered(world, "good", (rounds + 1) * ENDPOINTS)
        ended = await world.pool.fetchval("SELECT count(*) FROM hookseal.attempts WHERE tenant_id = 'slow'")
        answer.set()

    assert 0 == ended, "the deliveries waited until the drain ended"


@pytest.mark.req("DEL-10")
async def test_a_lowered_limit_holds_for_the_next_burst(world: World, receiver: Receiver) -> None:
    """After `endpoint update --concurrency`, a worker that knows the old limit does not begin more of a burst."""
    most: list[int] = []
    receiver.answers["/few"] = counting(most)
    await add(world, f"{receiver.base_url}/few", tenant="acme")
    await world.pool.execute(_PUBLISH, "acme", 1)
    async with world.worker():
        await all_delivered(world, "acme", 1)
        await world.pool.execute("UPDATE hookseal.endpoints SET concurrency = 2")
        await world.pool.execute(_PUBLISH, "acme", 30)
        await all_delivered(world, "acme", 31)

    assert max(most) <= 2


@pytest.mark.req("DEL-09")
async def test_a_breaker_opens_after_failures_and_closes_after_a_probe(world: World, receiver: Receiver) -> None:
    """After failures in a row the endpoint gets nothing but a probe; when that is answered, the others follow."""
    receiver.answers["/sick"] = status(503)
    await add(world, f"{receiver.base_url}/sick", tenant="acme")
    await world.pool.execute("UPDATE hookseal.endpoints SET retry_schedule = '{3600}'")  # none is tried twice
    await world.pool.execute(_PUBLISH, "acme", 100)
    open_ = "SELECT count(*) FROM hookseal.held_endpoints WHERE waiting_for = 'breaker' AND released_at IS NULL"
    attempts = "SELECT count(*) FROM hookseal.attempts"
    async with world.worker() as worker:

        async def is_open() -> bool:
            waiting = await world.pool.fetchval("SELECT count(waiting_for) FROM hookseal.deliveries")
            return bool(await world.pool.fetchval(open_) and waiting + await world.pool.fetchval(attempts) == 100)

        await eventually(is_open)
        failed = await world.pool.fetchval(attempts)
        assert BREAKER_FAILURES <= failed < 100
        assert 1.0 == (await worker.figures())["hookseal_breakers_opened_total", None]
        receiver.answers["/sick"] = status(204)
        await world.probe_held()
        await all_delivered(world, "acme", 100 - failed)

    assert 0 == await world.pool.fetchval(open_)
    assert failed == await world.pool.fetchval(
        "SELECT sum(budget_spent) FROM hookseal.deliveries WHERE state = 'pending'"
    )


@pytest.mark.req("OPS-02", part="counted")
async def test_a_slow_receiver_does_not_make_hookseal_late(world: World, receiver: Receiver) -> None:
    """What waits for the one request that its slow endpoint may have is `held`; what is not held begins at once."""

    async def slow() -> web.Response:
        await asyncio.sleep(0.5)  # so long is it in flight
        return web.Response(status=200)

    receiver.answers["/slow"] = slow
    await add(world, f"{receiver.base_url}/slow", tenant="slow", concurrency=1)
    await add(world, f"{receiver.base_url}/well", tenant="well")
    async with world.worker() as worker:
        for tenant in ("slow", "well"):
            await world.pool.execute(_PUBLISH, tenant, 8)
        for tenant in ("slow", "well"):
            await all_delivered(world, tenant, 8)
        found = await worker.figures()
    name = "hookseal_time_to_first_attempt_seconds"
    owed, waited = found[f"{name}_count", "no"], found[f"{name}_count", "yes"]

    assert 16 == owed + waited
    assert 8 <= owed <= 10, "the first of the slow endpoint, and one before its settings are read"
    assert owed == found[f"{name}_bucket", "no 2.5"]
    assert waited > found[f"{name}_bucket", "yes 2.5"]


# An ordered endpoint in whole workers: its deliveries arrive in the order of publishing, whatever happens.


ACME = TenantId("acme")
HELD, DEAD, LAST = 7, 14, 24  # deliveries by number: in flight at the kill, given up at first, the last one


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
        await eventually(lambda: len(self.succeeded) >= number)


@pytest.fixture
async def reader() -> AsyncIterator[tuple[str, Reader]]:
    """Yield the url of a receiver, and the receiver."""
    found = Reader()
    async with serving(found.serve) as url:
        yield url, found


async def ordered(world: World, url: str) -> EndpointId:
    """Add an ordered endpoint that gives a delivery up after three attempts."""
    new = NewEndpoint(
        tenant_id=ACME,
        url=f"{url}/",
        event_types=("*",),
        settings={"timeout_ms": 15_000, "ordered": True, "retry_schedule": (1, 1)},
    )
    return (await world.installation.add(new)).pointer.endpoint_id


async def publish(world: World, reader: Reader, number: int) -> list[Ring]:
    """Publish that many events, and give the receiver their order."""
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
        owner = next(each for each in (first, second) if each.worker_id == lease)
        await owner.kill()
        await world.expire_leases()
        await rotated(world, endpoint, overlap_seconds=3600)
        await world.state(rings[DEAD], "dead_letter")
        rings += await publish(world, found, 1)
        assert list(range(DEAD)) == found.succeeded
        found.is_repaired = True
        await world.installation.act(replay_delivery, rings[DEAD].delivery_id, new_id=False)
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
