"""A roll to the next version and back, in a fleet under load: nothing is lost, and nothing is sent twice.

There is no earlier release. So this version is the one before, and the next one is a copy of it with one more revision,
run as a program of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hookseal.postgres.schema import revision
from tests.cli.command import hookseal
from tests.faults.comparison import Report
from tests.faults.site import BATCH, Site, open_site, slowly
from tests.schema.later import IN_USE, later_program
from tests.worker.fleet import Worker

PER_SECOND = 60  # events, of two deliveries each
REQUESTS = 60  # in each phase


@asynccontextmanager
async def load(site: Site) -> AsyncIterator[None]:
    """Publish without a pause during the block, by the statements of this version."""
    is_over = asyncio.Event()

    async def publish() -> None:
        while not is_over.is_set():
            await site.publish(BATCH, per_second=PER_SECOND)

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        is_over.set()
        await publishing


async def roll(site: Site, new: str, *, kills: bool) -> Report:
    """Replace all workers by the next version, and those by this one, under load; compare at the end.

    `new` is the PYTHONPATH with which a worker is one of the next version. With `kills` half of those that are
    replaced are killed.
    """
    database = {"DATABASE_URL": site.database_url}
    site.receiver.answer = slowly(0.1)

    async def end(worker: Worker) -> None:
        await (site.fleet.kill(worker) if kills else worker.stop())

    async def deliver() -> None:
        await site.receiver.wait_for(len(site.receiver.requests) + REQUESTS)

    (first, second), third = await asyncio.gather(site.fleet.start_many(2), site.fleet.start(PYTHONPATH=new))
    async with load(site):
        await deliver()
        assert 0 == (await hookseal("db", "upgrade", PYTHONPATH=new, **database)).code
        await end(first)
        started_again, fourth = await asyncio.gather(site.fleet.start(), site.fleet.start(PYTHONPATH=new))
        await deliver()

        await asyncio.gather(end(second), started_again.stop())
        await deliver()

        assert 0 == (await hookseal("db", "upgrade", **database)).code
        await site.fleet.start_many(2)
        await asyncio.gather(end(third), fourth.stop())
        await deliver()
    await site.wait_until_settled()
    return await site.report()


@pytest.mark.timeout(300)
@pytest.mark.req("OPS-13")
@pytest.mark.req("OPS-09", part="under-load")
@pytest.mark.parametrize("kills", [False, True], ids=["stopped", "killed"])
async def test_a_roll_forward_and_back_loses_nothing(
    kills: bool, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Both versions run together before and after the migration; each starts on the schema of the other.

    What a killed worker had sent and not recorded is sent again, as after any kill; nothing else is.
    """
    new = str(later_program(tmp_path / "later", *IN_USE))
    async with open_site(database_url, redis_url, tmp_path, calm=not kills) as site:
        found = await roll(site, new, kills=kills)
        assert f"{int(revision.EXPECTED) + 1:04}" == await revision.current(site.pool)
    found.require(lost=0, unexplained=0, **({} if kills else {"duplicates": 0, "unknown": 0}))
