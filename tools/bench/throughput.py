"""One round of one contender: that many deliveries, all queued before its worker starts, at full speed."""

import asyncio
import json
import os
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from tools.bench.contenders.job import ORDER, Order
from tools.bench.environments import Environment
from tools.bench.meter import Meter
from tools.bench.plan import Case
from tools.bench.processes import OnReady, ended, hookseal_workers, last_error_line, line, module
from tools.bench.queued import all_recorded, published, rung, size_bytes, tenant_of
from tools.bench.receiver import Count
from tools.bench.results import Round
from tools.bench.site import Site, environment_of

MODULES: Final[Mapping[str, str]] = {
    "bare aiohttp": "with_aiohttp",
    "stock arq": "with_arq",
    "saq": "with_saq",
    "taskiq": "with_taskiq",
    "procrastinate": "with_procrastinate",
    "pgqueuer": "with_pgqueuer",
    "transport, kept": "with_transport",
    "transport, anew": "with_transport",
}
_PATIENCE_SECONDS: Final = 60.0


async def ours(site: Site, case: Case, deliveries: int) -> Round:
    """Return the cost of hookseal: every delivery is claimed, signed, sent, recorded, logged and measured."""
    tenant = tenant_of(case)
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        empty = await size_bytes(observer)
        queued = await published(observer, tenant, deliveries, case.body_bytes)
        await observer.execute("ANALYZE hookseal.endpoints, hookseal.events, hookseal.deliveries")  # as autovacuum has
        await rung(installation.redis_url, queued)
        await site.receiver.forget()
        environment = environment_of(installation, site.receiver, case.ours)
        meter = Meter(site, observer)
        before = await meter.read()
        on_ready = meter.ready if case.processes == 1 else meter.parent_ready
        async with hookseal_workers(environment, case.processes, site.folder / "worker.log", on_ready):
            count = await site.receiver.all_of(len(queued.rings), _PATIENCE_SECONDS)
            await all_recorded(observer, _PATIENCE_SECONDS)
            cpu, counts = meter.since_ready(before).until(await meter.read())
        stored = await size_bytes(observer) - empty
    number = len(queued.rings)
    return Round(
        deliveries=number,
        seconds=count.seconds,
        cpu=meter.for_all(cpu, number),
        figures=_each(counts, number)
        | _connections(count)
        | {"publish_wal_bytes": queued.wal_bytes / number, "stored_bytes": stored / number},
    )


async def theirs(site: Site, case: Case, deliveries: int, *, contender: str, environment: Environment) -> Round:
    """Return the cost of a contender; its worker is killed once the receiver has received everything."""
    async with site.database() as url, site.observer(url) as observer:
        order = _order(site, case, deliveries, contender=contender, postgres_url=url)
        await _enqueued(site, contender, environment, order)
        await site.receiver.forget()
        shares = [order] * case.processes
        if _has_no_queue(contender):
            shares = _split(order, case.processes)
        meter = Meter(site, observer)
        before = await meter.read()
        working = partial(_begun, environment.python, contender=contender, mode="work")
        async with _working(site, shares, working, meter.ready):
            count = await site.receiver.all_of(deliveries, _PATIENCE_SECONDS)
            cpu, counts = meter.since_ready(before).until(await meter.read())
    return Round(
        deliveries=deliveries,
        seconds=count.seconds,
        cpu=meter.for_all(cpu, deliveries),
        figures=_each(counts, deliveries) | _connections(count),
    )


def _order(site: Site, case: Case, deliveries: int, *, contender: str, postgres_url: str) -> Order:
    return Order(
        url=site.receiver.url(secure=case.secure, delay_ms=case.receiver_ms),
        postgres_url=postgres_url,
        redis_url=site.stack.valkey.url,
        deliveries=deliveries,
        concurrency=case.concurrency,
        body_bytes=case.body_bytes,
        authority=str(site.receiver.authority) if case.secure else "",
        kept=contender != "transport, anew",
    )


def _has_no_queue(contender: str) -> bool:
    return contender in {"bare aiohttp", "transport, kept", "transport, anew"}


def _split(order: Order, processes: int) -> list[Order]:
    rest = order.deliveries % processes
    shares = [order.deliveries // processes + (number < rest) for number in range(processes)]
    return [Order(**asdict(order) | {"deliveries": share}) for share in shares]


async def _enqueued(site: Site, contender: str, environment: Environment, order: Order) -> None:
    if _has_no_queue(contender):
        return
    log_file = site.folder / "enqueue.log"
    with log_file.open("wb") as log:
        process = await _begun(environment.python, order, log, contender=contender, mode="enqueue")
    try:
        if await process.wait():
            raise RuntimeError(f"its jobs could not be queued: {last_error_line(log_file)}")
    finally:
        await ended(process)


@asynccontextmanager
async def _working(
    site: Site, orders: list[Order], begin: Callable[[Order, BinaryIO], Awaitable[Process]], on_ready: OnReady
) -> AsyncIterator[None]:
    log_file = site.folder / "contender.log"
    processes: list[Process] = []

    async def note_ready(process: Process) -> None:
        await line(process, log_file)
        await on_ready(process.pid)

    try:
        with log_file.open("wb") as log:
            for order in orders:
                processes.append(await begin(order, log))  # noqa: PERF401 -- each is ended, whichever fails to start
        await asyncio.gather(*(note_ready(process) for process in processes))
        yield
    finally:
        for process in processes:
            await ended(process)


async def _begun(python: Path, order: Order, log: BinaryIO, *, contender: str, mode: str) -> Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HOOKSEAL"))}
    return await module(
        *(python, f"tools.bench.contenders.{MODULES[contender]}", mode),
        environment=environment | {ORDER: json.dumps(asdict(order))},
        log=log,
    )


def _each(counts: Mapping[str, float], deliveries: int) -> dict[str, float]:
    return {name: count / deliveries for name, count in counts.items()}


def _connections(count: Count) -> dict[str, float]:
    return {"connections_per_1000": count.connections * 1000 / max(1, count.requests)}
