"""What a stopped worker does with its deliveries, and what PostgreSQL does for a killed one."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.recording_receiver import ReceivedRequest
from tests.faults.site import Site, open_site
from tests.worker.waiting import eventually

# The session of the killed worker, which waits for a lock of the test and has its whole statement.
_BLOCKED_RECORDS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE 'WITH made AS%'"
)


def hold_first_requests(site: Site, number: int) -> asyncio.Event:
    """Make the receiver hold its first requests, that many, until the event is set, and answer all others at once."""
    until = asyncio.Event()

    async def answer(request: ReceivedRequest) -> int:
        if request in site.receiver.requests[:number]:
            await until.wait()
        return 204

    site.receiver.answer = answer
    return until


@pytest.mark.req("DUR-05")
async def test_a_stopped_worker_gives_back_the_rest(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A stopped worker finishes what is in flight, and other workers meanwhile deliver what it gave back."""
    long: Any = {"HOOKSEAL_DRAIN_SECONDS": "30", "HOOKSEAL_LEASE_SECONDS": "40"}
    async with open_site(database_url, redis_url, tmp_path, calm=True, **long) as site:
        await site.pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 20000")
        await _stop_while_full(site)


async def _stop_while_full(site: Site) -> None:
    answer = hold_first_requests(site, 4)
    full = await site.fleet.start(HOOKSEAL_CONCURRENCY="4")
    other = await site.fleet.start()
    other.send(signal.SIGSTOP)  # its start may take as long as a held request
    await other.paused()
    await site.publish(10)
    await site.receiver.wait_for(4)
    other.send(signal.SIGCONT)
    stopping = asyncio.create_task(site.fleet.stop(full))

    async def others_done() -> bool:
        return 4 == await site.count_unsettled()

    await eventually(others_done)
    assert not stopping.done()
    answer.set()
    assert 0 == await stopping
    await site.wait_until_settled()

    (await site.report()).require(deliveries=20, requests=20, duplicates=0, unknown=0)


@pytest.mark.req("DUR-03")
async def test_a_killed_workers_record_counts(calm_site: Site) -> None:
    """If a worker is killed after its record reached PostgreSQL, the attempt is recorded and not sent again."""
    site = calm_site
    answer = hold_first_requests(site, 1)
    worker = await site.fleet.start()
    await site.publish(1)
    await site.receiver.wait_for(2)
    await _wait_for_one_unsettled(site)  # the other delivery must be recorded before the kill
    async with site.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE hookseal.attempts IN SHARE MODE")  # a row lock would not delay the record
        answer.set()
        await _wait_for_blocked_record(site)
        await site.fleet.kill(worker)
    await site.fleet.start()
    await site.wait_until_settled()

    found = await site.report()
    found.require(deliveries=2, requests=2, duplicates=0, unknown=0)


async def _wait_for_one_unsettled(site: Site) -> None:
    async def look() -> bool:
        return 1 == await site.count_unsettled()

    await eventually(look)


async def _wait_for_blocked_record(site: Site) -> None:
    async def look() -> bool:
        return bool(await site.pool.fetchval(_BLOCKED_RECORDS))

    await eventually(look)
