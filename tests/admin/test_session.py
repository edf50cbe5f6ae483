"""The connections of an Admin: a change that holds one can always have a second one."""

import asyncio

import pytest

from hookseal.admin.session import MAX_CONNECTIONS, Session
from hookseal.config.admin import admin_settings
from hookseal.postgres import opening
from hookseal.postgres.handles import ANSWER_SECONDS

AT_ONCE = 3 * MAX_CONNECTIONS


@pytest.mark.usefixtures("installation")
async def test_changes_at_once_do_not_wait_for_each_others_connections(environ: dict[str, str]) -> None:
    """With many changes at once, each that needs a second connection while it holds one gets it."""
    settings = admin_settings(environ=environ)
    holding = 0

    async def read_beside(session: Session) -> int:
        nonlocal holding
        async with session.changing("jane@product.example") as operator:
            holding += 1
            most = holding
            await operator.connection.execute("SELECT 1")
            await operator.unlocked.check_sentinel()  # over another connection of the pool
            holding -= 1
            return most

    async with opening.pool(
        settings.database, size=MAX_CONNECTIONS, name="test", seconds=ANSWER_SECONDS, close_seconds=5.0
    ) as pool:
        session = Session(pool, settings)
        most = await asyncio.gather(*(read_beside(session) for _ in range(AT_ONCE)))

    assert AT_ONCE == len(most)
    assert MAX_CONNECTIONS - 1 >= max(most)
