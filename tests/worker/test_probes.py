"""The probes of a whole worker, while one dependency after another is broken."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest
import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from hookseal.dispatcher.core.model import Ring
from hookseal.embedded.server import Server
from hookseal.errors import Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.postgres.schema.revision import EXPECTED
from hookseal.queue.bell import bell
from hookseal.worker.checks import _moves, ready_checks
from hookseal.worker.engine import Engine
from hookseal.worker.health import Check
from hookseal.worker.inflight import InFlight
from hookseal.worker.metrics.definitions import LOOPS
from hookseal.worker.resources import opened
from hookseal.worker.ring_handler import Movement
from tests.doubles.clock import FakeClock
from tests.worker.broken_worker import CANARY
from tests.worker.environment import settings
from tests.worker.fleet import Worker
from tests.worker.test_engine import RecordingHandler, all_due, beat, ring
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import Receiver, World, held, world

BROKEN = "tests.worker.broken_worker"
WAITING_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
FINE = {
    "/readyz": {"postgresql": "ok", "redis": "ok", "schema": "ok", "secrets": "ok", "queue": "ok", "records": "ok"}
    | {f"loop_{name}": "ok" for name in LOOPS},
    "/startupz": {"schema": "ok", "keys": "ok"},
}


async def wait_for_answer(worker: Worker, path: str, **changes: str) -> None:
    """Return when that probe answers exactly this; the worker must live."""
    checks = FINE[path] | changes
    expected = (503 if changes else 200, {"status": "unavailable" if changes else "ok", "checks": checks})
    await eventually_equals(expected, lambda: worker.get(path))
    assert (200, {"status": "ok"}) == await worker.get("/livez")


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(
    ("path", "check", "alteration", "restoration"),
    [
        pytest.param(
            "/readyz",
            "secrets",
            "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
            " WHERE name = 'sentinel'",
            "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
            " WHERE name = 'sentinel'",
            id="sentinel",
        ),
        pytest.param(
            "/readyz",
            "schema",
            "GRANT CREATE ON SCHEMA hookseal TO PUBLIC",
            "REVOKE CREATE ON SCHEMA hookseal FROM PUBLIC",
            id="a stranger may create functions",
        ),
        pytest.param(
            "/startupz",
            "schema",
            "UPDATE hookseal.alembic_version SET version_num = '9999', runs_from = '9999'",
            f"UPDATE hookseal.alembic_version SET version_num = '{EXPECTED}'",  # noqa: S608 -- a constant of ours
            id="schema",
        ),
        pytest.param(
            "/startupz",
            "keys",
            "UPDATE hookseal.secret_keys SET check_value = set_byte(check_value, 0, get_byte(check_value, 0) # 1)",
            "UPDATE hookseal.secret_keys SET check_value = set_byte(check_value, 0, get_byte(check_value, 0) # 1)",
            id="keys",
        ),
    ],
)
async def test_an_alteration_fails_its_own_check(
    path: str, check: str, alteration: str, restoration: str, world: World
) -> None:
    """An altered sentinel, schema, right or key check fails its own check, until it is restored."""
    other = next(each for each in FINE if each != path)
    async with world.worker() as worker:
        await wait_for_answer(worker, path)
        await world.pool.execute(alteration)
        await wait_for_answer(worker, path, **{check: "refused" if check == "secrets" else "unavailable"})
        await wait_for_answer(worker, other)
        await world.pool.execute(restoration)
        await wait_for_answer(worker, path)


@pytest.mark.req("OPS-01")
async def test_a_frozen_postgresql_fails_its_checks(own_postgres: Server, redis_url: str, tmp_path: Path) -> None:
    """While PostgreSQL is frozen the checks that use it are timeouts, and those of Redis pass; afterwards all pass."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=2) as pool:
        installed = await world(pool, own_postgres.url, redis_url, tmp_path)
        async with installed.worker() as worker:
            await wait_for_answer(worker, "/readyz")
            own_postgres.freeze()
            try:
                await wait_for_answer(worker, "/readyz", postgresql="timeout", schema="timeout", secrets="timeout")
                await wait_for_answer(worker, "/startupz", schema="timeout", keys="timeout")

                async def measured() -> list[float]:
                    found = await worker.figures()
                    names = ("postgresql", "redis", "schema", "secrets", "queue", "records")
                    return [found["hookseal_ready", name] for name in names]

                await eventually_equals([0.0, 1.0, 0.0, 0.0, 1.0, 1.0], measured)
            finally:
                own_postgres.thaw()
            await wait_for_answer(worker, "/readyz")
            await wait_for_answer(worker, "/startupz")


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(("broken", "stuck"), [("taking", True), ("handling", True), ("outbox", False)])
async def test_a_loop_that_dies_at_each_pass_is_not_healthy(broken: str, stuck: bool, world: World) -> None:
    """Such a worker is never ready, and the log names the place; it lives only if it can send without that loop."""
    async with world.worker(module=BROKEN, BROKEN=broken) as worker:
        checks = dict.fromkeys(FINE["/readyz"], "ok") | {f"loop_{broken}": "unavailable"}
        expected = (503, {"status": "unavailable", "checks": checks})
        await eventually_equals(expected, lambda: worker.get("/readyz"))
        if stuck:
            await eventually_equals((503, {"status": "stuck", "loops": [broken]}), lambda: worker.get("/livez"))
        else:
            assert (200, {"status": "ok"}) == await worker.get("/livez")
        [exception, *_] = await eventually(lambda: [line["exception"] for line in worker.log if "exception" in line])
        await eventually_equals(expected, lambda: worker.get("/readyz"))
    assert exception.startswith("TypeError\n")
    assert "tests/worker/broken_worker.py:" in exception
    assert " in fail" in exception
    assert "hookseal/worker/" in exception
    assert CANARY not in worker.log_file.read_text(encoding="utf-8")


