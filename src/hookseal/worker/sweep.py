"""The sweep: what Redis lost is rung again, what a dead worker held is taken back."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from hookseal.dispatcher.ledger import BEGINNING, SWEEP_BATCH, Place, PostgresLedger
from hookseal.dispatcher.model import Ring, State
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
        """Ring what is due and was never rung for that time, or whose ring is lost; return how many.

        Raises `Unavailable`.
        """
        now = await self._ledger.seconds_ago(0)  # what comes due meanwhile is for the next sweep
        count = await self._ring_lost(now)
        place: Place | None = BEGINNING
        while place is not None:
            rings, place = await self._ledger.ring_due(now, BEGINNING.due_at, place)
            count += await self._ring(rings)
        if count:
            self._log.info("sweep.rang", deliveries=count)
        return count

    async def _ring_lost(self, now: datetime) -> int:
        """Ring again, oldest first, what is not in Redis any more; return how many.

        While the oldest are there, so are those behind them, as a rule, and a ring that is lost there is found when
        its turn comes: to ring a whole backlog again and again would be dearer than to work it off.
        """
        old = now - self._old
        count = 0
        place: Place | None = BEGINNING
        while place is not None:
            rings, place = await self._ledger.rung_before(now, old, place)
            lost = await self._bell.lost(rings)
            count += await self._ring(await self._ledger.ring_again(lost, old) if lost else [])
            if len(lost) < len(rings) / 2:
                break
        return count

    async def _ring(self, rings: Sequence[Ring]) -> int:
        rung = await self._bell.ring(rings)
        self._meter.rang(RungBy.SWEEP, rung)
        return rung

    async def _told(self, half: Callable[[], Awaitable[int]]) -> int | None:
        try:
            return await half()
        except Unavailable as error:
            self._log.warning("sweep.failed", half=half.__name__, reason=str(error))
        except Exception:  # noqa: BLE001 -- told, and the next sweep may fare better
            self._log.exception("sweep.defect", half=half.__name__)
        return None
