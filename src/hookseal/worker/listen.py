"""The listener: while a worker listens, publish tells it, and the outbox need not wait for its next look."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import asyncpg

from hookseal.dispatcher.database import translated
from hookseal.ground.clock import Clock
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS
from hookseal.worker.outage import Outage
from hookseal.worker.pause import set_within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CHANNEL: Final = "hookseal_unrung"
NOTICE_SECONDS: Final = 10.0  # how long after its last word a listener is still told
_ASK_SECONDS: Final = 3.0
_AGAIN_SECONDS: Final = 1.0

_SQL: Final = statements("hookseal.worker", "outbox.sql")


class Listening:
    """Holds one connection of its own that listens, and calls `wake` for every notification and every new beginning.

    A pooler in transaction mode breaks this: `connect` must reach PostgreSQL itself.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], wake: Callable[[], None], *, clock: Clock, log: Any
    ) -> None:
        self._connect = connect
        self._wake = wake
        self._clock = clock
        self._outage = Outage("listen", log)

    async def run(self) -> None:
        """Listen, for ever; a connection that is lost is replaced. What fails is told once an outage."""
        while True:
            with self._outage.survived(), translated():
                await self._listen()
            await self._clock.sleep(_AGAIN_SECONDS)

    async def _listen(self) -> None:
        """Listen until the connection is lost. Raises one of the `OUTAGES`."""
        connection = await self._connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.add_listener(CHANNEL, lambda *_told: self._wake())
            self._wake()
            while not lost.is_set():
                await connection.execute(_SQL["ask_for_notice"], NOTICE_SECONDS, timeout=ANSWER_SECONDS)
                self._outage.over()
                await set_within(lost, _ASK_SECONDS, self._clock)
        finally:
            connection.terminate()
