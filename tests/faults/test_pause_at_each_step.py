"""A process that stands still for longer than its lease, before and after each step of a delivery, and then goes on."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.faults.fault import POINTS, Action, Fault
from tests.faults.fleet import Member
from tests.faults.points import FIRST_AND_LATER, expected
from tests.faults.site import Site, opened
from tests.faults.steps import become, struck
from tests.worker.waiting import eventually


@pytest.mark.timeout(180)
async def test_pause_at_each_step(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """What it held is done by another; when it goes on it sends nothing that was not sent, and writes nothing."""
    async with opened(database_url, redis_url, tmp_path, endpoints=1) as site:
        await _paused(site)


async def _paused(site: Site) -> None:
    faults = [Fault(point=point, action=Action.PAUSE) for point in FIRST_AND_LATER]
    still, deliveries = await struck(site, faults)
    await site.fleet.start()

    async def done() -> bool:
        return not await site.unsettled()

    await eventually(done, within=60)
    before = await become(site, deliveries)
    for member in still.values():
        member.send(signal.SIGCONT)
    assert [0] * len(still) == await asyncio.gather(*(_ended(site, member) for member in still.values()))
    await site.settled()

    assert {point: expected(point) for point in FIRST_AND_LATER} == before == await become(site, deliveries)
    (await site.balance()).require(deliveries=len(still), lost=0, unexplained=0)


async def _ended(site: Site, member: Member) -> int:
    """Return the exit code of a worker that goes on and is then told to stop."""
    return await site.fleet.stop(member)
