"""kill -9 before and after each of the ten steps of a delivery (docs/architecture.md)."""

import signal
from pathlib import Path

import pytest

from tests.faults.fault import Action, Fault
from tests.faults.points import FIRST_AND_LATER, SENT_AND_NOT_RECORDED, expected
from tests.faults.site import opened
from tests.faults.steps import become, struck


@pytest.mark.timeout(180)
async def test_kill_at_each_step(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Nothing is lost; sent again is only what was sent and not recorded, and the dead worker's attempt is unknown."""
    points = FIRST_AND_LATER
    async with opened(database_url, redis_url, tmp_path, endpoints=1) as site:
        doomed, deliveries = await struck(site, [Fault(point=point, action=Action.KILL) for point in points])
        await site.fleet.start()
        await site.settled()

        assert {-signal.SIGKILL} == {member.process.returncode for member in doomed.values()}
        assert {point: expected(point) for point in points} == await become(site, deliveries)
        duplicates = sum(expected(point) == SENT_AND_NOT_RECORDED for point in points)
        (await site.balance()).require(deliveries=len(points), lost=0, duplicates=duplicates, unexplained=0)