async def test_a_loop_that_ends_by_itself_ends_the_worker(world: World) -> None:
    """If a loop ends that never should, the worker ends with 70, and the log names the place."""
    async with world.worker(module=BROKEN, BROKEN="pulse") as worker:
        assert 70 == await worker.ended()
    *lines, last = worker.log_file.read_text(encoding="utf-8").splitlines()
    assert last.startswith("hookseal: the pulse loop ended by itself")
    [line] = [each for each in map(json.loads, lines) if each["event"] == "worker.loop_ended"]
    assert ("pulse", True) == (line["loop"], line["exception"].endswith(" in fail"))
    assert CANARY not in "".join(lines)


@pytest.mark.req("OPS-01")
async def test_a_busy_worker_is_ready(world: World) -> None:
    """While claim and outbox wait for locks the worker is ready, because the probes have their own connections."""
    async with world.worker(HOOKSEAL_SWEEP_SECONDS="300") as worker:
        await wait_for_answer(worker, "/readyz")
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE hookseal.deliveries, hookseal.control IN ACCESS EXCLUSIVE MODE")
            ringing = bell(world.redis_url)
            await ringing.ring(ring(number) for number in range(50))
            await ringing.close()

            async def all_are_locked() -> bool:
                return bool(await world.pool.fetchval(WAITING_FOR_A_LOCK) >= 2)

            await eventually(all_are_locked)
            await worker.answers("/readyz", 200)
        await wait_for_answer(worker, "/readyz")


# The check of the queue fails only if a delivery is due, was rung, and nothing but the queue delays it.


SWEEP_SECONDS, STILL_SECONDS = 15, 90.0
# The delivery came due that many seconds ago and was rung after that.
RUNG = "UPDATE hookseal.deliveries SET next_attempt_at = now() - $1 * interval '1 second', rung_at = now()"


@asynccontextmanager
async def asking(world: World, movement: Movement) -> AsyncIterator[Check]:
    """Yield the queue check of a starting worker."""
    async with opened(
        settings(world.database_url, world.redis_url), SystemClock(), structlog.get_logger()
    ) as resources:
        yield ready_checks(resources, movement)["queue"]


async def one_delivery(world: World) -> Ring:
    await world.endpoint("https://receiver.example/hook")
    [ring] = await world.publish(rung=False)
    return ring


