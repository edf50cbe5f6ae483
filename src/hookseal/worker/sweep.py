"""The sweep: what Redis lost is rung again, what a dead worker held is taken back."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from hookseal.dispatcher.ledger import BEGINNING, SWEEP_BATCH, Place, PostgresLedger
from hookseal.dispatcher.model import State
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.queue.bell import Bell
from hookseal.worker.meter import WorkerMeter
from hookseal.worker.metrics import RungBy

# A ring that was lost just after one look is too young for the next: with one look a sweep it would take two.
LOOKS: Final = 4


class Sweep:
    """Rings again, within `seconds` of the ring that was lost, what is due; it looks four times in as long.

    Any number of workers may sweep at once: rows are taken with SKIP LOCKED.
    """

    def __init__(
        self, ledger: PostgresLedger, bell: Bell, *, seconds: float, clock: Clock, meter: WorkerMeter, log: Any
    ) -> None:
        self._ledger = ledger
        self._bell = bell
        self._between = seconds / LOOKS
        self._old = timedelta(seconds=seconds - self._between)
        self._clock = clock
        self._meter = meter
        self._log = log

    async def run(self) -> None:
        """Look now and then again and again, for ever. What fails is told, and holds the other half up no more."""
        while True:
            await self.once()
            await self._clock.sleep(self._between)

    async def once(self) -> tuple[int | None, int | None]:
        """Take back and ring; return how many of each, None for a half that failed, which has then been told."""
        return await self._told(self.take_back), await self._told(self.ring_due)

    async def take_back(self) -> int:
        """End every lease that ran out; return how many. Raises `Unavailable`."""
        count = dead_letters = 0
        more = True
        while more:
            states = await self._ledger.end_lost_leases()
            self._meter.took_back(states)
            dead_letters += states.count(State.DEAD_LETTER)
            count += len(states)
            more = len(states) == SWEEP_BATCH
        if count:
            self._log.warning("sweep.took_back", leases=count, dead_letters=dead_letters)
        return count

    async def ring_due(self) -> int:
        """Ring everything due, each once; return how many. Raises `Unavailable`."""
        now = await self._ledger.seconds_ago(0)  # what comes due meanwhile is for the next sweep
        rung_before = now - self._old
        count = 0
        place: Place | None = BEGINNING
        while place is not None:
            rings, place = await self._ledger.ring_due(now, rung_before, place)
            rung = await self._bell.ring(rings, again=True)
            self._meter.rang(RungBy.SWEEP, rung)
            count += rung
        if count:
            self._log.info("sweep.rang", deliveries=count)
        return count

    async def _told(self, half: Callable[[], Awaitable[int]]) -> int | None:
        try:
            return await half()
        except Unavailable as error:
            self._log.warning("sweep.failed", half=half.__name__, reason=str(error))
        except Exception:  # noqa: BLE001 -- told, and the next sweep may fare better
            self._log.exception("sweep.defect", half=half.__name__)
        return None
