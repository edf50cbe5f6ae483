"""The loop that takes rings, on a real Valkey: nothing that lies in Redis ends it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest
import structlog
from redis.asyncio import Redis

from hookseal.dispatcher.model import Ring
from hookseal.embedded.server import Server
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import DeliveryId
from hookseal.queue.bell import DEFAULT_QUEUE, Bell, bell
from hookseal.queue.taking import Dropped
from hookseal.worker import engine as engines
from hookseal.worker.engine import Engine
from hookseal.worker.inflight import InFlight
from hookseal.worker.movement import Movement
from hookseal.worker.tasks import Answering
from tests.doubles.claims import RING
from tests.queue.contents import contents
from tests.worker.waiting import PATIENCE_SECONDS, eventually

POISONED = "01900000-0000-7000-8000-00000000dead"


def ring(number: int) -> Ring:
    """Return the ring of another delivery."""
    return replace(RING, delivery_id=DeliveryId(f"01900000-0000-7000-8000-{number:012d}"))


class Noting(Answering):
    """Answers rings by noting the delivery; what is put into `busy` runs meanwhile."""

    def __init__(
        self, busy: Callable[[], Awaitable[object]] | None = None, *, movement: Movement | None = None
    ) -> None:
        self.movement = movement or Movement(SystemClock(), sweep_seconds=15)
        self.heard: list[str] = []
        self.dropped: list[Dropped] = []
        self.running = 0
        self._busy = busy

    async def deliver(self, _ctx: dict[Any, Any], *arguments: Any) -> None:
        """Note the last argument."""
        self.running += 1
        try:
            if self._busy is not None:
                await self._busy()
            self.heard.append(arguments[-1])
        finally:
            self.running -= 1

    def drop(self, dropped: Dropped) -> None:
        """Note that something was no ring."""
        self.dropped.append(dropped)

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
        DEFAULT_QUEUE,
        noting,
        InFlight(10) if in_flight is None else in_flight,
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
async def test_rings_are_answered_once(redis_url: str) -> None:
    """Every ring calls `deliver` once with the ids as text, and leaves nothing in Redis."""
    noting = Noting()
    rings = [ring(number) for number in range(30)]
    async with running(redis_url, noting) as (_, ringing):
        await ringing.ring(rings)
        await noting.hears(*rings)

    assert sorted(each.delivery_id for each in rings) == sorted(noting.heard)
    assert {} == await contents(redis_url)


async def test_the_beat_moves(redis_url: str) -> None:
    """The loop tells that it moves, also when nobody rings."""
    async with running(redis_url, Noting()) as (engine, _):
        before = engine.beat

        async def moved() -> bool:
            return engine.beat > before

        await eventually(moved)


async def test_a_full_worker_takes_nothing(redis_url: str) -> None:
    """While no slot is free rings stay in the queue for other workers, and are taken when one is."""
    in_flight = InFlight(1)
    await in_flight.slot()
    noting = Noting()
    async with running(redis_url, noting, in_flight) as (engine, ringing):
        for rings in ([], [RING]):  # it sees that it is full at its first beat, and then what it does not take
            await ringing.ring(rings)
            for _ in range(2):
                before = engine.beat

                async def moved(since: float = before) -> bool:
                    return engine.beat > since

                await eventually(moved)
        assert [] == noting.heard
        in_flight.free()
        await noting.hears(RING)


async def _is_empty(url: str) -> bool:
    async with Redis.from_url(url) as client:
        keys: int = await client.dbsize()
    return keys == 0


def _job(**changes: object) -> bytes:
    return msgspec.msgpack.encode({"t": None, "f": "deliver", "a": ["x"], "k": {}, "et": 1} | changes)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\x80\x04\x95", id="pickle"),
        pytest.param(b"", id="nothing"),
        pytest.param(_job(f="drop_everything"), id="unknown-function"),
        pytest.param(_job(a=7), id="arguments-that-are-none"),
        pytest.param(_job(k={"tenant_id": "acme"}), id="named-arguments"),
        pytest.param(None, id="no-job-at-all"),
    ],
)
async def test_a_poisoned_job_is_thrown_out(value: bytes | None, redis_url: str) -> None:
    """A job that cannot be run leaves the queue at once, and what was rung after it is answered."""
    noting = Noting()
    async with Redis.from_url(redis_url) as client:
        if value is not None:
            await client.set(f"arq:job:{POISONED}", value)
        await client.zadd(DEFAULT_QUEUE, {POISONED: 1})
    async with running(redis_url, noting) as (_, ringing):
        await ringing.ring([RING])
        await noting.hears(RING)

        async def clean() -> bool:
            return await _is_empty(redis_url)

        await eventually(clean)
    assert [RING.delivery_id] == noting.heard


Poison = Callable[[Redis], Awaitable[None]]


def _spoilt(**changes: object) -> Poison:
    async def poison(client: Redis) -> None:
        await client.set(f"arq:job:{POISONED}", _job(**changes))
        await client.zadd(DEFAULT_QUEUE, {POISONED: 1})

    return poison


def _tries(value: str) -> Poison:
    async def poison(client: Redis) -> None:
        await client.set(f"arq:job:{POISONED}", _job())
        await client.set(f"arq:retry:{POISONED}", value)
        await client.zadd(DEFAULT_QUEUE, {POISONED: 1})

    return poison


def _list(key: str) -> Poison:
    async def poison(client: Redis) -> None:
        await client.set(f"arq:job:{POISONED}", _job())
        await client.delete(key)
        await cast("Awaitable[int]", client.rpush(key, "x"))
        await client.zadd(DEFAULT_QUEUE, {POISONED: 1})

    return poison


def _id(value: bytes, score: float = 1) -> Poison:
    async def poison(client: Redis) -> None:
        await client.set(f"arq:job:{POISONED}", _job(), px=1)  # whatever the id, no job is left behind
        await client.zadd(DEFAULT_QUEUE, {value: score})

    return poison


@pytest.mark.req("DUR-06")
@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(_list(f"arq:job:{POISONED}"), id="job-of-another-kind"),
        pytest.param(_list(f"arq:retry:{POISONED}"), id="tries-of-another-kind"),
        pytest.param(_list("arq:abort"), id="aborts-of-another-kind"),
        pytest.param(_tries("many"), id="no-number-of-tries"),
        pytest.param(_tries("9223372036854775807"), id="all-tries-there-are"),
        pytest.param(_tries("1000001"), id="too-many-tries"),
        pytest.param(_spoilt(f=["deliver"]), id="function-that-is-no-text"),
        pytest.param(_spoilt(et=None), id="no-time"),
        pytest.param(_spoilt(et="yesterday"), id="time-that-is-no-number"),
        pytest.param(_spoilt(et=1e300), id="time-beyond-all-calendars"),
        pytest.param(_spoilt(t="twice"), id="try-that-is-no-number"),
        pytest.param(_spoilt(t=1_000_001), id="try-beyond-the-last"),
        pytest.param(_id(b"\xff\xfe"), id="id-that-is-no-text"),
        pytest.param(_id(POISONED.encode(), float("-inf")), id="due-before-all-time"),
        pytest.param(_id(POISONED.encode(), 0), id="due-at-no-time"),
    ],
)
async def test_a_poison_that_arq_chokes_on(poison: Poison, redis_url: str) -> None:
    """What arq's own loop dies of, or never takes, is thrown out at once and told, and ends nothing.

    What is rung before and after it is answered.
    """
    noting = Noting()
    with structlog.testing.capture_logs() as logs:
        async with Redis.from_url(redis_url) as client, running(redis_url, noting) as (_, ringing):
            await ringing.ring([ring(1)])
            await noting.hears(ring(1))
            await poison(client)
            await ringing.ring([ring(2)])
            await noting.hears(ring(2))

            async def clean() -> bool:
                return await _is_empty(redis_url)

            await eventually(clean)

    assert [] == [line for line in logs if line["event"] == "engine.restarted"]
    assert (1 if "x" not in noting.heard else 0) == len(noting.dropped)


@pytest.mark.req("DUR-06")
@pytest.mark.parametrize("end", ["never", "with-an-error", "cancelled"])
async def test_a_job_that_ends_badly(redis_url: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that does not end, fails or is cancelled is over for arq and leaves nothing; rung again it is answered."""
    monkeypatch.setattr(engines, "JOB_SECONDS", 0.3)
    never, first = asyncio.Event(), [True]

    async def badly() -> None:
        if first and first.pop():
            match end:
                case "never":
                    await never.wait()
                case "cancelled":
                    raise asyncio.CancelledError
                case _:
                    raise RuntimeError("a defect")

    noting = Noting(badly)
    with structlog.testing.capture_logs() as logs:
        async with running(redis_url, noting) as (_, ringing):
            await ringing.ring([ring(1)])

            async def over() -> bool:
                return not first and await _is_empty(redis_url)

            await eventually(over)
            await ringing.ring([ring(1), ring(2)])
            await noting.hears(ring(1), ring(2))
    assert [] == [line for line in logs if line["event"] == "engine.restarted"]


