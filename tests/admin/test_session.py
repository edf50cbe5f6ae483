"""The connections of an Admin: a change that holds one can always have a second one."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import asyncpg
import pytest

from hookseal import Admin
from hookseal.admin import session as sessions
from hookseal.admin.session import MAX_CONNECTIONS, PoolSession, Session
from hookseal.config.producer import admin_settings
from hookseal.errors import ConfigError, Unavailable
from hookseal.operations.bulk import LANES
from hookseal.postgres import opening
from hookseal.postgres.pool import ANSWER_SECONDS
from tests.doubles.stored import Installation

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
        session = PoolSession(pool, settings)
        most = await asyncio.gather(*(read_beside(session) for _ in range(AT_ONCE)))

    assert AT_ONCE == len(most)
    assert MAX_CONNECTIONS - 1 >= max(most)


async def test_an_upgrade_under_an_open_admin_is_named(admin: Admin, installation: Installation) -> None:
    """A statement that the new schema does not know is no fault of hookseal: the error says what happened."""
    pool = installation.pool
    await pool.execute("DROP INDEX hookseal.endpoints_url")
    new = partial(admin.endpoints.add, tenant_id="acme", url="https://a.example", event_types=["*"], actor="jane")
    with pytest.raises(asyncpg.PostgresError):  # without another revision nothing explains it
        await new()
    await pool.execute("UPDATE hookseal.alembic_version SET version_num = '9999', runs_from = '9999'")
    with pytest.raises(
        ConfigError, match="upgraded while this Admin was open: the schema is at revision 9999"
    ) as caught:
        await new()
    await pool.execute("ALTER TABLE hookseal.tenants RENAME COLUMN metadata TO facts")
    with pytest.raises(ConfigError, match="upgraded while this Admin was open"):
        await admin.tenants.list()
    assert "schema" == caught.value.field


@pytest.mark.usefixtures("installation")
async def test_a_change_without_a_turn_says_so(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If too many changes hold connections for long, the next one does not blame PostgreSQL."""
    monkeypatch.setattr(sessions, "ANSWER_SECONDS", 0.05)
    settings = admin_settings(environ=environ)
    async with opening.pool(
        settings.database, size=MAX_CONNECTIONS, name="test", seconds=ANSWER_SECONDS, close_seconds=5.0
    ) as pool:
        session = PoolSession(pool, settings)
        async with AsyncExitStack() as held:
            for _ in range(MAX_CONNECTIONS - 1):
                await held.enter_async_context(session._turn(None))
            with pytest.raises(Unavailable, match="too many changes at once"):
                async with session.changing("jane@product.example"):
                    pass
        async with session.changing("jane@product.example"):
            pass


@pytest.mark.usefixtures("installation")
async def test_changes_of_many_rows_take_turns(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a change holds five connections and leaves four to other changes; a second one waits, and holds none."""
    monkeypatch.setattr(sessions, "ANSWER_SECONDS", 0.5)
    settings = admin_settings(environ=environ)

    async def second(session: Session) -> None:
        async with session.changing_many("jane@product.example") as (_, further), further():
            pass

    async with opening.pool(
        settings.database, size=MAX_CONNECTIONS, name="test", seconds=ANSWER_SECONDS, close_seconds=5.0
    ) as pool:
        session = PoolSession(pool, settings)
        async with session.changing_many("jane@product.example") as (_, further), AsyncExitStack() as held:
            for _ in range(LANES):
                await held.enter_async_context(further())
            waiting = asyncio.create_task(second(session))
            for _ in range(MAX_CONNECTIONS - 1 - 1 - LANES):
                await held.enter_async_context(session.changing("jane@product.example"))
            assert not waiting.done()
        await waiting
