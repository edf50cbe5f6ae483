"""What a ring starts: a job that ends as soon as its delivery is claimed, and a task that sends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from arq import Retry

from hookseal.dispatcher.deliver import attempt, take
from hookseal.dispatcher.model import Claim, Ring
from hookseal.dispatcher.ports import Parts
from hookseal.ground import ids
from hookseal.ground.errors import Busy, Malformed, Unavailable
from hookseal.worker.inflight import InFlight
from hookseal.worker.meter import WorkerMeter

SLOT_SECONDS: Final = 5.0
# A claim ages from when it is asked for, so it may not queue for a connection behind a hundred others; and those that
# read a secret or record an outcome find one, too: this many leave four of the pool's ten to them.
CLAIMS_AT_ONCE: Final = 6
_RING_AGAIN_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 0.2
# A slot, a permit and a claim, each as long as it may wait: arq would drop the ring of a job that takes longer.
JOB_SECONDS: Final = 30


class Answering:
    """Answers rings: the function that arq runs. A ring waits `slot_seconds` for a free slot."""

    def __init__(
        self, parts: Parts, in_flight: InFlight, meter: WorkerMeter, *, slot_seconds: float = SLOT_SECONDS
    ) -> None:
        self._parts = parts
        self._in_flight = in_flight
        self._meter = meter
        self._slot_seconds = slot_seconds
        self._claiming = asyncio.Semaphore(CLAIMS_AT_ONCE)

    async def deliver(self, _ctx: dict[Any, Any], *arguments: Any) -> None:
        """Claim what the ring names and start sending it. Whatever happens, arq has nothing to record.

        Raises `Retry` (ring again) if no slot becomes free, PostgreSQL does not answer, or we are stopping.
        """
        try:
            ring = _ring(arguments)
        except Malformed as error:
            self.drop("", str(error))
            return
        await self._slot()
        claimed = await self._claimed(ring)
        if claimed is not None:
            self._in_flight.start(self._attempt(*claimed))

    def drop(self, job_id: str, reason: str) -> None:
        """Tell and count that this was nobody's ring. The id is told only if it has the form of one of ours."""
        self._meter.ring_dropped()
        self._parts.log.warning("ring.dropped", delivery_id=_delivery_id(job_id), reason=reason)

    async def _slot(self) -> None:
        try:
            async with asyncio.timeout(self._slot_seconds):
                await self._in_flight.slot()
        except TimeoutError:
            raise Retry(defer=_RING_AGAIN_SECONDS) from None
        if self._in_flight.is_closed:  # we are on our way out: another worker takes it
            self._in_flight.free()
            raise Retry(defer=0)

    async def _claimed(self, ring: Ring) -> tuple[Claim, float] | None:
        """Return the claim, which then owns the slot; without one the slot is free again."""
        claimed = None
        try:
            async with self._permit():
                claimed = await take(ring, self._parts)
            if claimed is None:
                self._meter.ring_dropped()
        except Busy:
            raise Retry(defer=_BUSY_SECONDS) from None
        except Unavailable as error:
            self._meter.claim_failed()
            self._parts.log.warning("claim.failed", delivery_id=ring.delivery_id, reason=str(error))
            raise Retry(defer=_RING_AGAIN_SECONDS) from None
        except Exception:
            self._meter.claim_failed()
            self._parts.log.exception("claim.defect", delivery_id=ring.delivery_id)
        finally:
            if claimed is None:
                self._in_flight.free()
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
