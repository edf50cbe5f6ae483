"""Redis cut off, missing, frozen, killed and full: a worker reports it, survives, resumes and loses nothing."""

from pathlib import Path

import pytest

from tests.faults import outages
from tests.faults.disconnects import Moment
from tests.faults.proxied_site import site_with_redis_proxy
from tests.faults.scenarios import Size


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
