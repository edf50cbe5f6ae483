"""Whether a delivery costs the same with a backlog of a million: nothing is rung, the worker finds due deliveries."""

import asyncio
from typing import Final

import asyncpg

from tools.bench.meter import Meter
from tools.bench.processes import hookseal_workers
from tools.bench.queued import stored_only
from tools.bench.results import Round
from tools.bench.site import ENDPOINTS, MANY, Site, environment_of

_CONCURRENCY: Final = 500
_BODY_BYTES: Final = 1_024
_PATIENCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_LEAST_SENT: Final = 500  # before the window begins: connections are open, secrets in the cache


async def backlog(site: Site, deliveries: int, seconds: float) -> Round:
    """Return the cost of a delivery, measured for so many seconds with a backlog of about that size.

    A small backlog is refilled whenever half of it is delivered; the cost of that in PostgreSQL is not counted.
    """
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        await _fill(observer, deliveries)
        await observer.execute("VACUUM (ANALYZE)")
        await site.receiver.forget()
        environment = environment_of(installation, site.receiver, _CONCURRENCY)
        async with hookseal_workers(environment, 1, site.folder / "worker.log") as pids:
            filled = await _sent(site, observer, _LEAST_SENT, (deliveries, deliveries))
            first, meter = (await site.receiver.counted()).requests, Meter(site, observer, pids)
            before, begun = await meter.read(), asyncio.get_running_loop().time()
            until = begun + seconds
            while asyncio.get_running_loop().time() < until:
                await asyncio.sleep(_LOOK_SECONDS)
                filled = await _refilled(site, observer, filled, deliveries)
            cpu, counts = before.until(await meter.read())
            count, elapsed = await site.receiver.counted(), asyncio.get_running_loop().time() - begun
    number = count.requests - first
    if not number:
        raise RuntimeError(f"no delivery was made in {seconds:g} s")
    return Round(
        deliveries=number,
        seconds=elapsed,
        cpu=cpu,
        figures={"redis_commands": counts["redis_commands"] / number},
    )


async def _sent(site: Site, observer: "asyncpg.Connection[asyncpg.Record]", least: int, sizes: tuple[int, int]) -> int:
    filled, wanted = sizes
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while (await site.receiver.counted()).requests < least:
            await asyncio.sleep(_LOOK_SECONDS)
            filled = await _refilled(site, observer, filled, wanted)
    return filled


async def _refilled(site: Site, observer: "asyncpg.Connection[asyncpg.Record]", filled: int, wanted: int) -> int:
    if filled - (await site.receiver.counted()).requests > wanted // 2:
        return filled
    await _fill(observer, ENDPOINTS)
    return filled + ENDPOINTS


async def _fill(observer: "asyncpg.Connection[asyncpg.Record]", deliveries: int) -> None:
    # An event for all endpoints stores their deliveries in one statement: so a million are there within a minute.
    stored = await stored_only(observer, MANY, -(-deliveries // ENDPOINTS), _BODY_BYTES)
    if stored < deliveries:
        raise RuntimeError(f"{stored} deliveries were stored in place of {deliveries}")
