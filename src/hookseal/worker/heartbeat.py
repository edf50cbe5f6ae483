"""The heartbeat: a row that tells the others that this worker lives, and with what."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from hookseal.dispatcher.database import translated
from hookseal.ground.clock import Clock
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Pool, connected
from hookseal.worker.outage import Outage
from hookseal.worker.pause import at_most

BEAT_SECONDS: Final = 5.0
_GOODBYE_SECONDS: Final = 1.0  # a stop waits no longer for a PostgreSQL that does not answer

_SQL: Final = statements("hookseal.worker", "heartbeat.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What the others may know of a worker: its times, and the ids of the master keys that it holds."""

    worker_id: str
    version: str
    drain_seconds: int
    lease_seconds: int
    key_ids: Sequence[str]


class Heartbeat:
    """Keeps the row of one worker. Rows that were not beaten for an hour are removed by whoever beats."""

    def __init__(self, pool: Pool, presence: Presence, *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._presence = presence
        self._clock = clock
        self._outage = Outage("heartbeat", log)

    @asynccontextmanager
    async def present(self) -> AsyncIterator[None]:
        """Have the row there for the length of the block. Raises `Unavailable` if it cannot be written."""
        await self.beat()
        try:
            yield
        finally:
            with self._outage.survived(), translated():
                await at_most(_GOODBYE_SECONDS, self._execute("leave", self._presence.worker_id))

    async def run(self) -> None:
        """Beat every five seconds, for ever. What fails is told once an outage."""
        while True:
            await self._clock.sleep(BEAT_SECONDS)
            with self._outage.survived():
                await self.beat()
                await self._execute("forget")

    async def beat(self) -> None:
        """Write the row, or that it was heard of now. Raises `Unavailable`."""
        own = self._presence
        await self._execute("beat", own.worker_id, own.version, own.drain_seconds, own.lease_seconds, list(own.key_ids))

    async def _execute(self, name: str, *arguments: Any) -> None:
        with translated():
            async with connected(self._pool) as connection:
                await connection.execute(_SQL[name], *arguments, timeout=ANSWER_SECONDS)
