"""The loop that takes rings, on a real Valkey: neither the contents of Redis nor its outages end the loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog
from redis.asyncio import Redis

from hookseal.dispatcher.core.model import Outcome, Ring
from hookseal.dispatcher.lanes.worker_lanes import Lanes
from hookseal.embedded.server import Server
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import DeliveryId
from hookseal.queue.bell import Bell, bell
from hookseal.queue.intake import Dropped, DropReason
from hookseal.queue.rings import DEFAULT_QUEUE
from hookseal.worker.arq_worker import ArqWorker, within_arq
from hookseal.worker.engine import Engine, Shell, Taker, without_arq
from hookseal.worker.health import BEAT_SECONDS
from hookseal.worker.inflight import InFlight
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.ring_handler import MOST_AT_ONCE, Movement, RingHandler
from tests.cli.listeners import closed_port
from tests.doubles.claims import CLAIM, RING
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger
from tests.doubles.parts import parts
from tests.doubles.replaced import replace
from tests.faults.tcp_proxy import tcp_proxy
from tests.queue.contents import contents
from tests.worker.waiting import PATIENCE_SECONDS, eventually, eventually_equals

POISONED = "01900000-0000-7000-8000-00000000dead"


def ring(number: int) -> Ring:
    return replace(RING, delivery_id=DeliveryId(f"01900000-0000-7000-8000-{number:012d}"))


class RecordingHandler(RingHandler):
    """Notes the deliveries of all rings; `busy` runs before each batch.

    The endpoint of `RING` has answered, and its lane has room for all.
    """

    def __init__(
        self,
        busy: Callable[[], Awaitable[object]] | None = None,
        *,
        movement: Movement | None = None,
        in_flight: InFlight | None = None,
    ) -> None:
        clock, meter, lanes = SystemClock(), WorkerMeter(), Lanes(1_000)
        made = parts(MemoryLedger(FakeClock()), clock, meter=meter)
        slots = InFlight(500) if in_flight is None else in_flight
        super().__init__(made, slots, meter, movement or Movement(clock, sweep_seconds=15), lanes=lanes)
        lanes.claimed(CLAIM, 0.0)
        lanes.begin(CLAIM.ring, 0.0)
        lanes.answered(CLAIM.ring, Outcome.DELIVERED, 0.0)
        self.handled: list[str] = []
        self.batches: list[int] = []
        self.dropped: list[Dropped] = []
        self.running = 0
        self.down = False
        self._busy = busy

    @property
    def is_down(self) -> bool:
        return self.down

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def drop(self, dropped: Dropped) -> None:
        """Note a queue entry that is not a ring."""
        self.dropped.append(dropped)

    async def handle(self, rings: Sequence[Ring]) -> None:
        self.running += 1
        try:
            if self._busy is not None:
                await self._busy()
            self.batches.append(len(rings))
            self.handled += [each.delivery_id for each in rings]
        finally:
            self.running -= 1
            for each in rings:
                self._lanes.left(each.delivery_id, 0.0)

    async def wait_until_handled(self, *rings: Ring, within: float = PATIENCE_SECONDS) -> None:
        wanted = {each.delivery_id for each in rings}
        await eventually(lambda: wanted <= set(self.handled), within=within)


def beat(engine: Engine) -> float:
    """Return when the loop of the engine whose last pass is longer ago has ended it, as a monotonic time."""
    return min(engine.taking.ran_at, engine.handling.ran_at)


async def all_due(rings: Sequence[Ring]) -> set[str]:
    """Return the ids of all these deliveries."""
    return {each.delivery_id for each in rings}


async def nothing_due(_rings: Sequence[Ring]) -> set[str]:
    return set()


def engine_of(ringing: Bell, handler: RecordingHandler, shell: Shell = without_arq) -> Engine:
    return Engine(ringing, handler, due=all_due, clock=SystemClock(), log=structlog.get_logger(), shell=shell)


@asynccontextmanager
async def running(
    url: str, handler: RecordingHandler, shell: Shell = without_arq
) -> AsyncIterator[tuple[Engine, Bell]]:
    ringing = bell(url)
    engine = engine_of(ringing, handler, shell)
    task = asyncio.create_task(engine.run())
    try:
        yield engine, ringing
    finally:
        await engine.stop()
        await asyncio.wait_for(task, 60)
        await ringing.close()


class KeepingHandler(RecordingHandler):
    """Keeps the rings of the deliveries in `held` again and again, due at once, as if these deliveries were locked."""

    held: frozenset[str] = frozenset()

    async def handle(self, rings: Sequence[Ring]) -> None:
        """Keep the rings in `held`, and note the others."""
        held = [each for each in rings if each.delivery_id in self.held]
        for each in held:
            self._lanes.left(each.delivery_id, 0.0)
        self.keep(held)
        await asyncio.sleep(0)
        await super().handle([each for each in rings if each.delivery_id not in self.held])


@pytest.mark.req("DUR-04")
async def test_kept_rings_starve_no_other(redis_url: str) -> None:
    """Kept rings that are due again and again, more than one look takes, do not keep a new ring from being handled."""
    held = [ring(number) for number in range(1, 2 * MOST_AT_ONCE)]
    handler = KeepingHandler()
    handler.held = frozenset(each.delivery_id for each in held)
    handler.keep(held)
    async with running(redis_url, handler) as (_, ringing):
        await ringing.ring([RING])
        await handler.wait_until_handled(RING)

    assert [RING.delivery_id] == handler.handled


@pytest.mark.req("DEL-02")
@pytest.mark.parametrize("shell", [within_arq, without_arq])
async def test_rings_are_handled_once(shell: Shell, redis_url: str) -> None:
    handler = RecordingHandler()
    rings = [ring(number) for number in range(30)]
    async with running(redis_url, handler, shell) as (_, ringing):
        await ringing.ring(rings)
        await handler.wait_until_handled(*rings)

    assert sorted(each.delivery_id for each in rings) == sorted(handler.handled)
    assert {} == await contents(redis_url)


async def test_rings_that_came_together_are_handled_together(redis_url: str) -> None:
    """Rings are taken in batches, none larger than one statement may claim."""
    assert [MOST_AT_ONCE, 20] == await batches_of(redis_url, rings=MOST_AT_ONCE + 20, slots=4 * MOST_AT_ONCE)


@pytest.mark.parametrize(("slots", "most"), [(1_000, MOST_AT_ONCE), (400, 100), (100, 50)])
async def test_one_claim_leaves_slots_for_the_next(redis_url: str, slots: int, most: int) -> None:
    """A claim takes at most a quarter of the slots, or 50: while one is sent and recorded, the next one is made."""
    assert most == max(await batches_of(redis_url, rings=MOST_AT_ONCE + 20, slots=slots))


async def batches_of(redis_url: str, *, rings: int, slots: int) -> list[int]:
    """Return how many of these rings are handled together by a worker that starts when all are in Redis."""
    handler, named = RecordingHandler(in_flight=InFlight(slots)), [ring(number) for number in range(rings)]
    ringing = bell(redis_url)
    await ringing.ring(named)
    async with running(redis_url, handler):
        await handler.wait_until_handled(*named)
    await ringing.close()
    return handler.batches


async def test_the_beat_moves(redis_url: str) -> None:
    async with running(redis_url, RecordingHandler()) as (engine, _):
        before = beat(engine)
        await eventually(lambda: beat(engine) > before)


async def test_a_full_worker_takes_nothing(redis_url: str) -> None:
    """While no slot is free, rings stay in the queue for other workers; they are taken when a slot is free."""
    in_flight = InFlight(1)
    in_flight.take(1)
    handler = RecordingHandler(in_flight=in_flight)
    async with running(redis_url, handler) as (engine, ringing):
        await ringing.ring([RING])
        for _ in range(2):
            before = beat(engine)

            async def moved(since: float = before) -> bool:
                return beat(engine) > since

            await eventually(moved)
        assert ([], 1) == (handler.handled, await ringing.depth())
        in_flight.free(1)
        await handler.wait_until_handled(RING)


async def test_a_worker_without_postgresql_takes_nothing(redis_url: str) -> None:
    """While PostgreSQL does not answer, rings stay in the queue for other workers."""
    handler = RecordingHandler()
    handler.down = True
    async with running(redis_url, handler) as (_, ringing):
        await ringing.ring([RING])
        for _ in range(20):
            await ringing.ping()
        assert ([], 1) == (handler.handled, await ringing.depth())
        handler.down = False
        await handler.wait_until_handled(RING)


@pytest.mark.req("DUR-06")
async def test_an_invalid_entry_is_dropped(redis_url: str) -> None:
    """A queue entry without a job is dropped once, and the loop continues."""
    handler = RecordingHandler()
    with structlog.testing.capture_logs() as logs:
        async with Redis.from_url(redis_url) as client, running(redis_url, handler) as (_, ringing):
            await client.zadd(DEFAULT_QUEUE, {POISONED: 1})
            await ringing.ring([ring(2)])
            await handler.wait_until_handled(ring(2))

    assert ([DropReason.NO_JOB], []) == (
        [each.reason for each in handler.dropped],
        [line for line in logs if line["event"] == "engine.restarted"],
    )


@pytest.mark.req("DUR-06")
async def test_arqs_own_keys_stop_no_ring(redis_url: str) -> None:
    """Keys by which arq marks jobs as in progress, retried or aborted do not stop a ring, however many there are."""
    handler = RecordingHandler()
    rings = [ring(number) for number in range(1_200)]
    async with Redis.from_url(redis_url) as client:
        await client.mset({f"arq:in-progress:{each.delivery_id}": "1" for each in rings})
        await client.mset({f"arq:retry:{each.delivery_id}": "9223372036854775807" for each in rings})
        await client.set("arq:abort", "x")
    async with running(redis_url, handler) as (_, ringing):
        await ringing.ring(rings)
        await handler.wait_until_handled(*rings)


async def test_closed_connections_are_opened_again(own_valkey: Server) -> None:
    """Connections that Redis closes are opened again, and rings are handled."""
    handler = RecordingHandler()
    async with running(own_valkey.url, handler) as (_, ringing), Redis.from_url(own_valkey.url) as client:
        for number in range(3):
            await ringing.ring([ring(number)])
            await handler.wait_until_handled(ring(number))
            await client.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("shell", [within_arq, without_arq])
async def test_the_loop_restarts_after_a_frozen_redis(shell: Shell, own_valkey: Server) -> None:
    """A loop that ended because Redis was frozen is restarted and logged; rings are handled once Redis continues."""
    handler = RecordingHandler()
    with structlog.testing.capture_logs() as logs:
        async with running(own_valkey.url, handler, shell) as (_, ringing):
            await ringing.ring([ring(1)])
            await handler.wait_until_handled(ring(1))
            own_valkey.freeze()
            try:
                await eventually(lambda: "engine.restarted" in [line["event"] for line in logs])
            finally:
                own_valkey.thaw()
            await ringing.ring([ring(2), ring(3)])
            await handler.wait_until_handled(ring(3))


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("is_outage", [True, False])
async def test_a_loop_that_fails_again_and_again_is_logged_once(
    is_outage: bool, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same failure is logged once. In an outage of Redis the loop runs; one that dies by a defect does not."""
    clock = FakeClock()
    ringing = bell(f"redis://127.0.0.1:{closed_port()}/0" if is_outage else redis_url)
    if not is_outage:
        monkeypatch.setattr(Taker, "_rings", lambda *_: 1 / 0)
    with structlog.testing.capture_logs() as logs:
        engine = Engine(ringing, RecordingHandler(), due=all_due, clock=clock, log=structlog.get_logger())
        running = asyncio.create_task(engine.run())
        await eventually(lambda: len(clock.slept) > 20 and clock.elapsed > BEAT_SECONDS)
        silence = engine.taking.silence
        await engine.stop()
        await asyncio.wait_for(running, 60)
    await ringing.close()

    restarts = [(line["loop"], line["reason"]) for line in logs if line["event"] == "engine.restarted"]
    reason = "Redis does not answer (ConnectionError)" if is_outage else "ZeroDivisionError"
    assert [("taking", reason)] == restarts
    assert is_outage == (silence < BEAT_SECONDS)
    with pytest.raises(Unavailable, match="the loop taking has ended no pass since the start"):
        await engine.taking.check()


