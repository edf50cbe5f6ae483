"""The sweep: what Redis lost is rung again, what a dead worker held is taken back."""

from collections.abc import Awaitable, Callable
from typing import Any

from hookseal.dispatcher.ledger import SWEEP_BATCH, PostgresLedger
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.queue.bell import Bell


class Sweep:
    """Runs every `seconds`. Any number of workers may sweep at once: rows are taken with SKIP LOCKED."""

    def __init__(self, ledger: PostgresLedger, bell: Bell, *, seconds: float, clock: Clock, log: Any) -> None:
        self._ledger = ledger
        self._bell = bell
        self._seconds = seconds
        self._clock = clock
        self._log = log

    async def run(self) -> None:
        """Sweep now and then every `seconds`, for ever. An outage is told and survived."""
        while True:
            try:
                await self.once()
            except Unavailable as error:
                self._log.warning("sweep.failed", reason=str(error))
            except Exception:  # noqa: BLE001 -- told, and the next sweep may fare better
                self._log.exception("sweep.defect")
            await self._clock.sleep(self._seconds)

    async def once(self) -> tuple[int, int]:
        """Take back every lease that ran out and ring everything due; return both counts. Raises `Unavailable`."""
        taken_back = await self._drained(self._ledger.end_lost_leases)
        rung = await self._drained(self._ring)
        if taken_back or rung:
            self._log.info("sweep.done", leases_taken_back=taken_back, rung=rung)
        return taken_back, rung

    async def _ring(self) -> int:
        return await self._bell.ring(await self._ledger.ring_due(self._seconds))

    @staticmethod
    async def _drained(batch: Callable[[], Awaitable[int]]) -> int:
        total = count = await batch()
        while count == SWEEP_BATCH:
            count = await batch()
            total += count
        return total
