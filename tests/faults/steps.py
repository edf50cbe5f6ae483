"""One worker and one delivery for each point, and what became of each delivery."""

import asyncio
import signal
from collections.abc import Iterable

from hookseal.dispatcher.model import Ring
from hookseal.ground.ids import DeliveryId, EndpointId
from hookseal.queue.bell import Bell, bell
from hookseal.queue.rings import DEFAULT_QUEUE
from tests.faults.fault import Action, Fault
from tests.faults.fleet import Member
from tests.faults.site import TENANT, Site
from tests.worker.waiting import eventually

# It takes one delivery, does not sweep, and does not delay a worker that does.
ALONE = {"HOOKSEAL_SWEEP_SECONDS": "300", "HOOKSEAL_CONCURRENCY": "1"}
_RUNG = (
    "UPDATE hookseal.deliveries SET rung_at = now() WHERE id = ANY ($1::text[]::uuid[])"
    " RETURNING id::text, endpoint_id::text"
)


async def strike_each(site: Site, faults: Iterable[Fault]) -> tuple[dict[str, Member], dict[str, str]]:
    """Cause each fault in a worker of its own, during a delivery; return worker and delivery of each point.

    All workers start together and are stopped; then each in turn continues, alone with one ring, until it has died or
    is stopped again.
    """
    started = [(fault, await site.fleet.start(fault=str(fault), wait=False, **ALONE)) for fault in faults]
    await asyncio.gather(*(member.wait_until_ready() for _, member in started))
    await asyncio.gather(*(_stand_still(member) for _, member in started))
    rings = await _published(site, len(started))
    ringing = bell(site.redis_url)
    for (fault, member), ring in zip(started, rings, strict=True):
        await eventually(lambda: _nobody_waits(ringing))
        await ringing.ring([ring])
        member.send(signal.SIGCONT)
        await (member.ended() if fault.action is Action.KILL else member.paused())
        await ringing.redis.zrem(DEFAULT_QUEUE, ring.delivery_id)  # so that the next worker gets its own ring
    await ringing.ring(rings)
    await ringing.close()
    points = [fault.point for fault, _ in started]
    members = [member for _, member in started]
    site.fleet.dead.update(member.worker_id for member in members)
    deliveries: list[str] = [ring.delivery_id for ring in rings]
    return dict(zip(points, members, strict=True)), dict(zip(points, deliveries, strict=True))


async def outcomes_by_point(site: Site, deliveries: dict[str, str]) -> dict[str, tuple[int, list[str]]]:
    """Return, for each point, how often its delivery was seen, and its recorded outcomes in order."""
    rows = await site.pool.fetch(
        "SELECT delivery_id::text, array_agg(outcome ORDER BY number) AS outcomes"
        " FROM hookseal.attempts GROUP BY delivery_id"
    )
    outcomes = {row["delivery_id"]: row["outcomes"] for row in rows}
    return {point: (len(site.witness.of(each)), outcomes.get(each, [])) for point, each in deliveries.items()}


async def _nobody_waits(ringing: Bell) -> bool:
    """Return whether no stopped worker still waits in Redis for rings, as it does for up to a second."""
    return int((await ringing.redis.info("clients"))["blocked_clients"]) == 0


async def _stand_still(member: Member) -> None:
    member.send(signal.SIGSTOP)
    await member.paused()


async def _published(site: Site, number: int) -> list[Ring]:
    async with site.pool.acquire() as connection, connection.transaction():  # so that no outbox sees them unrung
        made = await site.publish(number, connection=connection)
        rows = await connection.fetch(_RUNG, made)
    endpoint = {row["id"]: EndpointId(row["endpoint_id"]) for row in rows}
    return [Ring(tenant_id=TENANT, endpoint_id=endpoint[each], delivery_id=DeliveryId(each)) for each in made]
