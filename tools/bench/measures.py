"""What one round measures: full speed, publishing, latency, rest, memory, statements, and a backlog."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from hookseal.demo.installation import Installation
from hookseal.postgres.pool import Connection
from tools.bench.contenders.job import ORDER, Order
from tools.bench.environments import Environment
from tools.bench.plan import DEFAULT_IN_FLIGHT, Case
from tools.bench.producer import ORDER as PUBLISH_ORDER
from tools.bench.producer import Order as PublishOrder
from tools.bench.results import HANGING, LISTEN, RING, SQL, Round
from tools.harness import (
    ENDPOINTS,
    HELD,
    HUNG,
    KB,
    MANY,
    POSTGRESQL,
    PRODUCER,
    RECEIVER,
    REDIS,
    SECURE,
    SLOW,
    SLOW_MS,
    TENANT,
    WIDE,
    Count,
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
    "transport, kept": "with_transport",
    "transport, anew": "with_transport",
}
_WITHOUT_QUEUE: Final = ("bare aiohttp", "transport, kept", "transport, anew")
# The contender of the scenario, and the producer's way.
WAYS: Final = {
    "Publisher, one at a time": "publisher",
    "Publisher, 50 at once": "publisher-50",
    "SQL, one connection": "sql",
    "Publisher, 100 in one call": "publisher-many",
    "SQL, 100 in one call": "sql-many",
    "one INSERT and one ping": "insert-ping",
}
HUNG_REQUESTS: Final = 400
_PATIENCE_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.05
_WARM_UP: Final = 20  # events
_LEAST_SENT: Final = 500  # before a backlog is measured: half of the endpoints have been used
_RESET: Final = """
UPDATE hookseal.deliveries SET rung_at = NULL, waiting_for = NULL, held_at = NULL
WHERE state = 'pending' AND (rung_at IS NOT NULL OR waiting_for IS NOT NULL);
DELETE FROM hookseal.lanes
"""
_PENDING: Final = "SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending'"
_SIZE: Final = "SELECT pg_database_size(current_database())"


def tenant_of(case: Case) -> str:
    """Return the tenant with the endpoints of the case."""
    if case.endpoints == ENDPOINTS:
        return MANY
    tenant = SLOW if case.receiver_ms == SLOW_MS else (SECURE if case.secure else TENANT)
    return tenant + WIDE if case.limit else tenant


# That many deliveries, all queued before the worker starts, at full speed.


async def ours(site: Site, case: Case, deliveries: int) -> Round:
    """Return the cost of hookseal: every delivery is claimed, signed, sent, recorded, logged and measured."""
    async with site.fresh() as (installation, observer):
        empty = await observer.fetchval(_SIZE)
        queued = await published(observer, tenant_of(case), deliveries, case.body_bytes)
        await observer.execute("ANALYZE hookseal.endpoints, hookseal.events, hookseal.deliveries")  # as autovacuum has
        await rung(installation.redis_url, queued)
        await site.receiver.forget()
        environment = environment_of(installation, site.receiver, case.ours)
        meter, number = Meter(site, observer), len(queued.rings)
        before = await meter.read()
        on_ready = meter.ready if case.processes == 1 else meter.parent_ready
        async with hookseal_workers(environment, site.worker_log, processes=case.processes, on_ready=on_ready):
            count = await site.receiver.all_of(number, _PATIENCE_SECONDS)
            await all_recorded(observer)
            cost = await meter.since_ready(before, number)
        stored = await observer.fetchval(_SIZE) - empty
    own = {"publish_wal_bytes": queued.wal_bytes / number, "stored_bytes": stored / number}
    return _full_speed(count, cost, number, own)


async def theirs(site: Site, case: Case, deliveries: int, contender: str, environment: Environment) -> Round:
    """Return the cost of a contender; its worker is killed once the receiver has received everything."""
    async with site.database() as url, site.observer(url) as observer, AsyncExitStack() as working:
        order = Order(
            url=site.receiver.url(secure=case.secure, does=case.receiver_ms),
            postgres_url=url,
            redis_url=site.stack.valkey.url,
            deliveries=deliveries,
            concurrency=case.concurrency,
            body_bytes=case.body_bytes,
            authority=str(site.receiver.authority) if case.secure else "",
            kept=contender != "transport, anew",
        )
        shares = [deliveries] * case.processes
        if contender in _WITHOUT_QUEUE:
            shares = [deliveries // case.processes + (n < deliveries % case.processes) for n in range(case.processes)]
        else:
            async with _begun(site, order, contender, environment, "enqueue") as process:
                if await process.wait():
                    raise RuntimeError(f"its jobs could not be queued: {last_error_line(site.folder / 'enqueue.log')}")
        await site.receiver.forget()
        meter = Meter(site, observer)
        before = await meter.read()
        starting = []
        for number, share in enumerate(shares):
            name, own = f"work-{number}", Order(**asdict(order) | {"deliveries": share})
            process = await working.enter_async_context(_begun(site, own, contender, environment, name))
            starting.append(_ready(process, site.folder / f"{name}.log", meter))
        await asyncio.gather(*starting)
        count = await site.receiver.all_of(deliveries, _PATIENCE_SECONDS)
        return _full_speed(count, await meter.since_ready(before, deliveries), deliveries, {})


@asynccontextmanager
async def _begun(
    site: Site, order: Order, contender: str, environment: Environment, name: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process of a contender, which does what its name says before the dash, for the length of the block."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HOOKSEAL"))}
    async with module(
        *(f"tools.bench.contenders.{MODULES[contender]}", name.partition("-")[0]),
        environment=clean | {ORDER: json.dumps(asdict(order))},
        log_file=site.folder / f"{name}.log",
        python=environment.python,
    ) as process:
        yield process


async def _ready(process: asyncio.subprocess.Process, log_file: Path, meter: Meter) -> None:
    await line(process, log_file)
    await meter.ready(process.pid)


def _full_speed(count: Count, cost: Reading, deliveries: int, own: Mapping[str, float]) -> Round:
    figures = {
        "wal_bytes": cost.wal_bytes / deliveries,
        "redis_commands": cost.redis_commands / deliveries,
        "connections_per_1000": count.connections * 1000 / max(1, count.requests),
    }
    return Round(deliveries=deliveries, seconds=count.seconds, cpu=cost.cpu, figures={**figures, **own})


# Publishing, and the latency from there to the request.


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How a latency is measured. The worker and its endpoint are as installed, except for `listen` and `hung`."""

    scenario: str
    title: str
    way: str
    listen: bool = False
    per_second: float = 20.0
    hung: int = 0  # requests in flight to a receiver that does not answer


