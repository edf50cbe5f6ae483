"""The soak: one worker delivers a steady stream, and the retention removes what ended one short day ago."""

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
import structlog

from hookseal.dispatcher.store.history import PostgresHistory
from hookseal.postgres.connect import connection_pool
from hookseal.worker.maintenance import Retention
from hookseal.worker.metrics.counters import WorkerMeter
from tools.bench.cpu import resident_mb
from tools.bench.processes import hookseal_workers
from tools.bench.queued import stored_only
from tools.bench.results import Machine, percentile
from tools.bench.site import TENANT, WIDE, Site, environment_of, site
from tools.governance.recording import commit_of, cpu_model, is_dirty
from tools.soak.claims import ClaimLog
from tools.soak.record import Sample, Soak

ROOT: Final = Path(__file__).resolve().parents[2]
_CONCURRENCY: Final = 200
_BODY_BYTES: Final = 1_024
_FEED_SECONDS: Final = 0.1
_MOST_WAITING: Final = 5_000  # a machine that is slower than the stream gets no backlog
_SAMPLES_IN_A_DAY: Final = 6
_SCALE: Final = 60.0  # the retention's minute lasts a second
_DAY: Final = "make_interval(days => greatest($1, 1), mins => 1)"
_LOGGED: Final = ("log_min_duration_sample = 0", "log_statement_sample_rate = 0.5", "log_parameter_max_length = 0")
_STATE: Final = """
SELECT pg_database_size(current_database()) / 1e6 AS size_mb,
       (SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname = ANY ($2)) AS dead_rows,
       (SELECT sum(autovacuum_count) FROM pg_stat_user_tables WHERE relname = ANY ($2)) AS vacuums,
       (SELECT count(*) FROM hookseal.deliveries) AS stored,
       greatest(coalesce((SELECT extract(epoch FROM now() - min(finished_at)) FROM hookseal.deliveries
                          WHERE finished_at IS NOT NULL) - $1, 0), 0)::float8 AS late_seconds
"""
_TABLES: Final = ["deliveries", "delivery_links", "attempts", "events"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many deliveries are made, how many a second at most, and how long each is kept."""

    deliveries: int
    per_second: int
    keep_seconds: int
    deadline_seconds: float


class _FastClock:
    """A clock on which a minute passes in a second, so that the retention has as many looks as in a real day."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic() * _SCALE

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / _SCALE)


async def soaked(size: Size, command: str) -> Soak:
    """Run the soak on servers of its own, and return its record."""
    commit, dirty = commit_of(ROOT), is_dirty(ROOT)  # of the code that runs, whatever is edited meanwhile
    async with site() as here:
        machine = await _machine(here)
        async with here.fresh() as installation, here.observer(installation.database_url) as observer:
            await _shorten_the_day(observer, size.keep_seconds)
            await _log_claims(observer)
            environment = environment_of(installation, here.receiver, _CONCURRENCY)
            async with (
                hookseal_workers(environment, 1, here.folder / "worker.log") as pids,
                _removing(installation.database_url) as meter,
            ):
                log = ClaimLog(here.folder / "postgres.log")
                watch = _Watch(observer=observer, meter=meter, log=log, keep_seconds=size.keep_seconds, pids=pids)
                samples = await _run(here, watch, size)
    return Soak(
        commit=commit,
        is_dirty=dirty,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        command=command,
        keep_seconds=size.keep_seconds,
        per_second=size.per_second,
        machine=machine,
        samples=tuple(samples),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """Where the figures of a sample come from."""

    observer: "asyncpg.Connection[asyncpg.Record]"
    meter: WorkerMeter
    log: ClaimLog
    keep_seconds: int
    pids: tuple[int, ...]

    async def sample(self, elapsed: float, delivered: int) -> Sample:
        """Return the state now."""
        row = await self.observer.fetchrow(_STATE, float(self.keep_seconds), _TABLES)
        if row is None:
            raise RuntimeError("the state of the database has one row")
        if not (worker_mb := resident_mb(self.pids)):
            raise RuntimeError("the worker has ended")
        claims = self.log.milliseconds()
        return Sample(
            seconds=round(elapsed, 1),
            delivered=delivered,
            removed=_removed(self.meter),
            size_mb=round(float(row["size_mb"]), 2),
            stored=row["stored"],
            dead_rows=int(row["dead_rows"]),
            vacuums=int(row["vacuums"]),
            late_seconds=round(row["late_seconds"], 1),
            claims=len(claims),
            claim_p50_ms=percentile(claims, 0.5) if claims else 0.0,
            claim_p99_ms=percentile(claims, 0.99) if claims else 0.0,
            worker_mb=round(worker_mb, 1),
        )


async def _run(here: Site, watch: _Watch, size: Size) -> list[Sample]:
    """Publish until all are published, and take a sample every sixth of a retention."""
    loop = asyncio.get_running_loop()
    await here.receiver.forget()
    begun, published, samples = loop.time(), 0, list[Sample]()
    every = size.keep_seconds / _SAMPLES_IN_A_DAY
    while (elapsed := loop.time() - begun) < size.deadline_seconds:
        delivered = (await here.receiver.counted()).requests
        if elapsed >= every * (len(samples) + 1):
            samples.append(await watch.sample(elapsed, delivered))
        if delivered >= size.deliveries:
            break
        if published < size.deliveries and published - delivered < _MOST_WAITING:
            published += await stored_only(
                watch.observer, TENANT + WIDE, round(size.per_second * _FEED_SECONDS), _BODY_BYTES
            )
        await asyncio.sleep(max(0.0, begun + elapsed + _FEED_SECONDS - loop.time()))
    return samples


@asynccontextmanager
async def _removing(database_url: str) -> AsyncIterator[WorkerMeter]:
    """Run the retention of a worker for the length of the block, with a retention of one short day."""
    meter = WorkerMeter()
    async with connection_pool(database_url, size=1) as pool:
        retention = Retention(
            PostgresHistory(pool), lambda: True, days=1, clock=_FastClock(), meter=meter, log=structlog.get_logger()
        )
        running = asyncio.create_task(retention.run())
        try:
            yield meter
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def _removed(meter: WorkerMeter) -> int:
    return next(
        int(sample.value)
        for family in meter.collect()
        for sample in family.samples
        if sample.name == "hookseal_removed_total" and sample.labels["table"] == "deliveries"
    )


async def _shorten_the_day(observer: "asyncpg.Connection[asyncpg.Record]", seconds: int) -> None:
    """Replace the unit of the retention in this database: nothing else of the functions changes."""
    for name in ("remove_deliveries", "remove_events"):
        text = await observer.fetchval("SELECT pg_get_functiondef(('hookseal.' || $1::text)::regproc)", name)
        if text.count(_DAY) != 1:
            raise RuntimeError(f"{name} does not count days as the soak expects")
        await observer.execute(text.replace(_DAY, f"make_interval(secs => {seconds} * greatest($1, 1))"))


async def _log_claims(observer: "asyncpg.Connection[asyncpg.Record]") -> None:
    database = await observer.fetchval("SELECT current_database()")
    for setting in _LOGGED:
        await observer.execute(f'ALTER DATABASE "{database}" SET {setting}')


async def _machine(here: Site) -> Machine:
    postgresql, redis = await here.versions()
    return Machine(
        cpu=cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_024**2,
        kernel=platform.release().split("-")[0],
        python=platform.python_version(),
        postgresql=postgresql,
        redis=redis,
    )