@pytest.mark.req("DUR-06")
async def test_no_hooks(redis_url: str) -> None:
    """Arq is given no hook: an error in one would end its worker, and no hook is told of what arq drops."""
    async with running(redis_url, Noting()) as (engine, _):
        worker = engine._new_worker()
    hooks = (worker.on_startup, worker.on_shutdown, worker.on_job_start, worker.on_job_end, worker.after_job_end)
    assert (None,) * 5 == hooks


async def test_connections_that_are_cut(own_valkey: Server) -> None:
    """Connections that Redis closes are opened again, and rings are answered."""
    noting = Noting()
    async with running(own_valkey.url, noting) as (_, ringing), Redis.from_url(own_valkey.url) as client:
        for number in range(3):
            await ringing.ring([ring(number)])
            await noting.hears(ring(number))
            await client.client_kill_filter(_type="normal", skipme=True)


async def test_a_redis_that_stood_still(own_valkey: Server) -> None:
    """A worker of arq that died of a frozen Redis is replaced, told, and rings are answered once it goes on."""
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
            await ringing.ring([ring(2)])
            await noting.hears(ring(2))


async def test_stop_leaves_nothing(redis_url: str) -> None:
    """After `stop` no task of the engine is left."""
    before = asyncio.all_tasks()
    async with running(redis_url, Noting()):
        pass

    assert before == asyncio.all_tasks()