@pytest.mark.req("OPS-01")
async def test_a_stuck_queue_fails_the_check(world: World) -> None:
    """The check fails if a delivery has been rung and due for 90 s and this worker has claimed none for as long."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    async with asking(world, movement) as check:
        clock.elapsed += STILL_SECONDS - 0.1
        await check()
        clock.elapsed += 0.1
        with pytest.raises(Unavailable, match="none comes through the queue"):
            await check()
        movement.moved()
        await check()


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param("state = 'delivered', next_attempt_at = NULL", id="over"),
        pytest.param("next_attempt_at = now() - interval '80 seconds'", id="due-for-less"),
        pytest.param("rung_at = NULL", id="never-rung"),
        pytest.param("rung_at = next_attempt_at - interval '1 second'", id="rung-for-an-earlier-time"),
        pytest.param("waiting_for = 'secret'", id="held-back"),
    ],
)
async def test_other_delays_do_not_fail_the_check(change: str, world: World) -> None:
    """A delivery that is finished, due for less time, held or unrung does not make the check fail."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    await world.pool.execute(f"UPDATE hookseal.deliveries SET {change}")  # noqa: S608 -- changes of this file
    async with asking(world, movement) as check:
        clock.elapsed += STILL_SECONDS
        await check()


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("table", ["deliveries", "endpoints"])
async def test_a_locked_delivery_does_not_fail_the_check(table: str, world: World) -> None:
    """A delivery that cannot be claimed because it or its endpoint is locked does not make the check fail."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    async with asking(world, movement) as check:
        clock.elapsed += STILL_SECONDS
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SELECT FROM hookseal.{table} FOR UPDATE")
            await check()
        with pytest.raises(Unavailable):
            await check()


@pytest.mark.req("OPS-01")
async def test_a_full_worker_passes_the_check(world: World) -> None:
    """While slow receivers fill every slot the check passes, however long; then the time starts again."""
    clock, in_flight = FakeClock(), InFlight(1)
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    await one_delivery(world)
    await world.pool.execute(RUNG, STILL_SECONDS + 1)
    in_flight.take(1)
    async with opened(
        settings(world.database_url, world.redis_url), SystemClock(), structlog.get_logger()
    ) as resources:
        check = ready_checks(resources, movement)["queue"]
        engine = Engine(
            resources.bell,
            RecordingHandler(movement=movement, in_flight=in_flight),
            due=all_due,
            clock=clock,
            log=structlog.get_logger(),
        )
        running = asyncio.create_task(engine.run())
        try:
            clock.elapsed += 10 * STILL_SECONDS
            await eventually(lambda: beat(engine) == clock.elapsed and not movement.is_still)
            await check()
            in_flight.free(1)
            clock.elapsed += STILL_SECONDS
            with pytest.raises(Unavailable):
                await check()
        finally:
            await engine.stop()
            await asyncio.wait_for(running, 10)


@pytest.mark.req("OPS-01")
async def test_a_frozen_database_fails_its_own_check_only(own_postgres: Server) -> None:
    """While PostgreSQL does not answer, only its own check fails, not that of the queue."""
    clock = FakeClock()
    movement = Movement(clock, sweep_seconds=SWEEP_SECONDS)
    clock.elapsed += STILL_SECONDS
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=1) as pool:
        own_postgres.freeze()
        try:
            await _moves(pool, movement)
        finally:
            own_postgres.thaw()


# A whole worker while a dependency is frozen.


async def unready(worker: Worker, name: str) -> None:
    """Return when the worker reports that dependency as a timeout; it must live."""

    async def look() -> bool:
        status, body = await worker.get("/readyz")
        return status == 503 and body["checks"][name] == "timeout"

    await eventually(look)
    assert (200, {"status": "ok"}) == await worker.get("/livez")


async def ready(worker: Worker) -> None:
    async def look() -> bool:
        return (await worker.get("/readyz"))[0] == 200

    await eventually(look)


async def scraped(worker: Worker) -> set[str]:
    """Return the names of the metrics on a valid page, which the worker answers within a second."""
    quickest = float("inf")
    for _ in range(20):  # a busy machine may delay most of them
        began_at = asyncio.get_running_loop().time()
        async with (
            aiohttp.ClientSession(headers={"accept": "application/openmetrics-text"}) as session,
            session.get(f"{worker.ready['health_url']}/metrics") as response,
        ):
            body = await response.text()
        quickest = min(quickest, asyncio.get_running_loop().time() - began_at)
        families = list(openmetrics(body))  # type: ignore[no-untyped-call]
        if quickest < 1:
            return {family.name for family in families}
    raise AssertionError(f"a scrape took {quickest:.1f} s")


@pytest.mark.req("OPS-02", part="scraped")
async def test_a_scrape_takes_less_than_a_second_without_postgresql(
    own_postgres: Server, redis_url: str, tmp_path: Path
) -> None:
    """Also of two processes; what PostgreSQL does not report is absent, and the rest is there."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=4) as pool:
        installed = await world(pool, own_postgres.url, redis_url, tmp_path)
        async with installed.worker() as one, installed.worker(HOOKSEAL_PROCESSES="2") as two:
            await ready(one)
            await ready(two)
            own_postgres.freeze()
            try:
                await unready(one, "postgresql")
                for worker in (one, two):
                    assert {"hookseal_attempts", "hookseal_ready", "hookseal_limit"} <= await scraped(worker)
            finally:
                own_postgres.thaw()


