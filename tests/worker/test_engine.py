"""The loop that takes rings, on a real Valkey: nothing that lies in Redis, or befalls it, ends the loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import structlog
from redis.asyncio import Redis

from hookseal.dispatcher.model import Ring
from hookseal.embedded.server import Server
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import DeliveryId
from hookseal.queue.bell import DEFAULT_QUEUE, Bell, bell
from hookseal.queue.intake import Dropped, DropReason
from hookseal.worker.arq_worker import MOST_AT_ONCE
from hookseal.worker.engine import Engine
from hookseal.worker.inflight import InFlight
from hookseal.worker.movement import Movement
from hookseal.worker.ring_handler import RingHandler
from tests.doubles.claims import RING
from tests.queue.contents import contents
from tests.worker.waiting import PATIENCE_SECONDS, eventually

POISONED = "01900000-0000-7000-8000-00000000dead"


def ring(number: int) -> Ring:
    """Return the ring of another delivery."""
    return replace(RING, delivery_id=DeliveryId(f"01900000-0000-7000-8000-{number:012d}"))


class Noting(RingHandler):
    """Handles rings by noting their deliveries; what is put into `busy` runs meanwhile."""

    def __init__(
        self, busy: Callable[[], Awaitable[object]] | None = None, *, movement: Movement | None = None
    ) -> None:
        self.movement = movement
        self.heard: list[str] = []
        self.batches: list[int] = []
        self.dropped: list[Dropped] = []
        self.kept: list[Ring] = []
        self.running = 0
        self.down = False
        self._busy = busy

    @property
    def is_down(self) -> bool:
        """Whether PostgreSQL is away."""
        return self.down

    def due(self, most: int) -> list[Ring]:
        """Take out kept rings."""
        found, self.kept = self.kept[:most], self.kept[most:]
        return found

    def next_in(self) -> float | None:
        """Return when the next kept ring is due."""
        return 0.0 if self.kept else None

    async def pause(self, seconds: float) -> None:
        """Wait for a turn of the loop."""
        await asyncio.sleep(0)

    def keep(self, rings: Sequence[Ring], seconds: float = 0.0) -> None:  # type: ignore[override]
        """Keep rings."""
        self.kept += rings

    def leave(self) -> list[Ring]:
        """Take out every kept ring."""
        return self.due(len(self.kept))

    def drop(self, dropped: Dropped) -> None:
        """Note that something was no ring."""
        self.dropped.append(dropped)

    def full(self) -> None:
        """Note that there is no room."""
        if self.movement is not None:
            self.movement.moved()

    async def handle(self, rings: Sequence[Ring]) -> None:
        """Note the deliveries."""
        self.running += 1
        try:
            if self._busy is not None:
                await self._busy()
            self.batches.append(len(rings))
            self.heard += [each.delivery_id for each in rings]
        finally:
            self.running -= 1

    async def hears(self, *rings: Ring, within: float = PATIENCE_SECONDS) -> None:
        """Return once all of these were heard."""
        wanted = {each.delivery_id for each in rings}

        async def all_heard() -> bool:
            return wanted <= set(self.heard)

        await eventually(all_heard, within=within)


@asynccontextmanager
async def running(url: str, noting: Noting, in_flight: InFlight | None = None) -> AsyncIterator[tuple[Engine, Bell]]:
    """Yield an engine that runs, and the bell that rings it; it has stopped afterwards."""
    ringing = bell(url)
    engine = Engine(
        ringing,
        noting,
        InFlight(500) if in_flight is None else in_flight,
        clock=SystemClock(),
        log=structlog.get_logger(),
    )
    task = asyncio.create_task(engine.run())
    try:
        yield engine, ringing
    finally:
        await engine.stop()
        await asyncio.wait_for(task, 60)
        await ringing.close()


@pytest.mark.req("DEL-02")
async def test_rings_are_handled_once(redis_url: str) -> None:
    """Every ring is handled once, and leaves nothing in Redis."""
    noting = Noting()
    rings = [ring(number) for number in range(30)]
    async with running(redis_url, noting) as (_, ringing):
        await ringing.ring(rings)
        await noting.hears(*rings)

    assert sorted(each.delivery_id for each in rings) == sorted(noting.heard)
    assert {} == await contents(redis_url)


@pytest.mark.req("PERF-08", part="batches")
async def test_rings_that_came_together_are_handled_together(redis_url: str) -> None:
    """What is in the queue is taken in batches, none larger than may be claimed in one statement."""
    noting = Noting()
    rings = [ring(number) for number in range(MOST_AT_ONCE + 20)]
    ringing = bell(redis_url)
    await ringing.ring(rings)
    async with running(redis_url, noting):
        await noting.hears(*rings)
    await ringing.close()

    assert [MOST_AT_ONCE, 20] == noting.batches


async def test_the_beat_moves(redis_url: str) -> None:
    """The loop shows that it moves, also when no ring comes."""
    async with running(redis_url, Noting()) as (engine, _):
        before = engine.beat

        async def moved() -> bool:
            return engine.beat > before

        await eventually(moved)


async def test_a_full_worker_takes_nothing(redis_url: str) -> None:
    """While no slot is free rings stay in the queue for other workers, and are taken when one is."""
    in_flight = InFlight(1)
    in_flight.take(1)
    noting = Noting()
    async with running(redis_url, noting, in_flight) as (engine, ringing):
        await ringing.ring([RING])
        for _ in range(2):
            before = engine.beat

            async def moved(since: float = before) -> bool:
                return engine.beat > since

            await eventually(moved)
        assert ([], 1) == (noting.heard, await ringing.depth())
        in_flight.free(1)
        await noting.hears(RING)


async def test_a_worker_without_postgresql_takes_nothing(redis_url: str) -> None:
    """While PostgreSQL does not answer rings stay in the queue for other workers."""
    noting = Noting()
    noting.down = True
    async with running(redis_url, noting) as (_, ringing):
        await ringing.ring([RING])
        for _ in range(20):
            await ringing.ping()
        assert ([], 1) == (noting.heard, await ringing.depth())
        noting.down = False
        await noting.hears(RING)


@pytest.mark.req("DUR-06")
async def test_a_poison_is_dropped_and_what_comes_after_it_handled(redis_url: str) -> None:
    """What is no ring is dropped once, and ends nothing."""
    noting = Noting()
    with structlog.testing.capture_logs() as logs:
        async with Redis.from_url(redis_url) as client, running(redis_url, noting) as (_, ringing):
            await client.zadd(DEFAULT_QUEUE, {POISONED: 1})
            await ringing.ring([ring(2)])
            await noting.hears(ring(2))

    assert ([DropReason.NO_JOB], []) == (
        [each.reason for each in noting.dropped],
        [line for line in logs if line["event"] == "engine.restarted"],
    )


@pytest.mark.req("DUR-06")
async def test_what_another_program_holds_is_of_no_account(redis_url: str) -> None:
    """Keys with which arq holds jobs back, counts tries or aborts, stop no ring, however many there are."""
    noting = Noting()
    rings = [ring(number) for number in range(1_200)]
    async with Redis.from_url(redis_url) as client:
        await client.mset({f"arq:in-progress:{each.delivery_id}": "1" for each in rings})
        await client.mset({f"arq:retry:{each.delivery_id}": "9223372036854775807" for each in rings})
        await client.set("arq:abort", "x")
    async with running(redis_url, noting) as (_, ringing):
        await ringing.ring(rings)
        await noting.hears(*rings)


async def test_connections_that_are_cut(own_valkey: Server) -> None:
    """Connections that Redis closes are opened again, and rings are handled."""
    noting = Noting()
    async with running(own_valkey.url, noting) as (_, ringing), Redis.from_url(own_valkey.url) as client:
        for number in range(3):
            await ringing.ring([ring(number)])
            await noting.hears(ring(number))
            await client.client_kill_filter(_type="normal", skipme=True)


async def test_a_redis_that_stood_still(own_valkey: Server) -> None:
    """A loop that died of a frozen Redis is replaced, and logged, and rings are handled once it goes on."""
    noting = Noting()
    with structlog.testing.capture_logs() as logs:
        async with running(own_valkey.url, noting) as (_, ringing):
            await ringing.ring([ring(1)])
            await noting.hears(ring(1))
            own_valkey.freeze()
            try:

                async def restarted() -> bool:
                    return "engine.restarted" in [line["event"] for line in logs]

                await eventually(restarted)
            finally:
                own_valkey.thaw()
            await ringing.ring([ring(2), ring(3)])
            await noting.hears(ring(3))


async def test_kept_rings_survive_an_outage_of_redis(own_valkey: Server) -> None:
    """What is kept for another try is handled although Redis is away, and is not lost with the loop that died."""
    noting = Noting()
    async with running(own_valkey.url, noting) as (_, ringing):
        await ringing.ring([ring(1)])
        await noting.hears(ring(1))
        own_valkey.freeze()
        try:
            noting.keep([ring(2)])
            await noting.hears(ring(2))
        finally:
            own_valkey.thaw()


async def test_stop_leaves_nothing(redis_url: str) -> None:
    """After `stop` no task of the engine is left."""
    before = asyncio.all_tasks()
    async with running(redis_url, Noting()):
        pass

    assert before == asyncio.all_tasks()


async def test_stop_before_the_first_turn(redis_url: str) -> None:
    """An engine that is stopped before it ran does not begin."""
    ringing = bell(redis_url)
    engine = Engine(ringing, Noting(), InFlight(1), clock=SystemClock(), log=structlog.get_logger())
    await engine.stop()
    await asyncio.wait_for(engine.run(), 60)
    await ringing.close()


@pytest.mark.req("DUR-05")
async def test_stop_under_load(redis_url: str) -> None:
    """When `stop` returns, no batch is handled and none will be; what was taken in vain is in the queue again."""
    ringing = bell(redis_url)
    await ringing.ring([ring(number) for number in range(1_000)])

    async def claim() -> None:
        for _ in range(5):
            await ringing.ping()

    noting = Noting(claim)
    async with running(redis_url, noting) as (engine, _):

        async def some() -> bool:
            return len(noting.heard) > 5

        await eventually(some)
        noting.keep([ring(2_000), ring(2_001)])
        await engine.stop()
        assert 0 == noting.running
        heard = len(noting.heard)
        assert 1_002 == heard + await ringing.depth()
        await asyncio.wait({asyncio.create_task(ringing.ping())})
        assert heard == len(noting.heard)
    await ringing.close()


@pytest.mark.parametrize("wrong", ["burst", "cron_jobs", "allow_abort_jobs", "on_startup"])
async def test_it_takes_nothing_else_of_arq(redis_url: str, wrong: str) -> None:
    """What the loop does not serve (burst, cron, aborts, hooks) cannot be asked for."""
    ringing = bell(redis_url)
    engine = Engine(ringing, Noting(), InFlight(1), clock=SystemClock(), log=structlog.get_logger())
    worker = engine._new_worker()
    await ringing.close()

    assert not getattr(worker, wrong)
    with pytest.raises(TypeError):
        type(worker)(ringing, Noting(), InFlight(1), moved=print, **{wrong: True})
