"""What one round measures: full speed, publishing, latency, rest, memory, statements, and a backlog."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from hookseal.demo.installation import Installation
from hookseal.postgres.pool import Connection
from tools.bench import bodies, plan
from tools.bench.contenders.job import ORDER, Order
from tools.bench.environments import Environment
from tools.bench.plan import DEFAULT_IN_FLIGHT, HANGING, LISTEN, ONE, RING, SQL, Case
from tools.bench.producer import ORDER as PUBLISH_ORDER
from tools.bench.producer import Order as PublishOrder
from tools.bench.results import Round
from tools.harness import (
    KB,
    POSTGRESQL,
    PRODUCER,
    RECEIVER,
    REDIS,
    Count,
    Endpoints,
    Meter,
    Reading,
    Site,
    all_recorded,
    environment_of,
    hookseal_workers,
    last_error_line,
    line,
    module,
    published,
    resident_mb,
    rung,
    stored_only,
)
from tools.records import percentile

MODULES: Final = {
    "bare aiohttp": "with_aiohttp",
    "stock arq": "with_arq",
    "saq": "with_saq",
    "taskiq": "with_taskiq",
    "procrastinate": "with_procrastinate",
    "pgqueuer": "with_pgqueuer",
    plan.CLIENT: "with_client",
}
# The contender of the scenario, and the producer's way.
WAYS: Final = {
    "Publisher, one at a time": "publisher",
    "Publisher, 50 at once": "publisher-50",
    "SQL, one connection": "sql",
    "Publisher, 100 in one call": "publisher-many",
    "SQL, 100 in one call": "sql-many",
    "one INSERT and one ping": "insert-ping",
}
# How it is published, whether the worker LISTENs, and whether 400 requests hang meanwhile.
LATENCIES: Final = {
    RING: ("publisher-50", False, False),
    SQL: ("sql-pool", False, False),
    LISTEN: ("sql-pool", True, False),
    HANGING: ("publisher-50", False, True),
}
HUNG_REQUESTS: Final = 400
# No request of these ends in the seconds in which it is measured, or only at their end: a worker begins 500 requests in
# 1.7 s while none is answered yet. They are for one endpoint, which may have all of them.
_HANGING: Final = Endpoints(does=60_000, limit=1_000, timeout_ms=20_000)
_HELD: Final = Endpoints(does=4_000, limit=1_000, timeout_ms=20_000)
_PATIENCE_SECONDS: Final = 60.0
_SLOWEST: Final = 40.0  # deliveries a second
_SETTLE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.05
_WARM_UP: Final = 20  # events
_LEAST_SENT: Final = 500  # before a backlog is measured: half of the endpoints have been used
_RESET: Final = """
UPDATE hookseal.deliveries SET rung_at = NULL, waiting_for = NULL, held_at = NULL
WHERE state = 'pending' AND (rung_at IS NOT NULL OR waiting_for IS NOT NULL);
DELETE FROM hookseal.lanes
"""
_RETAINED_AT_ONCE: Final = 100_000
_OF_ONE_EVENT: Final = 20  # deliveries
# Deliveries that succeeded at once, as a worker leaves them, with events and attempts; a trigger adds their links.
_RETAIN: Final = """
WITH published AS (
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    SELECT 'retained', hookseal.uuid7()::text, 'bench.tick', now(), $1::bytea, sha256($1::bytea)
    FROM generate_series(1, $2::int)
    RETURNING id
), ended AS (
    INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, attempts, budget_spent,
                                     next_attempt_at, finished_at)
    SELECT 'retained', hookseal.uuid7(), e.id, published.id, 'delivered', 1, 1, NULL, now()
    FROM published CROSS JOIN (SELECT id FROM hookseal.endpoints LIMIT $3) AS e
    RETURNING id, endpoint_id
)
INSERT INTO hookseal.attempts
    (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, signed_by, worker)
SELECT 'retained', id, 1, now(), 3, 204, 'delivered', ARRAY[format('db:retained:webhook-endpoint-%s:1', endpoint_id)],
       'a-worker-of-the-benchmark'
