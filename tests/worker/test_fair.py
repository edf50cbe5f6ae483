"""Lanes in whole workers, with real sockets: an endpoint that hangs, fails or is at its limit delays no other."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from hookseal.dispatcher.lanes.lane import BREAKER_FAILURES
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, held, receiving, status

HEALTHY = 20
SLOTS = 36
ENDPOINTS = 12
BACKLOG = 14_400
_PUBLISH = "SELECT hookseal.publish($1, 'invoice.paid', '{}'::json) FROM generate_series(1, $2)"
_COUNT = "SELECT count(*) FROM hookseal.deliveries WHERE tenant_id = $1 AND state = 'delivered'"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Yield a receiver on this machine."""
    async with receiving() as found:
        yield found


async def add(world: World, url: str, *, tenant: str, timeout_ms: int = 20_000, concurrency: int | None = None) -> None:
    """Add an endpoint that subscribes to everything."""
    await world.installation.add(
        NewEndpoint(
            tenant_id=TenantId(tenant),
            url=url,
            event_types=("*",),
            timeout_ms=timeout_ms,
            concurrency=concurrency,
        )
    )


async def all_delivered(world: World, tenant: str, number: int) -> None:
    """Return when that many deliveries of the tenant are delivered."""

    async def look() -> bool:
        return bool(number == await world.pool.fetchval(_COUNT, tenant))

    await eventually(look)


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

    async with world.worker(), world.worker():
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
    async with world.worker() as one, world.worker() as other:
        await acquainted(world)
        await world.pool.execute(_PUBLISH, "good", rounds)  # so that both know the limits
        await all_delivered(world, "good", rounds * ENDPOINTS)
        await world.pool.execute(_PUBLISH, "slow", 1)
        await receiver.wait_for(rounds * ENDPOINTS + 1)
        owner = await world.pool.fetchval("SELECT lease_owner FROM hookseal.deliveries WHERE state = 'sending'")
        [stops] = [each for each in (one, other) if each.process.ready["worker_id"] == owner]
        os.kill(stops.pid, signal.SIGTERM)
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
        await world.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
        await all_delivered(world, "acme", 100 - failed)

    assert 0 == await world.pool.fetchval(open_)
    assert failed == await world.pool.fetchval(
        "SELECT sum(budget_spent) FROM hookseal.deliveries WHERE state = 'pending'"
    )
