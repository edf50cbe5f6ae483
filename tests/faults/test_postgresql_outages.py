"""PostgreSQL cut off, restarted, crashed and frozen: a worker reports it, survives, resumes and loses nothing."""

from pathlib import Path

import pytest

from tests.faults import outages
from tests.faults.scenarios import Size
from tests.faults.ways import way_to_postgres

SIZE = Size(events=1, per_second=20)
pytestmark = [pytest.mark.timeout(300), pytest.mark.req("DUR-04")]


async def test_a_worker_survives_every_outage_of_postgresql(redis_url: str, tmp_path: Path) -> None:
    """One worker survives every outage of PostgreSQL: nothing is lost and nothing is sent twice."""
    every = outages.of_postgresql(outages.CLAIM_AND_RECORD)
    async with way_to_postgres(redis_url, tmp_path) as way:
        found = await outages.lived_through(way, every, SIZE)
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"], faults=8 + 7)


async def test_a_failover_loses_nothing(redis_url: str, tmp_path: Path) -> None:
    """When a primary dies and its synchronous standby takes over, nothing is lost and nothing is sent twice."""
    async with way_to_postgres(redis_url, tmp_path) as way:
        found = await outages.failed_over(way, SIZE)
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"], faults=1)
