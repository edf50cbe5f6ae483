"""Causes faults one after the other, each in a worker of its own with one delivery."""

import asyncio
import signal
from collections.abc import Iterable

from hookseal.dispatcher.core.model import Ring
from hookseal.ground.ids import DeliveryId, EndpointId
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE
from tests.faults.fault import Action, Fault
from tests.faults.fleet import WorkerProcess
from tests.faults.site import TENANT, Site

# Such a worker takes one delivery at a time, and does not sweep.
ONE_AT_A_TIME = {"HOOKSEAL_SWEEP_SECONDS": "300", "HOOKSEAL_CONCURRENCY": "1"}
_RUNG = (
    "UPDATE hookseal.deliveries SET rung_at = now() WHERE id = ANY ($1::text[]::uuid[])"
    " RETURNING id::text, endpoint_id::text"
)


async def cause_each(site: Site, faults: Iterable[Fault]) -> tuple[dict[str, WorkerProcess], dict[str, str]]:
    """Cause each fault in a worker of its own, during a delivery; return worker and delivery of each point.

    All workers start together and are stopped; then each in turn continues, alone with one ring, until it has died or
    is stopped again.
    """
    started = [(fault, await site.fleet.start(fault=str(fault), wait=False, **ONE_AT_A_TIME)) for fault in faults]
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


async def _pause(worker: WorkerProcess) -> None:
    worker.send(signal.SIGSTOP)
    await worker.paused()


async def _publish_as_rung(site: Site, number: int) -> list[Ring]:
    async with site.pool.acquire() as connection, connection.transaction():  # so that no outbox sees them unrung
        made = await site.publish(number, connection=connection)
        rows = await connection.fetch(_RUNG, made)
    endpoint = {row["id"]: EndpointId(row["endpoint_id"]) for row in rows}
    return [Ring(tenant_id=TENANT, endpoint_id=endpoint[each], delivery_id=DeliveryId(each)) for each in made]