async def test_stop_before_the_first_turn(redis_url: str) -> None:
    """An engine that is stopped before it ran does not begin."""
    ringing = bell(redis_url)
    clock = SystemClock()
    engine = Engine(ringing, DEFAULT_QUEUE, Noting(), InFlight(1), clock=clock, log=structlog.get_logger())
    await engine.stop()
    await asyncio.wait_for(engine.run(), 60)
    await ringing.close()


async def test_stop_under_load(redis_url: str) -> None:
    """When `stop` returns, no job runs and none will begin, however many rings wait: what is taken now is all."""
    ringing = bell(redis_url)
    await ringing.ring([ring(number) for number in range(200)])

    async def claim() -> None:
        for _ in range(5):
            await ringing.ping()

    noting = Noting(claim)
    async with running(redis_url, noting, InFlight(500)) as (engine, _):

        async def some() -> bool:
            return len(noting.heard) > 5

        await eventually(some)
        await engine.stop()
        assert 0 == noting.running
        heard = len(noting.heard)
        left = await ringing.redis.zcard(DEFAULT_QUEUE)
        assert 200 == heard + left
        await asyncio.wait({asyncio.create_task(ringing.ping())})
        assert heard == len(noting.heard)
        assert [] == await ringing.redis.keys("arq:in-progress:*"), "no ring is held back"
    await ringing.close()


@pytest.mark.req("DUR-01")
async def test_a_ring_that_comes_again_while_it_is_answered(redis_url: str) -> None:
    """With Redis emptied in mid-answer, a delivery rung again is not answered twice at once, and nothing dies."""
    claimed, taken = asyncio.Event(), asyncio.Event()

    async def claim() -> None:
        taken.set()
        await claimed.wait()

    noting = Noting(claim)
    with structlog.testing.capture_logs() as logs:
        async with running(redis_url, noting) as (engine, ringing):
            await ringing.ring([RING])
            await taken.wait()
            await ringing.redis.flushdb()
            await ringing.ring([RING])
            for _ in range(3):  # it looks at the queue before each beat
                before = engine.beat

                async def moved(since: float = before) -> bool:
                    return engine.beat > since

                await eventually(moved)
            assert 1 == noting.running
            claimed.set()
            await noting.hears(RING)
            await ringing.ring([ring(1)])
            await noting.hears(ring(1))

    assert [] == [line for line in logs if line["event"] == "engine.restarted"]
    assert {} == await contents(redis_url)


@pytest.mark.req("DUR-03")
async def test_a_ring_is_not_held_for_long(redis_url: str) -> None:
    """What a worker took and was killed over is another's ten seconds later: nobody is asked to wait for a dead one."""
    claimed, taken = asyncio.Event(), asyncio.Event()

    async def claim() -> None:
        taken.set()
        await claimed.wait()

    async with running(redis_url, Noting(claim)) as (_, ringing):
        await ringing.ring([RING])
        await taken.wait()
        assert 0 < await ringing.redis.pttl(f"arq:in-progress:{RING.delivery_id}") <= 10_000
        claimed.set()