FROM ended
"""
_PENDING: Final = "SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending'"
_BODIES: Final = "SELECT coalesce(sum(pg_column_size(body)), 0) FROM hookseal.events"
_TABLES: Final = "SELECT relid::regclass::text AS name FROM pg_stat_user_tables WHERE schemaname = 'hookseal'"
_SIZE: Final = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables WHERE schemaname = 'hookseal'"


# That many deliveries, all queued before the worker starts, at full speed.


async def ours(site: Site, case: Case, deliveries: int) -> Round:
    """Return the cost of hookseal: every delivery is claimed, signed, sent, recorded, logged and measured.

    If the case is warm, the worker runs before, and has delivered to each endpoint; otherwise it finds all of them
    when it starts. Deliveries to endpoints that fail are not counted, but what they cost is.
    """
    to = case.endpoints
    async with site.with_endpoints(to) as (installation, observer), AsyncExitStack() as running:
        environment, meter = environment_of(installation, site.receiver, case.ours), Meter(site, observer)
        logged = 0
        begin = partial(hookseal_workers, environment, site.worker_log, processes=case.processes)
        worker = await running.enter_async_context(begin()) if case.is_warm else None
        if worker is not None:
            await _delivered(site, installation, observer, to)
        queued = await published(observer, to.names, to.events(deliveries), case.body_bytes)
        await observer.execute("ANALYZE hookseal.endpoints, hookseal.events, hookseal.deliveries")  # as autovacuum has
        number = len(queued.rings) * to.answering // to.number
        await site.receiver.forget()
        if worker is not None:
            logged = site.worker_log.stat().st_size
            await meter.ready(worker.pid)
            before = await meter.read()
            await rung(installation.redis_url, queued)
        else:
            await rung(installation.redis_url, queued)
            before = await meter.read()
            on_ready = meter.ready if case.processes == 1 else meter.parent_ready
            await running.enter_async_context(begin(on_ready=on_ready))
        count = await site.receiver.all_of(number, _patience(number))
        await all_recorded(observer)
        cost = await meter.since_ready(before, number)
        own = _slots(case, count, case.most_in_flight) | {
            "publish_wal_bytes": queued.wal_bytes / len(queued.rings),
            "log_bytes": (site.worker_log.stat().st_size - logged) / number,
        }
        await running.aclose()  # a table that is rewritten is locked
        if to.number == 1:
            # Not of this one before it was filled: after a VACUUM of an empty table, plans expect one without rows.
            async with site.fresh(1) as (_, unused):
                empty = await _packed_bytes(unused)
            own["kept_bytes"] = (await _packed_bytes(observer) - empty) / number
    return _full_speed(count, cost, number, own)


async def theirs(site: Site, case: Case, deliveries: int, contender: str, environment: Environment) -> Round:
    """Return the cost of a contender; its worker is killed once the receiver has received everything."""
    async with site.database() as url, site.observer(url) as observer, AsyncExitStack() as working:
        order = Order(
            urls=list(case.endpoints.urls(site.receiver)),
            postgres_url=site.reached(url),
            redis_url=site.stack.valkey.url,
            deliveries=deliveries,
            concurrency=case.concurrency,
            body_bytes=case.body_bytes,
            authority=str(site.receiver.authority) if case.endpoints.secure else "",
            is_warm=case.is_warm,
        )
        shares = [deliveries] * case.processes
        if contender in plan.WITHOUT_QUEUE:
            shares = [deliveries // case.processes + (n < deliveries % case.processes) for n in range(case.processes)]
        else:
            async with _begun(site, order, contender, environment, "enqueue") as process:
                if await process.wait():
                    raise RuntimeError(f"its jobs could not be queued: {last_error_line(site.folder / 'enqueue.log')}")
        await site.receiver.forget()
        meter = Meter(site, observer)
        before = await meter.read()
        processes = []
        for number, share in enumerate(shares):
            name, own = f"work-{number}", replace(order, deliveries=share)
            processes.append(await working.enter_async_context(_begun(site, own, contender, environment, name)))
        patience = _patience(len(order.urls) * order.is_warm)  # one goes to each address first
        logs = (site.folder / f"work-{number}.log" for number in range(case.processes))
        await asyncio.gather(*(_ready(*each, meter, patience) for each in zip(processes, logs, strict=True)))
        if contender in plan.WITHOUT_QUEUE:
            await site.receiver.forget()
            for process in processes:
                _begin(process)
        count = await site.receiver.all_of(deliveries, _patience(deliveries))
        cost = await meter.since_ready(before, deliveries)
    return _full_speed(count, cost, deliveries, _slots(case, count, case.concurrency))


@asynccontextmanager
async def _begun(
    site: Site, order: Order, contender: str, environment: Environment, name: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process of a contender, which does what its name says before the dash, for the length of the block."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HOOKSEAL"))}
    ordered = site.folder / f"{name}.json"
    ordered.write_text(json.dumps(asdict(order)), encoding="ascii")
    async with module(
        *(f"tools.bench.contenders.{MODULES[contender]}", name.partition("-")[0]),
        environment=clean | {ORDER: str(ordered)},
        log_file=site.folder / f"{name}.log",
        python=environment.python,
    ) as process:
        yield process


async def _ready(process: asyncio.subprocess.Process, log_file: Path, meter: Meter, patience_seconds: float) -> None:
    await line(process, log_file, patience_seconds)
    await meter.ready(process.pid)


def _begin(process: asyncio.subprocess.Process) -> None:
    """Let a loop without a queue begin."""
    if process.stdin is None:
        raise RuntimeError("the process has no standard input")
    process.stdin.write(b"\n")


async def _packed_bytes(observer: Connection) -> int:
    """Return the bytes of all tables and indexes of hookseal without the stored bodies, after each was written anew."""
    for table in await observer.fetch(_TABLES):
        await observer.execute(f"VACUUM FULL {table['name']}")
    return int(await observer.fetchval(_SIZE) - await observer.fetchval(_BODIES))


def _patience(deliveries: int) -> float:
    """Return the seconds within which so many must have been sent, on a slow machine beside other load."""
    return max(_PATIENCE_SECONDS, deliveries / _SLOWEST)


async def _delivered(site: Site, installation: Installation, observer: Connection, to: Endpoints) -> None:
    """Deliver one to each endpoint."""
    await site.receiver.forget()
    await rung(installation.redis_url, await published(observer, to.names, 1))
    await site.receiver.all_of(to.answering, _patience(to.answering))
    await all_recorded(observer)


def _slots(case: Case, count: Count, in_flight: int) -> dict[str, float]:
    """Return which part of so many slots of each process was used, if the receiver takes its time to answer."""
    if not case.receiver_ms:
        return {}
    seconds = case.receiver_ms / 1000
    busy = count.requests * seconds / (count.seconds + seconds)  # at the end of the count the last ones still wait
    return {"slots_percent": busy * 100 / (in_flight * case.processes)}


def _full_speed(count: Count, cost: Reading, deliveries: int, own: Mapping[str, float]) -> Round:
    requests = max(1, count.requests)
    figures = {
        "wal_bytes": cost.wal_bytes / deliveries,
        "redis_commands": cost.redis_commands / deliveries,
        "connections_per_1000": count.connections * 1000 / requests,
        "resumed_per_1000": count.resumed * 1000 / requests,
    }
    return Round(deliveries=deliveries, seconds=count.seconds, cpu=cost.cpu, figures={**figures, **own})


# Publishing, and the latency from there to the request.


async def publishing(site: Site, way: str, seconds: float) -> Round:
    """Return the cost of publishing in that way of a producer, while no worker runs."""
    async with site.with_endpoints(ONE) as (installation, observer):
        meter = Meter(site, observer)
        before = await meter.read()
        result = await _produced(site, installation, ONE, way, seconds)
        cost, events = before.until(await meter.read()), int(result["events"])
    return Round(
        deliveries=events,
        seconds=result["seconds"],
        cpu={PRODUCER: result["cpu_seconds"], POSTGRESQL: cost.cpu[POSTGRESQL], REDIS: cost.cpu[REDIS]},
        figures={
            "p50_ms": result["p50_ms"],
            "p99_ms": result["p99_ms"],
            "wal_bytes": cost.wal_bytes / (events + result["before"]),
        },
    )


async def at_once(site: Site, case: Case, seconds: float) -> Round:
    """Return the cost of publishing and delivering together: 50 tasks publish for so long, as fast as they can.

    Its seconds are from the first request to the last, and so end when all is delivered.
    """
    to = case.endpoints
    async with site.with_endpoints(to) as (installation, observer):
        environment = environment_of(installation, site.receiver, case.ours)
        async with hookseal_workers(environment, site.worker_log, processes=case.processes) as running:
            await _delivered(site, installation, observer, to)
            meter = Meter(site, observer, running.pid)
            await site.receiver.forget()
            before = await meter.read()
            result = await _produced(site, installation, to, "publisher-50", seconds, body_bytes=case.body_bytes)
            number = int(result["events"] + result["before"])
            count = await site.receiver.all_of(number, _PATIENCE_SECONDS)
            await all_recorded(observer)
            cost = before.until(await meter.read())
    producer = result["cpu_seconds"] * number / max(1.0, result["events"])
    return _full_speed(count, cost._replace(cpu=cost.cpu | {PRODUCER: producer}), number, {})


async def latency(site: Site, case: Case, contender: str, per_second: float, seconds: float) -> Round:
    """Return the milliseconds from the publishing call to the request, at a steady rate after a warm-up.

    The worker and its endpoints are as installed, except that the contender may LISTEN, or have requests that hang.
    Events that were not sent within twice the publishing time after the last event are counted as `unsent`.
    """
    way, listens, hung = LATENCIES[contender]
    to = case.endpoints
    async with site.with_endpoints(to, _HANGING) as (installation, observer):
        more = {"HOOKSEAL_LISTEN": "true"} if listens else {}
        environment = environment_of(installation, site.receiver, **more)
        async with hookseal_workers(environment, site.worker_log) as running:
            if hung:
                await _hang(site, installation, observer)
            if case.is_warm:
                await _delivered(site, installation, observer, to)
            await site.receiver.forget()
            meter = Meter(site, observer, running.pid)
            before = meter.cpu()
            result = await _produced(site, installation, to, way, seconds, per_second=per_second, warm_up=_WARM_UP)
            expected = int(result["events"]) * to.answering // to.number
            milliseconds = await _arrived(site, expected, 2 * seconds)
            share = len(milliseconds) / (len(milliseconds) + result["before"])  # the warm-up is counted, too
            cpu = {part: share * (now - before[part]) for part, now in meter.cpu().items() if part != RECEIVER}
            if hung:
                running.kill()
    return Round(
        deliveries=len(milliseconds),
        seconds=result["seconds"],
        cpu=cpu,
        figures={
            "p50_ms": percentile(milliseconds, 0.5),
            "p99_ms": percentile(milliseconds, 0.99),
            "unsent": float(max(0, expected - len(milliseconds))),
            "refused": float(result["failed"]),
            "published_per_second": result["events"] / result["seconds"],
        },
    )


async def _arrived(site: Site, events: int, patience_seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_seconds
    while len(found := (await site.receiver.counted()).milliseconds) < events and loop.time() < until:  # noqa: ASYNC110 -- it is another process
        await asyncio.sleep(_LOOK_SECONDS)
    if not found:
        raise RuntimeError("nothing of what was published came to the receiver")
    return found


async def _produced(
    site: Site, installation: Installation, to: Endpoints, way: str, seconds: float, **more: Any
) -> dict[str, Any]:
    order = PublishOrder(way=way, targets=to.targets, database_url=installation.database_url, seconds=seconds, **more)
    environment = environment_of(installation, site.receiver) | {PUBLISH_ORDER: json.dumps(asdict(order))}
    log_file = site.folder / "producer.log"
    async with module("tools.bench.producer", environment=environment, log_file=log_file) as process:
        result: dict[str, Any] = json.loads(await line(process, log_file, seconds + _PATIENCE_SECONDS))
        return result


# An idle worker, one whose requests hang, its memory, and the number of statements a delivery.


async def idle(site: Site, seconds: float) -> Round:
    """Return the CPU of an idle worker and its servers, and the commands and statements a second, which are logged."""
    async with site.with_endpoints(ONE) as (installation, observer):
        await site.log(observer, "log_statement = 'all'")
        async with hookseal_workers(environment_of(installation, site.receiver), site.worker_log) as running:
            await asyncio.sleep(_SETTLE_SECONDS)
            statements = site.statements()
            cost = await _while(Meter(site, observer, running.pid), seconds)
            counted = site.statements() - statements
    figures = {
        "redis_commands_per_second": cost.redis_commands / seconds,
        "statements_per_second": counted / seconds,
    }
    return Round(seconds=seconds, cpu=cost.cpu, figures=figures | _shares(cost, seconds))


async def hung(site: Site, seconds: float) -> Round:
    """Return the CPU of a worker and its servers while 400 requests are in flight and none is answered."""
    async with site.with_endpoints(_HANGING) as (installation, observer):
        await site.receiver.forget()
        async with hookseal_workers(environment_of(installation, site.receiver), site.worker_log) as running:
            await _hang(site, installation, observer)
            await asyncio.sleep(_SETTLE_SECONDS)
            cost = await _while(Meter(site, observer, running.pid), seconds)
            running.kill()
    return Round(seconds=seconds, cpu=cost.cpu, figures=_shares(cost, seconds))


async def statements(site: Site, deliveries: int, per_second: float | None) -> Round:
    """Return the statements a delivery: for that many that wait from the start, or are published at a rate."""
    async with site.with_endpoints(ONE) as (installation, observer):
        await site.log(observer, "log_statement = 'all'")
        queued = await published(observer, ONE.names, 0 if per_second else deliveries)
        await observer.execute("ANALYZE")
        await rung(installation.redis_url, queued)
        async with hookseal_workers(environment_of(installation, site.receiver), site.worker_log):
            if per_second:
                await asyncio.sleep(_SETTLE_SECONDS)  # the statements of the start are none of a delivery
            before, loop = site.statements(), asyncio.get_running_loop()
            begun = loop.time()
            for number in range(deliveries if per_second else 0):
                await asyncio.sleep(max(0.0, begun + number / (per_second or 1) - loop.time()))
                await rung(installation.redis_url, await published(observer, ONE.names, 1))
            await all_recorded(observer)
            counted, elapsed = site.statements() - before, loop.time() - begun
    figures = {"statements": counted / deliveries, "per_second": deliveries / elapsed}
    return Round(deliveries=deliveries, seconds=elapsed, figures=figures)


async def in_flight(site: Site, body_bytes: int) -> Round:
    """Return the largest memory of a worker with its default of slow requests in flight, and that at rest before."""
    async with (
        site.with_endpoints(_HELD) as (installation, observer),
        hookseal_workers(environment_of(installation, site.receiver), site.worker_log) as running,
    ):
        await asyncio.sleep(_SETTLE_SECONDS)
        rest = most = resident_mb([running.pid])
        await rung(installation.redis_url, await published(observer, _HELD.names, DEFAULT_IN_FLIGHT, body_bytes))
        finished = asyncio.create_task(all_recorded(observer))
        while not finished.done():
            most = max(most, resident_mb([running.pid]))
            await asyncio.sleep(_LOOK_SECONDS)
        await finished
    return Round(deliveries=DEFAULT_IN_FLIGHT, figures={"rest_mb": rest, "most_mb": most})


async def _hang(site: Site, installation: Installation, observer: Connection) -> None:
    """Start 400 requests that the receiver does not answer."""
    await site.receiver.forget()
    await rung(installation.redis_url, await published(observer, _HANGING.names, HUNG_REQUESTS))
    await site.receiver.all_of(HUNG_REQUESTS, _PATIENCE_SECONDS)


async def _while(meter: Meter, seconds: float) -> Reading:
    before = await meter.read()
    await asyncio.sleep(seconds)
    return before.until(await meter.read())


def _shares(cost: Reading, seconds: float) -> dict[str, float]:
    return {f"{part}_cpu_percent": used * 100 / seconds for part, used in cost.cpu.items()}


# Whether a delivery costs the same with a backlog of a million, beside millions that have ended, or while an old
# transaction is open: nothing is rung, the worker finds due deliveries.


class Backlog:
    """A database for the backlog of a case, used by all of its rounds."""

    def __init__(self, site: Site, case: Case, installation: Installation, observer: Connection) -> None:
        self._site = site
        self._case = case
        self._installation = installation
        self._observer = observer
        self._filled = 0
        self._delivered = 0  # in all rounds

    async def measured(self, seconds: float) -> Round:
        """Return the cost of a delivery, measured for so many seconds with a backlog of about that size.

        At first it is as large to the nearest thousand, and none of it is rung or waits in a lane. It is filled again
        whenever 500 are delivered, in each case, so that this costs all of them the same.
        """
        async with Redis.from_url(self._installation.redis_url) as redis:
            await redis.flushdb()
        await self._observer.execute(_RESET)
        self._filled = await self._observer.fetchval(_PENDING)
        number_of_endpoints = self._case.endpoints.number
        await self._fill(round((self._case.waiting - self._filled) / number_of_endpoints))
        await self._observer.execute("VACUUM (ANALYZE)")
        await self._observer.execute("CHECKPOINT")  # else it would run in this window or that of another backlog
        receiver, loop = self._site.receiver, asyncio.get_running_loop()
        await receiver.forget()
        environment = environment_of(self._installation, receiver)
        async with hookseal_workers(environment, self._site.worker_log) as running:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while (first := await self._refilled()) < _LEAST_SENT:
                    pass
            meter = Meter(self._site, self._observer, running.pid)
            before, begun = await meter.read(), loop.time()
            while loop.time() < begun + seconds:
                await self._refilled()
            cost = before.until(await meter.read())
            number, elapsed = (await receiver.counted()).requests - first, loop.time() - begun
        if not number:
            raise RuntimeError(f"no delivery was made in {seconds:g} s")
        figures = {"redis_commands": cost.redis_commands / number, "delivered_before": float(self._delivered)}
        self._delivered += (await receiver.counted()).requests
        return Round(deliveries=number, seconds=elapsed, cpu=cost.cpu, figures=figures)

    async def _refilled(self) -> int:
        """Wait a moment, fill it if 500 are missing, and return the number of deliveries so far."""
        await asyncio.sleep(_LOOK_SECONDS)
        sent = (await self._site.receiver.counted()).requests
        if self._filled - sent <= self._case.waiting - self._case.endpoints.number // 2:
            await self._fill(1)
        return sent

    async def _fill(self, events: int) -> None:
        """Publish so many events, each for all endpoints. One statement stores them: a million within a minute."""
        if events > 0:
            self._filled += await stored_only(self._observer, self._case.endpoints.names, events)


@asynccontextmanager
async def backlog(site: Site, case: Case, number: int) -> AsyncIterator[Backlog]:
    """Provide a database for a backlog for the length of the block, beside those with other numbers (from 0 to 15)."""
    async with (
        site.with_endpoints(case.endpoints, number=number) as (installation, observer),
        AsyncExitStack() as open_,
    ):
        for table in ("events", "deliveries", "delivery_links", "attempts"):
            # It would run beside the rounds of the others.
            await observer.execute(f"ALTER TABLE hookseal.{table} SET (autovacuum_enabled = false)")
        for _ in range(case.retained // _RETAINED_AT_ONCE):
            events = _RETAINED_AT_ONCE // _OF_ONE_EVENT
            await observer.execute(_RETAIN, bodies.order(KB).encode(), events, _OF_ONE_EVENT)
        if case.snapshot:
            old = await open_.enter_async_context(site.observer(installation.database_url))
            await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await old.execute("SELECT count(*) FROM hookseal.deliveries")
        yield Backlog(site, case, installation, observer)
