"""What the worker that leads does with held endpoints: probes them, lets go what they release, ends what is too old."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.dispatcher.holds import BATCH, PostgresHolds
from hookseal.ground.clock import Clock
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.outage import Outage

LOOK_SECONDS: Final = 0.25
PROBE_SECONDS: Final = 1.0
STRAY_SECONDS: Final = 15.0
CANCEL_SECONDS: Final = 60.0


class Holding:
    """Looks four times a second while `leads` is true. What is released is let go in batches, without a pause.

    Of an endpoint whose secret was refused nothing is released before one delivery, its probe, was signed.

    All that it does is in PostgreSQL: whoever leads next goes on where this one ended.
    """

    def __init__(
        self,
        holds: PostgresHolds,
        leads: Callable[[], bool],
        *,
        held_days: int,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._holds = holds
        self._leads = leads
        self._held_days = held_days
        self._clock = clock
        self._meter = meter
        self._log = log
        self._outage = Outage("holding", log)
        self._probe_at = self._stray_at = self._cancel_at = clock.monotonic()

    async def run(self) -> None:
        """Look, for ever. An outage is logged once."""
        while True:
            more = False
            if self._leads():
                with self._outage.survived():
                    more = await self.once()
            if not more:
                await self._clock.sleep(LOOK_SECONDS)

    async def once(self) -> bool:
        """Do what is to be done now, one batch of each; return whether more may be left. Raises `Unavailable`."""
        more = await self.settle()
        now = self._clock.monotonic()
        if now >= self._probe_at:
            self._probe_at = now + PROBE_SECONDS
            await self._holds.probe()
        if now >= self._stray_at:
            self._stray_at = now + STRAY_SECONDS
            if strays := await self._holds.release_strays():
                self._log.info("endpoints.released", endpoints=strays, reason="deliveries waited without a reason")
        if now >= self._cancel_at:
            if await self.cancel():
                more = True
            else:
                self._cancel_at = now + CANCEL_SECONDS
        return more

    async def settle(self) -> bool:
        """Let go one batch of what one endpoint released; return whether more may be left. Raises `Unavailable`."""
        settled = await self._holds.settle()
        if settled is None:
            return False
        if settled.is_transient:
            await self._holds.hasten()
        if settled.let_go:
            self._log.info(
                "endpoint.released",
                tenant_id=settled.tenant_id,
                endpoint_id=settled.endpoint_id,
                deliveries=settled.let_go,
            )
        return True

    async def cancel(self) -> bool:
        """End one batch of what has waited for a disabled endpoint for too long; return whether more may be left.

        Raises `Unavailable`.
        """
        ended = await self._holds.cancel(days=self._held_days)
        self._meter.held_too_long(ended)
        if ended:
            self._log.warning("deliveries.held_too_long", deliveries=ended, days=self._held_days)
        return ended == BATCH
