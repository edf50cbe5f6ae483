"""The short forms of the outages: a worker reports each, survives it, goes on, and loses nothing."""

from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.server import Server
from tests.faults import outages, unrecorded
from tests.faults.comparison import Report
from tests.faults.outages import WallClock, library
from tests.faults.scenarios import Size
from tests.faults.site import failing_first, site_with_postgres_proxy, site_with_redis_proxy
from tests.faults.tcp_proxy import Moment


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-04", "DUR-01")
async def test_a_worker_survives_every_outage_of_redis(database_url: str, tmp_path: Path) -> None:
    """One worker survives every outage of Redis: nothing is lost and nothing is sent twice."""
    every = outages.redis_outages([Moment.WITHIN_REQUEST, Moment.BEFORE_ANSWER])
    async with site_with_redis_proxy(database_url, tmp_path) as site:
        found = await outages.survive_outages(site, every, Size(events=1, per_second=20))
    found.require(
        lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"], faults=9 + 2 * len(outages.REDIS_COMMANDS)
    )


# PostgreSQL cut off, restarted, crashed and frozen: a worker reports it, survives, resumes and loses nothing.


SMALL = Size(events=1, per_second=20)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-04")
async def test_a_worker_survives_every_outage_of_postgresql(redis_url: str, tmp_path: Path) -> None:
    """One worker survives every outage of PostgreSQL: nothing is lost and nothing is sent twice."""
    every = outages.postgresql_outages(outages.CLAIM_AND_RECORD)
    async with site_with_postgres_proxy(redis_url, tmp_path) as site:
        found = await outages.survive_outages(site, every, SMALL)
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"], faults=8 + 7)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-04")
async def test_a_failover_loses_nothing(redis_url: str, tmp_path: Path) -> None:
    """When a primary dies and its synchronous standby takes over, nothing is lost and nothing is sent twice."""
    async with site_with_postgres_proxy(redis_url, tmp_path) as site:
        found = await outages.fail_over(site, SMALL)
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"], faults=1)


# A worker whose wall clock is set forwards and backwards by hours and by years.


SOONEST = timedelta(seconds=0.75)  # one second, minus a quarter
_SOONEST = (
    "SELECT min(again.started_at - first.started_at) FROM hookseal.attempts AS first"
    " JOIN hookseal.attempts AS again USING (tenant_id, delivery_id) WHERE first.number = 1 AND again.number = 2"
)


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-07")
async def test_a_workers_clock_changes_no_delivery(database_url: str, tmp_path: Path) -> None:
    """Whatever its clock shows, a worker delivers all once, with valid signatures, and retries no earlier than due."""
    preloaded = library()
    if preloaded is None:
        pytest.skip("there is no wheel of libfaketime for this machine")
    clock = WallClock(preloaded, tmp_path, offset=-outages.HOURS)
    async with site_with_redis_proxy(database_url, tmp_path) as site:
        site.receiver.answer = failing_first()
        every = outages.clock_steps(clock)
        found = await outages.survive_outages(site, every, Size(events=1, per_second=20), clock.settings)
        [worker] = site.fleet.workers
        clock.forget(worker.pid)
        soonest = await site.pool.fetchval(_SOONEST)

    found.require(lost=0, duplicates=0, unknown=0, requests=2 * found.counts["deliveries"], faults=len(every))
    assert outages.YEARS < _span(worker.log), "the clock was not set"
    assert soonest >= SOONEST


def _span(log: list[dict[str, Any]]) -> timedelta:
    """Return the time between the first and the last attempt, by the worker's own clock."""
    times = [datetime.fromisoformat(line["at"]) for line in log if line["event"] == "delivery.attempted"]
    return max(times) - min(times)


# While nothing can be recorded, workers stop sending: nothing is lost, sent twice, out of order or a dead letter.


SIZE = Size(events=50, per_second=20)


def nothing_twice(found: Report) -> None:
    """Fail unless each delivery was sent once and accepted, in its order."""
    found.require(lost=0, duplicates=0, unknown=0, disordered=0, requests=found.counts["deliveries"])


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-04", "DUR-07")
async def test_locked_attempts_are_recorded_afterwards(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """While `attempts` is locked, workers claim and send nothing; afterwards each outcome is recorded as it was."""
    async with unrecorded.open_unrecorded_site(database_url, redis_url, tmp_path) as site:
        nothing_twice(await unrecorded.survive(site, SIZE, unrecorded.ATTEMPTS_LOCKED, every_worker=True))


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-04", "DUR-07")
async def test_locked_deliveries_are_recorded_afterwards(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """While `deliveries` is locked no lease can be kept; afterwards no sweep is faster than the worker that knows."""
    async with unrecorded.open_unrecorded_site(database_url, redis_url, tmp_path) as site:
        nothing_twice(await unrecorded.survive(site, SIZE, unrecorded.DELIVERIES_LOCKED, every_worker=False))


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-04", "DUR-07")
async def test_an_outage_longer_than_a_lease_costs_nothing(
    own_postgres: Server, redis_url: str, tmp_path: Path
) -> None:
    """While PostgreSQL is frozen no worker can say that it lives; afterwards no sweep is faster than a record."""
    async with unrecorded.open_unrecorded_site(own_postgres.url, redis_url, tmp_path) as site:
        fault = partial(unrecorded.frozen, server=own_postgres)
        nothing_twice(await unrecorded.survive(site, SIZE, fault, every_worker=False))


@pytest.mark.timeout(300)
@pytest.mark.req("DUR-04", "DUR-07")
@pytest.mark.skipif(not unrecorded.may_mount(), reason="a test may not mount a disk: run it as root")
async def test_a_full_disk_costs_nothing(redis_url: str, tmp_path: Path) -> None:
    """While the disk of PostgreSQL is full nothing is sent; afterwards each outcome is recorded as it was."""
    with scratch(for_servers()) as folder:
        async with (
            unrecorded.postgres_on_small_disk(folder) as server,
            unrecorded.open_unrecorded_site(server.url, redis_url, tmp_path) as site,
        ):
            nothing_twice(await unrecorded.survive(site, SIZE, unrecorded.DISK_FULL, every_worker=False))
