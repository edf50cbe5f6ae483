"""The cost of an idle worker, its memory, and the number of statements a delivery."""

import asyncio
import os
import signal
from typing import Final

import asyncpg

from hookseal.demo.installation import Installation
from tools.bench.cpu import resident_mb
from tools.bench.meter import Meter
from tools.bench.plan import DEFAULT_IN_FLIGHT
from tools.bench.processes import hookseal_workers
from tools.bench.queued import all_recorded, published, rung
from tools.bench.results import Round
from tools.bench.site import HELD, HUNG, TENANT, WIDE, Site, environment_of

_SETTLE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 60.0
_KB: Final = 1_024


async def idle(site: Site, seconds: float) -> Round:
    """Return the CPU of an idle worker and its servers, and the commands and statements a second.

    Every statement is logged meanwhile, to be counted.
    """
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        await site.log_statements(observer)
        environment = environment_of(installation, site.receiver)
        async with hookseal_workers(environment, 1, site.folder / "worker.log") as pids:
            await asyncio.sleep(_SETTLE_SECONDS)
            meter = Meter(site, observer, pids)
            before, statements = await meter.read(), site.statements()
            await asyncio.sleep(seconds)
            cpu, counts = before.until(await meter.read())
            figures = {
                "redis_commands_per_second": counts["redis_commands"] / seconds,
                "statements_per_second": (site.statements() - statements) / seconds,
            }
    shares = {f"{part}_cpu_percent": used * 100 / seconds for part, used in cpu.items()}
    return Round(seconds=seconds, cpu=cpu, figures=figures | shares)


async def hung(site: Site, requests: int, seconds: float) -> Round:
    """Return the CPU of a worker and its servers while that many requests are in flight and none is answered."""
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        environment = environment_of(installation, site.receiver)
        await site.receiver.forget()
        async with hookseal_workers(environment, 1, site.folder / "worker.log") as pids:
            await hang(site, installation, observer, requests)
            await asyncio.sleep(_SETTLE_SECONDS)
            meter = Meter(site, observer, pids)
            before = await meter.read()
            await asyncio.sleep(seconds)
            cpu, _ = before.until(await meter.read())
            kill(pids)
    return Round(
        seconds=seconds, cpu=cpu, figures={f"{part}_cpu_percent": used * 100 / seconds for part, used in cpu.items()}
    )


async def hang(
    site: Site, installation: Installation, observer: "asyncpg.Connection[asyncpg.Record]", requests: int
) -> None:
    """Start so many requests that the receiver does not answer, and reset its counts afterwards."""
    await rung(installation.redis_url, await published(observer, HUNG + WIDE, requests, _KB))
    await site.receiver.all_of(requests, _PATIENCE_SECONDS)
    await site.receiver.forget()


def kill(pids: tuple[int, ...]) -> None:
    """Kill workers, since a drain would wait for the hanging requests."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


async def statements(site: Site, deliveries: int, per_second: float | None, tenant: str = TENANT) -> Round:
    """Return the statements a delivery: for that many that wait from the start, or are published at a rate."""
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        await site.log_statements(observer)
        queued = await published(observer, tenant, 0 if per_second else deliveries, _KB)
        await observer.execute("ANALYZE")
        await rung(installation.redis_url, queued)
        environment = environment_of(installation, site.receiver)
        async with hookseal_workers(environment, 1, site.folder / "worker.log"):
            if per_second:
                await asyncio.sleep(_SETTLE_SECONDS)  # the statements of the start are none of a delivery
            before = site.statements()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            if per_second:
                for number in range(deliveries):
                    await asyncio.sleep(max(0.0, begun + number / per_second - loop.time()))
                    await rung(installation.redis_url, await published(observer, tenant, 1, _KB))
            await all_recorded(observer, _PATIENCE_SECONDS)
            number, elapsed = site.statements() - before, loop.time() - begun
    return Round(
        deliveries=deliveries,
        seconds=elapsed,
        figures={"statements": number / deliveries, "per_second": deliveries / elapsed},
    )


async def in_flight(site: Site, body_bytes: int) -> Round:
    """Return the largest memory of a worker with its default of slow requests in flight, and that at rest before."""
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        environment = environment_of(installation, site.receiver)
        async with hookseal_workers(environment, 1, site.folder / "worker.log") as pids:
            await asyncio.sleep(_SETTLE_SECONDS)
            rest = resident_mb(pids)
            await rung(installation.redis_url, await published(observer, HELD + WIDE, DEFAULT_IN_FLIGHT, body_bytes))
            samples = [rest]
            finished = asyncio.create_task(all_recorded(observer, _PATIENCE_SECONDS))
            while not finished.done():
                samples.append(resident_mb(pids))
                await asyncio.sleep(_LOOK_SECONDS)
            await finished
    return Round(deliveries=DEFAULT_IN_FLIGHT, figures={"rest_mb": rest, "most_mb": max(samples)})
