"""A worker whose wall clock is set forwards and back by hours and by years."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.clocks import WallClock, library
from tests.faults.outages import flow, says
from tests.faults.site import Site
from tests.faults.witness import failing_first

REQUESTS = 20
HOURS = timedelta(hours=6)
YEARS = timedelta(days=3 * 365)
SOONEST = timedelta(seconds=0.75)  # one second, less a quarter


@pytest.mark.timeout(180)
@pytest.mark.req("DUR-07")
async def test_the_clock_of_a_worker_is_set(site: Site, tmp_path: Path) -> None:
    """Whatever its clock says, a worker delivers all, once, signed with the right time, and tries again when due."""
    preloaded = library()
    if preloaded is None:
        pytest.skip("there is no wheel of libfaketime for this machine")
    clock = WallClock(preloaded, tmp_path, wrong_by=-HOURS)
    worker = await site.fleet.start(**clock.settings)
    site.witness.answer = failing_first()
    async with flow(site):
        for wrong_by in (-HOURS, HOURS, -HOURS, YEARS, -YEARS, timedelta(0)):
            clock.step_to(wrong_by)
            await site.witness.wait_for(len(site.witness.seen) + REQUESTS)
            await says(worker, postgresql="ok", redis="ok", secrets="ok")
    await site.settled()
    assert [0] == await site.fleet.stop_all()
    clock.forget(worker.pid)

    found = await site.balance()
    found.require(lost=0, duplicates=0, unknown=0, requests=2 * found.counts["deliveries"])
    assert YEARS < _span(worker.log), "its clock was set indeed"
    assert SOONEST <= await site.pool.fetchval(
        "SELECT min(again.started_at - first.started_at) FROM hookseal.attempts AS first"
        " JOIN hookseal.attempts AS again USING (tenant_id, delivery_id) WHERE first.number = 1 AND again.number = 2"
    )


def _span(log: list[dict[str, str]]) -> timedelta:
    """Return from when to when a worker says that it attempted, by its own clock."""
    told = [datetime.fromisoformat(line["at"]) for line in log if line["event"] == "delivery.attempted"]
    return max(told) - min(told)