async def test_kept_rings_survive_an_outage_of_redis(own_valkey: Server) -> None:
    """Kept rings are handled while Redis is frozen, and survive the restart of the loop."""
    handler = RecordingHandler()
    async with running(own_valkey.url, handler) as (_, ringing):
        await ringing.ring([ring(1)])
        await handler.wait_until_handled(ring(1))
        own_valkey.freeze()
        try:
            handler.keep([ring(2)])
            await handler.wait_until_handled(ring(2))
        finally:
            own_valkey.thaw()


@pytest.mark.parametrize("shell", [within_arq, without_arq])
async def test_stop_leaves_no_task(shell: Shell, redis_url: str) -> None:
    before = asyncio.all_tasks()
    async with running(redis_url, RecordingHandler(), shell) as (engine, _):
        since = engine.taking.passed_at
        await eventually(lambda: engine.taking.passed_at > since)

    assert before == asyncio.all_tasks()


async def test_a_stopped_engine_does_not_start(redis_url: str) -> None:
    ringing = bell(redis_url)
    engine = engine_of(ringing, RecordingHandler())
    await engine.stop()
    await asyncio.wait_for(engine.run(), 60)
    await ringing.close()


@pytest.mark.req("DUR-05")
async def test_stop_returns_unhandled_rings(redis_url: str) -> None:
    """When `stop` returns, no batch is being handled and none will be; all unhandled rings are in the queue again."""
    ringing = bell(redis_url)
    await ringing.ring([ring(number) for number in range(1_000)])

    async def claim() -> None:
        for _ in range(5):
            await ringing.ping()

    handler = RecordingHandler(claim)
    async with running(redis_url, handler) as (engine, _):
        await eventually(lambda: len(handler.handled) > 5)
        handler.keep([ring(2_000), ring(2_001)])
        await engine.stop()
        assert 0 == handler.running
        handled = len(handler.handled)
        assert 1_002 == handled + await ringing.depth()
        await asyncio.wait({asyncio.create_task(ringing.ping())})
        assert handled == len(handler.handled)
    await ringing.close()


