"""While nothing can be recorded, workers stop sending: nothing is lost, sent twice, out of order or a dead letter."""

from functools import partial
from pathlib import Path

import pytest

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.server import Server
from tests.faults import unrecorded
from tests.faults.comparison import Report
from tests.faults.scenarios import Size

SIZE = Size(events=50, per_second=20)
pytestmark = [pytest.mark.timeout(300), pytest.mark.req("DUR-04", "DUR-07")]


def nothing_twice(found: Report) -> None:
    """Fail unless each delivery was sent once and accepted, in its order."""
    found.require(lost=0, duplicates=0, unknown=0, disordered=0, requests=found.counts["deliveries"])


async def test_locked_attempts_are_recorded_afterwards(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """While `attempts` is locked, workers claim and send nothing; afterwards each outcome is recorded as it was."""
    async with unrecorded.open_unrecorded_site(database_url, redis_url, tmp_path) as site:
        nothing_twice(await unrecorded.survive(site, SIZE, unrecorded.ATTEMPTS_LOCKED, every_worker=True))


async def test_locked_deliveries_are_recorded_afterwards(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """While `deliveries` is locked no lease can be kept; afterwards no sweep is faster than the worker that knows."""
    async with unrecorded.open_unrecorded_site(database_url, redis_url, tmp_path) as site:
        nothing_twice(await unrecorded.survive(site, SIZE, unrecorded.DELIVERIES_LOCKED, every_worker=False))


async def test_an_outage_longer_than_a_lease_costs_nothing(
    own_postgres: Server, redis_url: str, tmp_path: Path
) -> None:
    """While PostgreSQL is frozen no worker can say that it lives; afterwards no sweep is faster than a record."""
    async with unrecorded.open_unrecorded_site(own_postgres.url, redis_url, tmp_path) as site:
        fault = partial(unrecorded.frozen, server=own_postgres)
        nothing_twice(await unrecorded.survive(site, SIZE, fault, every_worker=False))


@pytest.mark.skipif(not unrecorded.may_mount(), reason="a test may not mount a disk: run it as root")
async def test_a_full_disk_costs_nothing(redis_url: str, tmp_path: Path) -> None:
    """While the disk of PostgreSQL is full nothing is sent; afterwards each outcome is recorded as it was."""
    with scratch(for_servers()) as folder:
        async with (
            unrecorded.postgres_on_small_disk(folder) as server,
            unrecorded.open_unrecorded_site(server.url, redis_url, tmp_path) as site,
        ):
            nothing_twice(await unrecorded.survive(site, SIZE, unrecorded.DISK_FULL, every_worker=False))
