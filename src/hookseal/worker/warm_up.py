"""Opens connections and plans the statements of a delivery on each, before a burst of deliveries needs them.

A new connection with its plans takes about 30 ms of CPU, for which others would wait. The pool closes a connection that
nobody has used for five minutes, and one after a million statements. Behind a pooler only the connections last: plans
belong to its sessions.
"""

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from hookseal.dispatcher import batches, lane_store, ledger
from hookseal.ground.clock import Clock
from hookseal.postgres.handles import ANSWER_SECONDS, Pool
from hookseal.postgres.translate import translated
from hookseal.worker.outage_log import Outage

AT_START: Final = 3  # connections: for a claim, a batch of outcomes and a look of the outbox at the same time
IN_A_BURST: Final = 6  # for a second batch, for lanes, and for what is recorded alone, too
FIRST_SECONDS: Final = 1.0  # after the start
AGAIN_SECONDS: Final = 120.0
LONGEST_SECONDS: Final = 0.5  # to open connections


class WarmUp:
    """Keeps connections of a pool open and warm."""

    def __init__(self, pool: Pool, *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._clock = clock
        self._outage = Outage("warm_up", log)

    async def run(self) -> None:
        """Warm up all connections that a burst needs, soon and then again and again, until cancelled."""
        seconds = FIRST_SECONDS
        while True:
            await self._clock.sleep(seconds)
            seconds = AGAIN_SECONDS
            with self._outage.survived():
                await warm_up(self._pool, connections=IN_A_BURST)


async def warm_up(pool: Pool, *, connections: int) -> None:
    """Open connections until there are so many, or `LONGEST_SECONDS` have passed, and plan the statements on each.

    Each goes back to the pool as soon as its statements are planned. Raises `Unavailable`.
    """
    with translated():
        async with AsyncExitStack() as opened:
            each = list["PoolConnectionProxy[asyncpg.Record]"]()
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_SECONDS):  # others may need those that it has
                    while len(each) < connections:
                        each.append(await opened.enter_async_context(pool.acquire(timeout=ANSWER_SECONDS)))
            for connection in each:
                await batches.plan(connection)
                if connections > AT_START:
                    await ledger.plan(connection)
                    await lane_store.plan(connection)
                await pool.release(connection, timeout=ANSWER_SECONDS)  # that at the end of the block does nothing
