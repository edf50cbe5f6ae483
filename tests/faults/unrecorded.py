"""Faults in which PostgreSQL answers and records nothing, for longer than a lease: a locked table, a full disk.

The workers stop sending, keep every outcome that they know, and record it afterwards.
"""

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import asyncpg

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.postgres.translate import OUTAGES
from tests.faults.comparison import Report
from tests.faults.scenarios import ANSWERS_AFTER, SETTLES_WITHIN, Size
from tests.faults.site import (
    BATCH,
    Site,
    at_once,
    open_site,
    slowly,
    subscribe,
)
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually

WORKERS: Final = 2
LEASE_SECONDS: Final = 10
# The shortest drain that leaves a busy receiver four seconds to answer.
LEASES: Final = {
    "HOOKSEAL_LEASE_SECONDS": str(LEASE_SECONDS),
    "HOOKSEAL_DRAIN_SECONDS": "9",
    "HOOKSEAL_SWEEP_SECONDS": "2",
}
TIMEOUT_MS: Final = 4_000
HOLD_SECONDS: Final = LEASE_SECONDS + 3.0  # until every lease has expired, and several sweeps have looked for it
ONCE, ORDERED = "/once", "/ordered"  # of the endpoints: one with a single attempt, and one in order
_TABLES: Final = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'small'"
_LAST_EVENTS: Final = 4 * BATCH  # too few for another fault: each worker must have something to record
_DISK_BYTES: Final = 64 * 1024 * 1024

Fault = Callable[[Site], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def locked(site: Site, *, table: str) -> AsyncIterator[None]:
    async with site.pool.acquire() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE hookseal.{table} IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def frozen(_site: Site, *, server: Server) -> AsyncIterator[None]:
    """Freeze PostgreSQL: it answers nothing at all."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@asynccontextmanager
async def full_disk(site: Site) -> AsyncIterator[None]:
    """Fill the disk of the tables with a file, which is deleted afterwards."""
    filling = Path(await site.pool.fetchval(_TABLES)).parent / "filling"
    try:
        _fill(filling)
        yield
    finally:
        filling.unlink()


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filling:
        for size in (1024 * 1024, 4096):
            try:
                while True:
                    filling.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


async def survive(site: Site, size: Size, fault: Fault, *, every_worker: bool) -> Report:
    """Cause the fault under load, again and again until nearly all is published, each time for longer than a lease.

    Meanwhile a worker that cannot record reports it; with `every_worker` each does, and then nothing is sent.
    `disordered` counts the deliveries of the ordered endpoint that arrived before one that was published earlier.
    """
    site.receiver.answer = slowly(ANSWERS_AFTER)
    workers = await site.fleet.start_many(WORKERS)
    publishing = asyncio.create_task(_publish(site, size))
    faults = 0
    try:
        while not faults or len(site.published) < 2 * (size.events - _LAST_EVENTS):
            await site.receiver.wait_for(len(site.receiver.requests) + max(20, size.events // 5))
            async with fault(site):
                await _until_reported(workers, every_worker=every_worker)
                begun = len(site.receiver.requests)
                await asyncio.sleep(HOLD_SECONDS)  # the length of the fault
                assert not every_worker or begun == len(site.receiver.requests), "a worker that cannot record sends"
            await asyncio.gather(*(each.answers("/readyz", 200) for each in workers))
            faults += 1
        site.receiver.answer = at_once
        made = await publishing
    finally:
        publishing.cancel()
    await site.wait_until_settled(within=SETTLES_WITHIN)
    found = await site.report()
    return replace(found, counts=found.counts | {"faults": faults, "disordered": _disordered(site, made)})


async def _publish(site: Site, size: Size) -> list[str]:
    """Publish as a producer should: again what was refused. Return the ids of the deliveries in the order of events."""
    made = list[str]()
    for _ in range(0, size.events, BATCH):
        made += await eventually(partial(_publish_batch, site), within=SETTLES_WITHIN)
        await asyncio.sleep(BATCH / size.per_second)  # the requested rate
    return made


async def _publish_batch(site: Site) -> list[str] | None:
    with suppress(*OUTAGES):
        return await site.publish(BATCH)
    return None


def _disordered(site: Site, made: Sequence[str]) -> int:
    """Count first arrivals at the ordered endpoint that were overtaken. `made` has the ids as they were published."""
    place = {delivery: number for number, delivery in enumerate(made)}
    arrived = dict.fromkeys(each.delivery_id for each in site.receiver.requests if each.path == ORDERED)
    places = [place[each] for each in arrived]
    return sum(later < earlier for earlier, later in pairwise(places))


async def _until_reported(workers: Sequence[Worker], *, every_worker: bool) -> None:
    """Return when these workers, or one, say that they cannot record, in their probes and in their figures."""

    async def look() -> bool:
        reported = [await _is_reported(each) for each in workers]
        return all(reported) if every_worker else any(reported)

    await eventually(look)
    for each in workers:
        assert (200, {"status": "ok"}) == await each.get("/livez")


async def _is_reported(worker: Worker) -> bool:
    status, answer = await worker.get("/readyz")
    if "ok" == answer["checks"]["records"]:
        return False
    assert 503 == status
    figures = await worker.figures()
    return 1 <= figures["hookseal_unrecorded", None] and 2 <= figures["hookseal_oldest_unrecorded_seconds", None]


@asynccontextmanager
async def open_unrecorded_site(database_url: str, redis_url: str, folder: Path) -> AsyncIterator[Site]:
    """Yield a site with an endpoint that has a single attempt, and one in order."""
    async with open_site(database_url, redis_url, folder, endpoints=0, calm=True, **LEASES) as site:
        await subscribe(site, ONCE, timeout_ms=TIMEOUT_MS, max_attempts=1)
        await subscribe(site, ORDERED, timeout_ms=TIMEOUT_MS, ordered=True)
        yield site


def may_mount() -> bool:
    with scratch(None) as folder:
        return _mounts(folder)


def _mounts(folder: Path) -> bool:
    try:
        with small_disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Yield a folder on a small disk of its own, in memory, which belongs to the account of the servers."""
    disk, account = folder / "disk", for_servers()
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", disk], check=True, capture_output=True
    )
    try:
        if account is not None:
            os.chown(disk, account.uid, account.gid)
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True, capture_output=True)


@asynccontextmanager
async def postgres_on_small_disk(folder: Path) -> AsyncIterator[Server]:
    """Yield a migrated PostgreSQL whose tables are on a small disk. Its log of changes (WAL) is on another."""
    with small_disk(folder) as disk:
        async with postgres(folder, durable=False) as server:
            tables = disk / "tables"
            tables.mkdir()
            if (account := for_servers()) is not None:
                os.chown(tables, account.uid, account.gid)
            await _move_tables(server.url, tables)
            await upgrade(server.url)
            yield server


async def _move_tables(url: str, tables: Path) -> None:
    address, _, name = url.rpartition("/")
    connection = await asyncpg.connect(f"{address}/postgres")
    try:
        await connection.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")
        await connection.execute(f"ALTER DATABASE {name} SET TABLESPACE small")
    finally:
        await connection.close()


ATTEMPTS_LOCKED: Final[Fault] = partial(locked, table="attempts")
DELIVERIES_LOCKED: Final[Fault] = partial(locked, table="deliveries")
DISK_FULL: Final[Fault] = full_disk
