"""Detects that one transaction waits for a lock of another, as PostgreSQL reports it."""

from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

_WAITS = """
SELECT count(*) >= $1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def blocked(installation: Installation, sessions: int = 1) -> None:
    """Return once so many sessions wait for locks of others."""

    async def look() -> bool:
        waits: bool = await installation.pool.fetchval(_WAITS, sessions)
        return waits

    await eventually(look)
