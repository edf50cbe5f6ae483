"""Faults at one step of one delivery, each with exactly one correct result."""

import asyncio
import signal
from collections.abc import Collection
from dataclasses import replace

from tests.faults.balance import Balance
from tests.faults.fault import Action, Fault
from tests.faults.points import SENT_AND_NOT_RECORDED, expected
from tests.faults.site import Site
from tests.faults.steps import outcomes_by_point, strike_each
from tests.worker.waiting import eventually

SETTLES_WITHIN = 60.0


async def killed(site: Site, points: Collection[str]) -> Balance:
    """Kill -9 at each of the points: nothing is lost, and only what was sent and not recorded is sent again."""
    doomed, deliveries = await strike_each(site, [Fault(point=point, action=Action.KILL) for point in points])
    await site.fleet.start()
    await site.settled(within=SETTLES_WITHIN)

    assert {-signal.SIGKILL} == {member.process.returncode for member in doomed.values()}
    _require(await outcomes_by_point(site, deliveries))
    return await _balance(site, points)


async def paused(site: Site, points: Collection[str]) -> Balance:
    """SIGSTOP at each of the points until another worker has finished the delivery, then SIGCONT.

    The continued worker sends nothing new, records nothing, and stops normally.
    """
    still, deliveries = await strike_each(site, [Fault(point=point, action=Action.PAUSE) for point in points])
    await site.fleet.start()

    async def done() -> bool:
        return not await site.unsettled()

    await eventually(done, within=SETTLES_WITHIN)
    _require(await outcomes_by_point(site, deliveries))
    for member in still.values():
        member.send(signal.SIGCONT)
    assert [0] * len(still) == await asyncio.gather(*(site.fleet.stop(member) for member in still.values()))
    await site.settled(within=SETTLES_WITHIN)

    _require(await outcomes_by_point(site, deliveries))
    return await _balance(site, points)


def _require(found: dict[str, tuple[int, list[str]]]) -> None:
    differ = {point: (expected(point), became) for point, became in found.items() if became != expected(point)}
    assert {} == differ, f"expected and found: {differ}"


async def _balance(site: Site, points: Collection[str]) -> Balance:
    found = await site.balance()
    duplicates = sum(expected(point) == SENT_AND_NOT_RECORDED for point in points)
    found.require(deliveries=len(points), lost=0, duplicates=duplicates, unexplained=0)
    return replace(found, counts=found.counts | {"faults": len(points)})
