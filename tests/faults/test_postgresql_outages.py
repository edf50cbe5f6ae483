"""PostgreSQL cut off, restarted, crashed and frozen: a worker reports it, survives, resumes and loses nothing."""

from pathlib import Path

import pytest

from tests.faults import outages
from tests.faults.proxied_site import site_with_postgres_proxy
from tests.faults.scenarios import Size

SIZE = Size(events=1, per_second=20)
pytestmark = [pytest.mark.timeout(300), pytest.mark.req("DUR-04")]


async def test_a_worker_survives_every_outage_of_postgresql(redis_url: str, tmp_path: Path) -> None:
    """One worker survives every outage of PostgreSQL: nothing is lost and nothing is sent twice."""
    every = outages.postgresql_outages(outages.CLAIM_AND_RECORD)
    async with site_with_postgres_proxy(redis_url, tmp_path) as site:
        found = await outages.survive_outages(site, every, SIZE)
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"], faults=8 + 7)


async def test_a_failover_loses_nothing(redis_url: str, tmp_path: Path) -> None:
    """When a primary dies and its synchronous standby takes over, nothing is lost and nothing is sent twice."""
    async with site_with_postgres_proxy(redis_url, tmp_path) as site:
        found = await outages.fail_over(site, SIZE)
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"], faults=1)
