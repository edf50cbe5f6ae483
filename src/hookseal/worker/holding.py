"""The leader's work on deliveries that wait: it probes and releases held endpoints, cancels, and moves lines on."""

from typing import Any, Final

from hookseal.dispatcher.store.held import FIRST_LINE, Held, PostgresHeldEndpoints
from hookseal.dispatcher.store.ledger import Chore
from hookseal.ground.clock import Clock
from hookseal.worker.chores import Leader
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.periodic import Passes, Periodic

LOOK_SECONDS: Final = 0.5
STRAY_SECONDS: Final = 15.0
CANCEL_SECONDS: Final = 60.0


class Holding:
    """Looks twice a second while this worker leads, unless the leader knows that there is nothing to look at.

    Deliveries of a released endpoint follow in batches without a pause.

    If the secret of an endpoint was refused, its deliveries are released only after one of them, the probe, was signed.
    If the head of a line waits without a reason, it is made due. Usually the worker that ended the delivery before it
    has taken it already, unless that worker died or did not see it yet. All state is in PostgreSQL, so the next leader
    continues where this one ended.
    """

    def __init__(
        self,
        holds: PostgresHeldEndpoints,
        leader: Leader,
        *,
        held_days: int,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._holds = holds
        self._leader = leader
        self._held_days = held_days
        self._clock = clock
        self._meter = meter
        self._log = log
        self.passes = Passes("holding", clock)
        self.loop = Periodic(
            "holding",
            self.once,
            every=LOOK_SECONDS,
            leads=lambda: leader.leads,
            follow=LOOK_SECONDS,
            passes=self.passes,
            clock=clock,
            log=log,
        )
        self._stray_at = self._cancel_at = clock.monotonic()
        self._line = FIRST_LINE
        self._late: Held | None = None

    async def once(self) -> bool:
        """Do what is due now, one batch of each kind; return whether more may be left. Raises `Unavailable`."""
        more = False
        if self._leader.may_have(Chore.HELD):
            more = await self.release_batch()
            await self._holds.probe()
        if self._leader.may_have(Chore.LINES):
            _, self._line = await self._holds.move_lines(self._line)
        now = self._clock.monotonic()
        if now >= self._stray_at:
            self._stray_at = now + STRAY_SECONDS
            if strays := await self._holds.release_strays():
                self._log.info("endpoints.released", endpoints=strays, reason="deliveries waited without a reason")
        if now >= self._cancel_at:
            more |= await self.cancel()
            if self._late is None:
                self._cancel_at = now + CANCEL_SECONDS
        return more

    async def release_batch(self) -> bool:
        """Release one batch of deliveries of one endpoint; return whether more may be left. Raises `Unavailable`."""
        batch = await self._holds.release_batch()
        if batch is None:
            return False
        if batch.is_transient:
            await self._holds.probe_transient()
        if batch.due:
            self._log.info(
                "endpoint.released",
                tenant_id=batch.tenant_id,
                endpoint_id=batch.endpoint_id,
                deliveries=batch.due,
            )
        return True

    async def cancel(self) -> bool:
        """Cancel a batch of deliveries that disabled endpoints have held too long; return whether more may follow.

        After deliveries that it passes over there is a pause. Raises `Unavailable`.
        """
        ended, self._late = await self._holds.cancel(days=self._held_days, after=self._late)
        self._meter.held_too_long(ended)
        if ended:
            self._log.warning("deliveries.held_too_long", deliveries=ended, days=self._held_days)
        return bool(ended) and self._late is not None
