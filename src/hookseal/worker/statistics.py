"""Writes what this worker counted of each endpoint's attempts; the leader deletes old counts."""

from collections.abc import Callable
from typing import Any, Final

from hookseal.dispatcher import endpoint_stats
from hookseal.dispatcher.attempt_counts import AttemptCounts
from hookseal.ground.clock import Clock
from hookseal.ground.errors import Unavailable
from hookseal.postgres.handles import Pool
from hookseal.postgres.translate import translated
from hookseal.worker.outage_log import Outage
from hookseal.worker.timeouts import at_most

WRITE_SECONDS: Final = 15.0
FORGET_SECONDS: Final = 300.0
_GOODBYE_SECONDS: Final = 1.0


class Statistics:
    """Writes every 15 seconds. What cannot be written is kept, and written when PostgreSQL answers again."""

    def __init__(self, pool: Pool, counts: AttemptCounts, leads: Callable[[], bool], *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._counts = counts
        self._leads = leads
        self._clock = clock
        self._outage = Outage("statistics", log)
        self._forget_at = clock.monotonic()

    async def run(self) -> None:
        """Write until cancelled. An outage is logged once."""
        while True:
            await self._clock.sleep(WRITE_SECONDS)
            await self.once()

    async def once(self) -> None:
        """Write what was counted; delete a batch of old counts if it is time, and this worker leads."""
        with self._outage.survived():
            await self._write()
            if self._leads():
                await self._forget()

    async def end(self) -> None:
        """Write what was counted last; if PostgreSQL does not answer within a second, it is lost."""
        with self._outage.survived(), translated():
            await at_most(_GOODBYE_SECONDS, self._write())

    async def _forget(self) -> None:
        if self._clock.monotonic() < self._forget_at:
            return
        if await endpoint_stats.forget(self._pool) < endpoint_stats.BATCH:
            self._forget_at = self._clock.monotonic() + FORGET_SECONDS

    async def _write(self) -> None:
        taken = self._counts.take()
        keys = list(taken)
        while keys:
            batch = {key: taken[key] for key in keys[: endpoint_stats.BATCH]}
            try:
                await endpoint_stats.add(self._pool, batch)
            except Unavailable:
                self._counts.put_back({key: taken[key] for key in keys})
                raise
            del keys[: endpoint_stats.BATCH]