@pytest.mark.req("OPS-02", part="scraped")
async def test_a_scrape_during_a_drain_and_without_a_leader_is_valid(world: World, receiver: Receiver) -> None:
    """A worker that drains, and one that does not lead, answer with a valid page within a second."""
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    await world.endpoint(f"{receiver.base_url}/held", timeout_ms=15_000)
    await world.pool.execute(
        "UPDATE hookseal.control SET holder = 'a worker that is frozen', until = now() + interval '1 hour'"
        " WHERE name = 'outbox'"
    )
    async with world.worker() as worker:
        await world.publish()
        await receiver.wait_for(1)
        names = await scraped(worker)
        assert {"hookseal_in_flight", "hookseal_saturated_seconds"} <= names
        assert not {"hookseal_workers_live", "hookseal_measured_age_seconds", "hookseal_tenant_pending"} & names
        worker.send(signal.SIGTERM)
        await worker.answers("/readyz", 503)
        assert names == await scraped(worker)
        answer.set()
        assert 0 == await worker.ended()


async def test_a_stop_does_not_wait_for_a_frozen_postgresql(
    own_postgres: Server, redis_url: str, tmp_path: Path
) -> None:
    """A worker that is stopped while PostgreSQL is frozen does not wait for it, and exits with 0."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=4) as pool:
        installed = await world(pool, own_postgres.url, redis_url, tmp_path)
        async with installed.worker() as worker:
            await ready(worker)
            own_postgres.freeze()
            try:
                await unready(worker, "postgresql")
                await worker.stop()
            finally:
                own_postgres.thaw()


@pytest.mark.req("DUR-04", "DUR-05")
async def test_a_stop_ends_while_nothing_can_be_recorded(world: World, receiver: Receiver) -> None:
    """A worker that is stopped while nothing can be recorded tries until its drain ends, logs what is left, exits 0."""
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    await world.endpoint(f"{receiver.base_url}/held", timeout_ms=1000)

    async with world.worker(HOOKSEAL_LEASE_SECONDS="7", HOOKSEAL_DRAIN_SECONDS="6") as worker:
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE hookseal.attempts IN ACCESS EXCLUSIVE MODE")
            [ring] = await world.publish()
            await receiver.wait_for(1)
            answer.set()

            async def reported() -> bool:
                found, body = await worker.get("/readyz")
                return (503, "unavailable", 1) == (
                    *(found, body["checks"]["records"]),
                    body.get("unrecorded", {}).get("outcomes"),
                )

            await eventually(reported)
            await worker.stop()
        events = [line["event"] for line in worker.log]
        assert (1, 1) == (events.count("records.failed"), events.count("delivery.unrecorded"))

    assert "sending" == (await world.installation.delivery(ring))["state"]
