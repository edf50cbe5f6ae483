"""Detects that one transaction waits for a lock of another, as PostgreSQL reports it."""

from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

_WAITS = """
SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def blocked(installation: Installation) -> None:
    """Return once a session waits for a lock of another."""

    async def look() -> bool:
        waits: bool = await installation.pool.fetchval(_WAITS)
        return waits

    await eventually(look)