LATENCIES: Final = (
    Latency(scenario="latency-20", title=RING, way="publisher-50"),
    Latency(scenario="latency-20", title=SQL, way="sql-pool"),
    Latency(scenario="latency-20", title=LISTEN, way="sql-pool", listen=True),
    Latency(scenario="latency-20", title=HANGING, way="publisher-50", hung=HUNG_REQUESTS),
    Latency(scenario="latency-500", title=RING, way="publisher-50", per_second=500.0),
    Latency(scenario="latency-500", title=SQL, way="sql-pool", per_second=500.0),
    Latency(scenario="latency-500", title=LISTEN, way="sql-pool", listen=True, per_second=500.0),
)


async def publishing(site: Site, way: str, seconds: float) -> Round:
    """Return the cost of publishing in that way, while no worker runs."""
    async with site.fresh() as (installation, observer):
        meter = Meter(site, observer)
        before = await meter.read()
        result = await _produced(site, installation, WAYS[way], seconds)
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


async def latency(site: Site, asked: Latency, seconds: float) -> Round:
    """Return the milliseconds from the publishing call to the request, at a steady rate after a warm-up.

    Events that were not sent within twice the publishing time after the last event are counted as `unsent`.
    """
    async with site.fresh() as (installation, observer):
        await site.receiver.forget()
        listens = {"HOOKSEAL_LISTEN": "true"} if asked.listen else {}
        environment = environment_of(installation, site.receiver, **listens)
        async with hookseal_workers(environment, site.worker_log) as running:
            await _hang(site, installation, observer, asked.hung)
            meter = Meter(site, observer, running.pid)
            before = meter.cpu()
            steady = {"per_second": asked.per_second, "warm_up": _WARM_UP}
            result = await _produced(site, installation, asked.way, seconds, **steady)
            milliseconds = await _arrived(site, int(result["events"]), 2 * seconds)
            share = len(milliseconds) / (len(milliseconds) + result["before"])  # the warm-up is counted, too
            cpu = {part: share * (now - before[part]) for part, now in meter.cpu().items() if part != RECEIVER}
            if asked.hung:
                running.kill()
    return Round(
        deliveries=len(milliseconds),
        seconds=result["seconds"],
        cpu=cpu,
        figures={
            "p50_ms": percentile(milliseconds, 0.5),
            "p99_ms": percentile(milliseconds, 0.99),
            "unsent": float(result["events"] - len(milliseconds)),
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


async def _produced(site: Site, installation: Installation, way: str, seconds: float, **more: Any) -> dict[str, Any]:
    order = PublishOrder(
        way=way, tenant=TENANT, database_url=installation.database_url, seconds=seconds, body_bytes=KB, **more
    )
    environment = environment_of(installation, site.receiver) | {PUBLISH_ORDER: json.dumps(asdict(order))}
    log_file = site.folder / "producer.log"
    async with module("tools.bench.producer", environment=environment, log_file=log_file) as process:
        result: dict[str, Any] = json.loads(await line(process, log_file, seconds + _PATIENCE_SECONDS))
        return result


# An idle worker, one whose requests hang, its memory, and the number of statements a delivery.


async def idle(site: Site, seconds: float) -> Round:
    """Return the CPU of an idle worker and its servers, and the commands and statements a second, which are logged."""
    async with site.fresh() as (installation, observer):
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
    async with site.fresh() as (installation, observer):
        await site.receiver.forget()
        async with hookseal_workers(environment_of(installation, site.receiver), site.worker_log) as running:
            await _hang(site, installation, observer, HUNG_REQUESTS)
            await asyncio.sleep(_SETTLE_SECONDS)
            cost = await _while(Meter(site, observer, running.pid), seconds)
            running.kill()
    return Round(seconds=seconds, cpu=cost.cpu, figures=_shares(cost, seconds))


async def statements(site: Site, deliveries: int, per_second: float | None, tenant: str = TENANT) -> Round:
    """Return the statements a delivery: for that many that wait from the start, or are published at a rate."""
    async with site.fresh() as (installation, observer):
        await site.log(observer, "log_statement = 'all'")
        queued = await published(observer, tenant, 0 if per_second else deliveries)
        await observer.execute("ANALYZE")
        await rung(installation.redis_url, queued)
        async with hookseal_workers(environment_of(installation, site.receiver), site.worker_log):
            if per_second:
                await asyncio.sleep(_SETTLE_SECONDS)  # the statements of the start are none of a delivery
            before, loop = site.statements(), asyncio.get_running_loop()
            begun = loop.time()
            for number in range(deliveries if per_second else 0):
                await asyncio.sleep(max(0.0, begun + number / (per_second or 1) - loop.time()))
                await rung(installation.redis_url, await published(observer, tenant, 1))
            await all_recorded(observer)
            counted, elapsed = site.statements() - before, loop.time() - begun
    figures = {"statements": counted / deliveries, "per_second": deliveries / elapsed}
    return Round(deliveries=deliveries, seconds=elapsed, figures=figures)


async def in_flight(site: Site, body_bytes: int) -> Round:
    """Return the largest memory of a worker with its default of slow requests in flight, and that at rest before."""
    async with (
        site.fresh() as (installation, observer),
        hookseal_workers(environment_of(installation, site.receiver), site.worker_log) as running,
    ):
        await asyncio.sleep(_SETTLE_SECONDS)
        rest = most = resident_mb([running.pid])
        await rung(installation.redis_url, await published(observer, HELD + WIDE, DEFAULT_IN_FLIGHT, body_bytes))
        finished = asyncio.create_task(all_recorded(observer))
        while not finished.done():
            most = max(most, resident_mb([running.pid]))
            await asyncio.sleep(_LOOK_SECONDS)
        await finished
    return Round(deliveries=DEFAULT_IN_FLIGHT, figures={"rest_mb": rest, "most_mb": most})


async def _hang(site: Site, installation: Installation, observer: Connection, requests: int) -> None:
    """Start so many requests that the receiver does not answer, and reset its counts afterwards."""
    await rung(installation.redis_url, await published(observer, HUNG + WIDE, requests))
    await site.receiver.all_of(requests, _PATIENCE_SECONDS)
    await site.receiver.forget()


async def _while(meter: Meter, seconds: float) -> Reading:
    before = await meter.read()
    await asyncio.sleep(seconds)
    return before.until(await meter.read())


def _shares(cost: Reading, seconds: float) -> dict[str, float]:
    return {f"{part}_cpu_percent": used * 100 / seconds for part, used in cost.cpu.items()}


# Whether a delivery costs the same with a backlog of a million: nothing is rung, the worker finds due deliveries.


class Backlog:
    """A database for a backlog of that many deliveries, used by all of its rounds."""

    def __init__(self, site: Site, deliveries: int, installation: Installation, observer: Connection) -> None:
        self._site = site
        self._deliveries = deliveries
        self._installation = installation
        self._observer = observer
        self._filled = 0

    async def measured(self, seconds: float) -> Round:
        """Return the cost of a delivery, measured for so many seconds with a backlog of about that size.

        At first it is as large to the nearest thousand, and none of it is rung or waits in a lane. It is filled again
        whenever 500 are delivered, at each size, so that this costs all of them the same.
        """
        async with Redis.from_url(self._installation.redis_url) as redis:
            await redis.flushdb()
        await self._observer.execute(_RESET)
        self._filled = await self._observer.fetchval(_PENDING)
        await self._fill(round((self._deliveries - self._filled) / ENDPOINTS))
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
        figures = {"redis_commands": cost.redis_commands / number}
        return Round(deliveries=number, seconds=elapsed, cpu=cost.cpu, figures=figures)

    async def _refilled(self) -> int:
        """Wait a moment, fill it if 500 are missing, and return the number of deliveries so far."""
        await asyncio.sleep(_LOOK_SECONDS)
        sent = (await self._site.receiver.counted()).requests
        if self._filled - sent <= self._deliveries - ENDPOINTS // 2:
            await self._fill(1)
        return sent

    async def _fill(self, events: int) -> None:
        """Publish so many events, each for all endpoints. One statement stores them: a million within a minute."""
        if events > 0:
            self._filled += await stored_only(self._observer, MANY, events)


@asynccontextmanager
async def backlog(site: Site, deliveries: int, number: int) -> AsyncIterator[Backlog]:
    """Provide a database for a backlog for the length of the block, beside those with other numbers (from 0 to 15)."""
    async with site.fresh(number) as (installation, observer):
        for table in ("events", "deliveries", "delivery_links", "attempts"):
            # It would run beside the rounds of the others.
            await observer.execute(f"ALTER TABLE hookseal.{table} SET (autovacuum_enabled = false)")
        yield Backlog(site, deliveries, installation, observer)
