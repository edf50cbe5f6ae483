"""Faults at one step of one delivery, each in a worker of its own, and each with exactly one correct result."""

import asyncio
import signal
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.ids import DeliveryId, EndpointId
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE
from tests.faults.comparison import Report
from tests.faults.faulty_worker import POINTS, Action, Fault
from tests.faults.site import FAULTY, TENANT, Site
from tests.worker.fleet import Worker
from tests.worker.waiting import eventually

# Before the claim commits nothing has started; afterwards the attempt is recorded as unknown. The request is sent in
# step 6 and recorded in step 9: only if the worker dies between the two, it is sent again.
NOTHING_STARTED: Final = (1, ["delivered"])
NOT_SENT: Final = (1, ["unknown", "delivered"])
SENT_AND_NOT_RECORDED: Final = (2, ["unknown", "delivered"])
RECORDED: Final = (1, ["delivered"])

# The end of a step is also the beginning of the next: the first beginning and all ends are all the distinct points.
DISTINCT_POINTS: Final = tuple(point for point in POINTS if point == POINTS[0] or point.endswith(".after"))
_SENT, _RECORDED = POINTS.index("send.after"), POINTS.index("record.after")


def expected_outcomes(point: str) -> tuple[int, list[str]]:
    """Return how often the receiver gets the delivery, and the recorded outcomes in order."""
    index = POINTS.index(point)
    if index == 0:
        return NOTHING_STARTED
    if index < _SENT:
        return NOT_SENT
    return SENT_AND_NOT_RECORDED if index < _RECORDED else RECORDED


# Causes faults one after the other, each in a worker of its own with one delivery.


# Such a worker takes one delivery at a time, and does not sweep.
ONE_AT_A_TIME = {"HOOKSEAL_SWEEP_SECONDS": "300", "HOOKSEAL_CONCURRENCY": "1"}
_RUNG = (
    "UPDATE hookseal.deliveries SET rung_at = now() WHERE id = ANY ($1::text[]::uuid[])"
    " RETURNING id::text, endpoint_id::text"
)


async def cause_each(site: Site, faults: Iterable[Fault]) -> tuple[dict[str, Worker], dict[str, str]]:
    """Cause each fault in a worker of its own, during a delivery; return worker and delivery of each point.

    All workers start together and are stopped; then each in turn continues, alone with one ring, until it has died or
    is stopped again.
    """
    started = [
        (fault, await site.fleet.start(module=FAULTY, FAULT=str(fault), wait=False, **ONE_AT_A_TIME))
        for fault in faults
    ]
    await asyncio.gather(*(worker.wait_until_ready() for _, worker in started))
    await asyncio.gather(*(_pause(worker) for _, worker in started))
    rings = await _publish_as_rung(site, len(started))
    ringing = bell(site.redis_url)
    for (fault, worker), ring in zip(started, rings, strict=True):
        await _unblock_all(ringing)
        await ringing.ring([ring])
        worker.send(signal.SIGCONT)
        await (worker.ended() if fault.action is Action.KILL else worker.paused())
        await ringing.redis.zrem(DEFAULT_QUEUE, ring.delivery_id)  # so that the next worker gets its own ring
    await ringing.ring(rings)
    await ringing.close()
    points = [fault.point for fault, _ in started]
    workers = [worker for _, worker in started]
    site.fleet.dead.update(worker.worker_id for worker in workers)
    deliveries: list[str] = [ring.delivery_id for ring in rings]
    return dict(zip(points, workers, strict=True)), dict(zip(points, deliveries, strict=True))


async def outcomes_by_point(site: Site, deliveries: dict[str, str]) -> dict[str, tuple[int, list[str]]]:
    """Return, for each point, how often its delivery was received, and its recorded outcomes in order."""
    rows = await site.pool.fetch(
        "SELECT delivery_id::text, array_agg(outcome ORDER BY number) AS outcomes"
        " FROM hookseal.attempts GROUP BY delivery_id"
    )
    outcomes = {row["delivery_id"]: row["outcomes"] for row in rows}
    return {point: (len(site.receiver.of(each)), outcomes.get(each, [])) for point, each in deliveries.items()}


async def _unblock_all(ringing: Bell) -> None:
    """End the waiting of the stopped workers for rings, so that none of them takes the ring of another.

    It would end by itself after a second. But so many seconds are longer than a lease: a later worker, whose first
    sweep happens when it continues, would take back the deliveries of the earlier ones.
    """
    for client in await ringing.redis.client_list():
        if "b" in client["flags"]:
            await ringing.redis.client_unblock(int(client["id"]))


async def _pause(worker: Worker) -> None:
    worker.send(signal.SIGSTOP)
    await worker.paused()


async def _publish_as_rung(site: Site, number: int) -> list[Ring]:
    async with site.pool.acquire() as connection, connection.transaction():  # so that no outbox sees them unrung
        made = await site.publish(number, connection=connection)
        rows = await connection.fetch(_RUNG, made)
    endpoint = {row["id"]: EndpointId(row["endpoint_id"]) for row in rows}
    return [Ring(tenant_id=TENANT, endpoint_id=endpoint[each], delivery_id=DeliveryId(each)) for each in made]


# Faults at one step of one delivery, each with exactly one correct result.


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
    await asyncio.gather(*(worker.stop() for worker in workers.values()))
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
