"""A worker whose wall clock is set forwards and backwards by hours and by years."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults import outages
from tests.faults.clocks import WallClock, library
from tests.faults.proxied_site import site_with_redis_proxy
from tests.faults.recording_receiver import failing_first
from tests.faults.scenarios import Size

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