class Waiting(RecordingHandler):
    """Lets every ring wait for its turn."""

    def _next_rings(self, room: int) -> list[Ring]:
        return []


@pytest.mark.req("DUR-05")
async def test_rings_that_wait_at_the_stop_are_rung_again(redis_url: str) -> None:
    """Rings that were taken and wait for their turn when the worker stops are not handled, but rung again."""
    handler = Waiting()
    async with running(redis_url, handler) as (engine, ringing):
        await ringing.ring([RING])
        await eventually_equals(0, ringing.depth)
        await engine.stop()
        assert [] == handler.handled
        assert 1 == await ringing.depth()


@pytest.mark.req("DUR-05")
async def test_a_ring_of_a_sent_delivery_is_not_rung_again_at_the_stop(redis_url: str) -> None:
    """If another worker has sent its delivery meanwhile, a ring that waits at the stop is dropped."""
    ringing, handler = bell(redis_url), Waiting()
    engine = Engine(ringing, handler, due=nothing_due, clock=SystemClock(), log=structlog.get_logger())
    handler.add([RING])
    await engine.stop()
    left = await ringing.depth()
    await ringing.close()

    assert 0 == left


@pytest.mark.req("DUR-05")
async def test_an_error_of_postgresql_at_the_stop_does_not_end_the_drain(redis_url: str) -> None:
    """If PostgreSQL does not say which rings are due, as after a right was revoked, all are rung again."""

    async def refused(_rings: Sequence[Ring]) -> set[str]:
        raise asyncpg.InsufficientPrivilegeError

    ringing, handler = bell(redis_url), Waiting()
    engine = Engine(ringing, handler, due=refused, clock=SystemClock(), log=structlog.get_logger())
    handler.add([RING])
    with structlog.testing.capture_logs() as logs:
        await engine.stop()
    left = await ringing.depth()
    await ringing.close()

    assert 1 == left
    assert [("rings.unknown", "InsufficientPrivilegeError")] == [(line["event"], line["reason"]) for line in logs]


@pytest.mark.parametrize("wrong", ["burst", "cron_jobs", "allow_abort_jobs", "on_startup"])
async def test_other_features_of_arq_are_refused(redis_url: str, wrong: str) -> None:
    """The features of arq that the loop does not support (burst, cron, aborts, hooks) cannot be enabled."""
    ringing, handler = bell(redis_url), RecordingHandler()
    worker = ArqWorker(ringing, handler.wait_until_handled)
    await ringing.close()

    assert not getattr(worker, wrong)
    with pytest.raises(TypeError):
        ArqWorker(ringing, handler.wait_until_handled, **{wrong: True})


# What a writer to Redis can do to the loop that takes rings.


RUNNING = Path(__file__).parents[2] / "docs" / "guide" / "running.md"
MEGABYTE = 1_000_000
FORGED = [f"01900000-0000-7000-8000-{number:012x}" for number in range(0xF000, 0xF000 + 1_000)]
Poison = Callable[[Redis], Awaitable[object]]


async def sent(client: Redis) -> int:
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
