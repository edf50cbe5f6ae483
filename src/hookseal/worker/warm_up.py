"""Opens connections, and plans on each the statements that its pool runs, before a burst of deliveries needs them.

A new connection with its plans takes about 30 ms of CPU, for which others would wait. The pool closes a connection that
nobody has used for five minutes, and one after a million statements. Behind a pooler only the connections last: plans
belong to its sessions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from hookseal.dispatcher.store import lanes, ledger
from hookseal.ground.clock import Clock
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool
from hookseal.postgres.translate import translated
from hookseal.worker.periodic import Periodic

OF_THE_POOL: Final = 3  # connections: for a look of the outbox, for lanes, and for what is recorded alone
FIRST_SECONDS: Final = 1.0  # after the start
AGAIN_SECONDS: Final = 120.0
LONGEST_SECONDS: Final = 0.5  # to open connections


class WarmUp:
    """Keeps connections of two pools open and warm: all of `batching`, and as many of `pool` as a burst needs."""

    def __init__(self, pool: Pool, batching: Pool, *, clock: Clock, log: Any) -> None:
        self._pool = pool
        self._batching = batching
        self.loop = Periodic("warm_up", self.once, first=FIRST_SECONDS, every=AGAIN_SECONDS, clock=clock, log=log)

    async def once(self) -> None:
        """Warm them up. Raises `Unavailable`."""
        await warm_up_batching(self._batching)
        await _warm_up(self._pool, [ledger.plan, lanes.plan], connections=OF_THE_POOL)


async def warm_up_batching(pool: Pool) -> None:
    """Open all connections of this pool, and plan the statements of batches on each. Raises `Unavailable`."""
    await _warm_up(pool, [ledger.plan_batches], connections=pool.get_max_size())


async def _warm_up(pool: Pool, plans: Sequence[Callable[[Connection], Awaitable[None]]], *, connections: int) -> None:
    """Open connections until there are so many, or `LONGEST_SECONDS` have passed, and make these plans on each.

    It waits for none that is in use: that one plans what it runs. Until its statements are planned, no other caller has
    a connection. Raises `Unavailable`.
    """
    with translated():
        async with AsyncExitStack() as opened:
            each = list["PoolConnectionProxy[asyncpg.Record]"]()
            with suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_SECONDS):  # others may need those that it has
                    while len(each) < connections and (pool.get_idle_size() or pool.get_size() < pool.get_max_size()):
                        each.append(await opened.enter_async_context(pool.acquire(timeout=ANSWER_SECONDS)))
            for connection in each:
                for plan in plans:
                    await plan(connection)
                await pool.release(connection, timeout=ANSWER_SECONDS)  # that at the end of the block does nothing
