"""The statements that a pool sends."""

import asyncio
from contextlib import AsyncExitStack

from asyncpg.connection import LoggedQuery

from hookseal.postgres.pool import Pool, connected

_TURNS = 3  # of the event loop, until asyncpg has reported the last statement of a call


async def noted(*pools: Pool) -> list[LoggedQuery]:
    """Return a list that gets each statement of these pools from now on; await `reported` before it is read.

    Each query message counts, also BEGIN and COMMIT. Several statements in one message count as one. What a connection
    sends for itself after a slow statement does not.
    """
    sent: list[LoggedQuery] = []

    def note(query: LoggedQuery) -> None:
        if query.query != "DISCARD PLANS":
            sent.append(query)

    async with AsyncExitStack() as stack:
        for pool in pools:
            for _ in range(pool.get_max_size()):
                connection = await stack.enter_async_context(connected(pool))
                connection.add_query_logger(note)
    return sent


async def reported() -> None:
    """Wait until asyncpg has reported what was sent."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
