"""Whether a delivery costs the same with a backlog of a million: nothing is rung, the worker finds due deliveries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg
from redis.asyncio import Redis

from hookseal.demo.installation import Installation
from tools.bench.meter import Meter
from tools.bench.processes import hookseal_workers
from tools.bench.queued import stored_only
from tools.bench.results import Round
from tools.bench.site import ENDPOINTS, MANY, Site, environment_of

_BODY_BYTES: Final = 1_024
_PATIENCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_LEAST_SENT: Final = 500  # before the window begins: half of the endpoints have been used
_RESET: Final = """
UPDATE hookseal.deliveries SET rung_at = NULL, waiting_for = NULL, held_at = NULL
WHERE state = 'pending' AND (rung_at IS NOT NULL OR waiting_for IS NOT NULL);
DELETE FROM hookseal.lanes
"""
_PENDING: Final = "SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A database for a backlog of that many deliveries, and a connection of the benchmark's own to it."""

    deliveries: int
    installation: Installation
    observer: "asyncpg.Connection[asyncpg.Record]"


@asynccontextmanager
async def waiting(site: Site, deliveries: int, number: int) -> AsyncIterator[Waiting]:
    """Provide a database for a backlog for the length of the block, beside those with other numbers (from 0 to 15)."""
    async with site.fresh(number) as installation, site.observer(installation.database_url) as observer:
        # It would run beside the rounds of the others.
        for table in ("events", "deliveries", "delivery_links", "attempts"):
            await observer.execute(f"ALTER TABLE hookseal.{table} SET (autovacuum_enabled = false)")
        yield Waiting(deliveries=deliveries, installation=installation, observer=observer)


async def backlog(site: Site, of: Waiting, seconds: float) -> Round:
    """Return the cost of a delivery, measured for so many seconds with a backlog of about that size.

    At first it is as large to the nearest thousand, and none of it is rung or waits in a lane. It is filled again
    whenever 500 are delivered, at each size, so that this costs all of them the same.
    """
    async with Redis.from_url(of.installation.redis_url) as redis:
        await redis.flushdb()
    await of.observer.execute(_RESET)
    pending = await of.observer.fetchval(_PENDING)
    at_first = pending + await _fill(of, round((of.deliveries - pending) / ENDPOINTS))
    await of.observer.execute("VACUUM (ANALYZE)")
    await of.observer.execute("CHECKPOINT")  # else it would run in this window or that of another backlog
    await site.receiver.forget()
    environment = environment_of(of.installation, site.receiver)
    async with hookseal_workers(environment, 1, site.folder / "worker.log") as pids:
        filled = await _sent(site, of, _LEAST_SENT, at_first)
        first, meter = (await site.receiver.counted()).requests, Meter(site, of.observer, pids)
        before, begun = await meter.read(), asyncio.get_running_loop().time()
        until = begun + seconds
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            filled = await _refilled(site, of, filled)
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


async def _sent(site: Site, of: Waiting, least: int, filled: int) -> int:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while (await site.receiver.counted()).requests < least:
            await asyncio.sleep(_LOOK_SECONDS)
            filled = await _refilled(site, of, filled)
    return filled


async def _refilled(site: Site, of: Waiting, filled: int) -> int:
    if filled - (await site.receiver.counted()).requests > of.deliveries - ENDPOINTS // 2:
        return filled
    return filled + await _fill(of, 1)


async def _fill(of: Waiting, events: int) -> int:
    """Publish so many events, each for all endpoints, and return the number of deliveries.

    One statement stores them: so a million are there within a minute.
    """
    if events <= 0:
        return 0
    stored = await stored_only(of.observer, MANY, events, _BODY_BYTES)
    if stored < events * ENDPOINTS:
        raise RuntimeError(f"{stored} deliveries were stored in place of {events * ENDPOINTS}")
    return stored
