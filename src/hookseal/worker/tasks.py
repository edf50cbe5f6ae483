"""What a ring starts: a job that ends as soon as its delivery is claimed, and a task that sends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from hookseal.dispatcher.deliver import attempt, take
from hookseal.dispatcher.model import Claim, Ring
from hookseal.dispatcher.ports import Parts
from hookseal.ground import ids
from hookseal.ground.errors import Busy, Exhausted, Malformed, Unavailable
from hookseal.queue.taking import Dropped, DropReason, RingAgain
from hookseal.worker.inflight import InFlight
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.movement import Movement

SLOT_SECONDS: Final = 5.0
# A claim ages from when it is asked for, so it may not queue for a connection behind a hundred others; and those that
# read a secret or record an outcome find one, too: this many leave four of the pool's ten to them.
CLAIMS_AT_ONCE: Final = 6
_RING_AGAIN_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 0.2
# While this machine lacks descriptors nothing is begun for so long, twice as long each time that it still does.
_FIRST_REST_SECONDS: Final = 0.5
_LONGEST_REST_SECONDS: Final = 8.0
# A slot, a permit and a claim, each as long as it may wait: the ring of a job that takes longer is dropped.
JOB_SECONDS: Final = 30


class Answering:
    """Answers rings: the function that arq runs. A ring waits `slot_seconds` for a free slot.

    `movement` knows when a delivery last came.
    """

    def __init__(
        self,
        parts: Parts,
        in_flight: InFlight,
        meter: WorkerMeter,
        movement: Movement,
        *,
        slot_seconds: float = SLOT_SECONDS,
    ) -> None:
        self._parts = parts
        self._in_flight = in_flight
        self._meter = meter
        self.movement = movement
        self._slot_seconds = slot_seconds
        self._claiming = asyncio.Semaphore(CLAIMS_AT_ONCE)
        self._rest_seconds = 0.0
        self._rested_at = float("-inf")

    async def deliver(self, _ctx: dict[Any, Any], *arguments: Any) -> None:
        """Claim what the ring names and start sending it. Whatever happens, arq has nothing to record.

        Raises `RingAgain` if no slot becomes free, PostgreSQL does not answer, the delivery or its endpoint is being
        changed, or we are stopping.
        """
        try:
            ring = _ring(arguments)
        except Malformed as error:
            self.drop(Dropped(DropReason.UNREADABLE, detail=str(error)))
            return
        await self._slot()
        claimed = await self._claimed(ring)
        if claimed is not None:
            self._in_flight.start(self._attempt(*claimed))

    def drop(self, dropped: Dropped) -> None:
        """Log and count what was thrown out. The id is logged only if it has the form of one of ours."""
        self._meter.ring_dropped(dropped.reason, dropped.rings)
        self._parts.log.warning(
            "ring.dropped",
            reason=dropped.reason.value,
            rings=dropped.rings,
            delivery_id=_delivery_id(dropped.job_id),
            detail=dropped.detail or None,
        )

    async def _slot(self) -> None:
        try:
            async with asyncio.timeout(self._slot_seconds):
                await self._in_flight.slot()
        except TimeoutError:
            raise RingAgain(_RING_AGAIN_SECONDS) from None
        if self._in_flight.is_closed:  # we are on our way out: another worker takes it
            self._in_flight.free()
            raise RingAgain

    async def _claimed(self, ring: Ring) -> tuple[Claim, float] | None:
        """Return the claim, which then owns the slot; without one the slot is free again."""
        claimed = None
        try:
            claimed = await self._taken(ring)
        except Busy:
            raise RingAgain(_BUSY_SECONDS, keeps_place=False) from None
        except Unavailable as error:
            self._meter.claim_failed()
            self._parts.log.warning("claim.failed", delivery_id=ring.delivery_id, reason=str(error))
            raise RingAgain(_RING_AGAIN_SECONDS) from None
        except Exception:
            self._meter.claim_failed()
            self._parts.log.exception("claim.defect", delivery_id=ring.delivery_id)
        finally:
            if claimed is None:
                self._in_flight.free()
        return claimed

    async def _taken(self, ring: Ring) -> tuple[Claim, float] | None:
        """Claim. Unless there is nothing to claim, the queue has done its part, whatever becomes of the claim."""
        try:
            async with self._permit():
                claimed = await take(ring, self._parts)
        except Exception:
            self.movement.moved()
            raise
        if claimed is None:
            self._meter.ring_dropped(DropReason.NOT_DUE)
        else:
            self.movement.moved()
        return claimed

    @asynccontextmanager
    async def _permit(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._slot_seconds):
                await self._claiming.acquire()
        except TimeoutError:
            raise Unavailable("every claim under way waits for PostgreSQL") from None
        try:
            yield
        finally:
            self._claiming.release()

    async def _attempt(self, claim: Claim, asked_at: float) -> None:
        try:
            await attempt(claim, asked_at, self._parts)
        except Exhausted as error:
            self._rest(str(error))
        except Unavailable as error:
            self._parts.log.error(  # noqa: TRY400 -- an outage, told by its name: a traceback says no more
                "delivery.unrecorded",
                tenant_id=claim.ring.tenant_id,
                delivery_id=claim.ring.delivery_id,
                attempt=claim.number,
                reason=str(error),
            )
        except Exception:
            self._parts.log.exception(
                "delivery.defect",
                tenant_id=claim.ring.tenant_id,
                delivery_id=claim.ring.delivery_id,
                attempt=claim.number,
            )

    def _rest(self, reason: str) -> None:
        """Begin nothing for a while: what is in flight must end first, or somebody raise the limit."""
        if self._in_flight.is_resting:
            return
        now = self._parts.clock.monotonic()
        is_new = now - self._rested_at > 2 * _LONGEST_REST_SECONDS
        self._rest_seconds = _FIRST_REST_SECONDS if is_new else min(2 * self._rest_seconds, _LONGEST_REST_SECONDS)
        self._rested_at = now
        self._in_flight.rest(self._rest_seconds)
        self._parts.log.error("worker.exhausted", reason=reason, rests_seconds=self._rest_seconds)


def _delivery_id(job_id: str) -> str | None:
    try:
        return ids.delivery_id(job_id)
    except Malformed:
        return None


def _ring(arguments: tuple[Any, ...]) -> Ring:
    match arguments:
        case (str(tenant), str(endpoint), str(delivery)):
            return Ring(
                tenant_id=ids.tenant_id(tenant),
                endpoint_id=ids.endpoint_id(endpoint),
                delivery_id=ids.delivery_id(delivery),
            )
        case _:
            raise Malformed("a ring is (tenant id, endpoint id, delivery id)")
