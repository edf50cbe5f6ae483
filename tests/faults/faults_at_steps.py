"""Faults at one step of one delivery, each with exactly one correct result."""

import asyncio
import signal
from collections.abc import Collection
from dataclasses import replace

from tests.faults.comparison import Report
from tests.faults.expected_outcomes import SENT_AND_NOT_RECORDED, expected_outcomes
from tests.faults.fault import Action, Fault
from tests.faults.isolated_faults import cause_each, outcomes_by_point
from tests.faults.site import Site
from tests.worker.waiting import eventually

SETTLES_WITHIN = 60.0


async def kill_at(site: Site, points: Collection[str]) -> Report:
    """Kill -9 at each of the points: nothing is lost, and only what was sent and not recorded is sent again."""
    workers, deliveries = await cause_each(site, [Fault(point=point, action=Action.KILL) for point in points])
    await site.fleet.start()
    await site.wait_until_settled(within=SETTLES_WITHIN)

    assert {-signal.SIGKILL} == {worker.process.returncode for worker in workers.values()}
    _require_expected(await outcomes_by_point(site, deliveries))
    return await _report(site, points)


async def pause_at(site: Site, points: Collection[str]) -> Report:
    """SIGSTOP at each of the points until another worker has finished the delivery, then SIGCONT.

    The continued worker sends nothing new, records nothing, and stops normally.
    """
    workers, deliveries = await cause_each(site, [Fault(point=point, action=Action.PAUSE) for point in points])
    await site.fleet.start()

    async def done() -> bool:
        return not await site.count_unsettled()

    await eventually(done, within=SETTLES_WITHIN)
    _require_expected(await outcomes_by_point(site, deliveries))
    for worker in workers.values():
        worker.send(signal.SIGCONT)
    assert [0] * len(workers) == await asyncio.gather(*(site.fleet.stop(worker) for worker in workers.values()))
    await site.wait_until_settled(within=SETTLES_WITHIN)

    _require_expected(await outcomes_by_point(site, deliveries))
    return await _report(site, points)


def _require_expected(found: dict[str, tuple[int, list[str]]]) -> None:
    differ = {
        point: (expected_outcomes(point), outcomes)
        for point, outcomes in found.items()
        if outcomes != expected_outcomes(point)
    }
    assert {} == differ, f"expected and found: {differ}"


async def _report(site: Site, points: Collection[str]) -> Report:
    found = await site.report()
    duplicates = sum(expected_outcomes(point) == SENT_AND_NOT_RECORDED for point in points)
    found.require(deliveries=len(points), lost=0, duplicates=duplicates, unexplained=0)
    return replace(found, counts=found.counts | {"faults": len(points)})
