"""What the leader does with history: it removes what ended before the retention, in batches with pauses."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.dispatcher.history import OLDEST, PostgresHistory, Removed
from hookseal.ground.clock import Clock
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.outage_log import Outage

LOOK_SECONDS: Final = 60.0
FOLLOW_SECONDS: Final = 3.0  # a new leader begins within this time
EVENTS_SECONDS: Final = 3_600.0  # between two walks through the old events, for each reads all that are still in use
LOG_SECONDS: Final = 60.0


class Retention:
    """Looks once a minute while `leads` is true, and removes batch after batch until nothing is left to remove.

    After each batch it pauses for as long as the batch took: so it uses at most half of the time of one connection,
    however much there is to remove. A batch is one statement: if the worker dies, it is either removed or not, and the
    next leader continues.
    """

    def __init__(
        self,
        history: PostgresHistory,
        leads: Callable[[], bool],
        *,
        days: int,
        clock: Clock,
        meter: WorkerMeter,
        log: Any,
    ) -> None:
        self._history = history
        self._leads = leads
        self._days = days
        self._clock = clock
        self._meter = meter
        self._log = log
        self._outage = Outage("retention", log)
        self._deliveries = self._events = OLDEST
        self._events_at = self._log_at = clock.monotonic()
        self._unlogged = Removed()

    async def run(self) -> None:
        """Look until cancelled. An outage is logged once."""
        while True:
            if not self._leads():
                await self._clock.sleep(FOLLOW_SECONDS)
                continue
            more, begun_at = False, self._clock.monotonic()
            with self._outage.survived():
                more = await self.once()
            await self._clock.sleep(self._clock.monotonic() - begun_at if more else LOOK_SECONDS)

    async def once(self) -> bool:
        """Remove one batch of deliveries, and one of events if it is time; return whether more may be left.

        Raises `Unavailable`.
        """
        removed, deliveries = await self._history.remove_deliveries(self._deliveries, days=self._days)
        self._deliveries = deliveries or OLDEST
        self._count(removed)
        more = deliveries is not None
        if self._clock.monotonic() >= self._events_at:
            more = await self._remove_events() or more
        self._report(more=more)
        return more

    async def _remove_events(self) -> bool:
        removed, events = await self._history.remove_events(self._events, days=self._days)
        self._events = events or OLDEST
        self._count(removed)
        if events is None:
            self._events_at = self._clock.monotonic() + EVENTS_SECONDS
        return events is not None

    def _count(self, removed: Removed) -> None:
        self._meter.removed(removed)
        self._unlogged += removed

    def _report(self, *, more: bool) -> None:
        """Log what was removed, at the end and once a minute."""
        if self._unlogged and (not more or self._clock.monotonic() >= self._log_at):
            done, self._unlogged = self._unlogged, Removed()
            self._log_at = self._clock.monotonic() + LOG_SECONDS
            self._log.info(
                "retention.removed",
                deliveries=done.deliveries,
                attempts=done.attempts,
                events=done.events,
                days=self._days,
            )
