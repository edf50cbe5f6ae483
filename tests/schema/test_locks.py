"""Every wait for a lock has a time limit and names the holder, and only hookseal's own logins can take such a lock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from hookseal.dispatcher.store.publish import NewEvent, publish_raw
from hookseal.errors import Busy, SecretUnavailable
from hookseal.ground.ids import TenantId
from hookseal.postgres import pool as locks
from hookseal.postgres.connect import connect
from hookseal.postgres.pool import ANSWER_SECONDS, Pool
from hookseal.postgres.schema import revision
from hookseal.postgres.schema import upgrade as upgrading
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.secrets.key import active_key
from tests.doubles.logins import login
from tests.schema.later import make_later
from tests.secrets.samples import FIRST, register
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("OPS-10")
KEYS = 0x686F6F6B7365616C  # advisory locks: every login may take them
UPGRADES = 0x686F6F6B


@asynccontextmanager
async def session(url: str, *statements: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Yield a session with an open transaction in which these statements were run."""
    connection = await connect(url, application_name="somebody")
    try:
        await connection.execute("BEGIN")
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


async def settled(pool: Pool) -> str:
    """Return the key that a sealing transaction gets."""
    async with pool.acquire() as connection, connection.transaction():
        return await active_key.lock_shared(connection)


async def waits(url: str) -> bool:
    """Return whether a session of the database waits for a lock."""
    async with session(url) as looking:
        found: bool = await looking.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock')"
        )
        return found


@pytest.mark.req("SEC-05")
@pytest.mark.parametrize("group", ["hookseal_producer", "hookseal_readonly", None])
async def test_a_login_with_few_rights_delays_nothing(pool: Pool, database_url: str, group: str | None) -> None:
    """A login with few rights cannot delay sealing, moves of keys or upgrades, not even with advisory locks."""
    await register(pool)
    async with login(pool, database_url, *([group] if group else [])) as (_, url):
        for mode in ("ROW SHARE", "ROW EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"):
            for table in ("key_lock", "alembic_version", "control", "secret_keys"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with session(url, f"LOCK TABLE hookseal.{table} IN {mode} MODE NOWAIT"):
                        pass
        for row in ("hookseal.control", "hookseal.secret_keys", "hookseal.alembic_version"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with session(url, f"SELECT FROM {row} FOR KEY SHARE"):
                    pass
        async with session(url, f"SELECT pg_advisory_lock({KEYS})", f"SELECT pg_advisory_lock({UPGRADES})") as mallory:
            if group is not None:
                await mallory.execute("SELECT FROM hookseal.alembic_version")
            assert FIRST.key_id == await settled(pool)
            await upgrade(database_url)


@pytest.mark.req("SEC-05")
async def test_the_wait_to_seal_is_limited(pool: Pool, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait to seal ends and names process, role and application of the holder; the caller's settings stay."""
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.2)
    await register(pool)
    lock = "LOCK TABLE hookseal.key_lock IN SHARE ROW EXCLUSIVE MODE"
    async with login(pool, database_url, "hookseal_operator") as (role, url), session(url, lock) as holder:
        pid = holder.get_server_pid()
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '7s'")
            with pytest.raises(
                SecretUnavailable, match=rf"process {pid} \(role {role}, application 'somebody', since 2"
            ):
                await active_key.lock_shared(connection)
            assert "7s" == await connection.fetchval("SHOW lock_timeout")
            await holder.execute("ROLLBACK")
            assert FIRST.key_id == await active_key.lock_shared(connection)
            assert "7s" == await connection.fetchval("SHOW lock_timeout")


@pytest.mark.req("OPS-09", part="one-at-a-time")
async def test_the_wait_of_an_upgrade_is_limited(
    pool: Pool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrading, "_WAIT_SECONDS", 0.2)
    lock = "LOCK TABLE hookseal.alembic_version IN SHARE ROW EXCLUSIVE MODE"
    async with session(database_url, lock) as holder:
        with pytest.raises(
            Busy, match=rf"process {holder.get_server_pid()} \(role \w+, application 'somebody', since 2"
        ):
            await upgrade(database_url)
        await holder.execute("ROLLBACK")
        await upgrade(database_url)


@pytest.mark.req("OPS-09", part="under-load")
async def test_a_waiting_upgrade_delays_nobody(
    pool: Pool, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a table is read for long, as by a dump, publishing continues; the upgrade fails and names the reader."""
    monkeypatch.setattr(upgrading, "_WAIT_SECONDS", 6)
    make_later(tmp_path, monkeypatch, "ALTER TABLE hookseal.deliveries ADD COLUMN note text")
    async with session(database_url, "SELECT count(*) FROM hookseal.attempts") as reader:
        upgrades = asyncio.create_task(upgrade(database_url))
        await eventually(partial(waits, database_url))
        while not upgrades.done():
            async with asyncio.timeout(ANSWER_SECONDS):
                await publish_raw(pool, NewEvent(tenant_id=TenantId("acme"), event_type="a"), b"{}")
            await asyncio.sleep(0.02)  # the rate of a producer

        with pytest.raises(Busy, match=rf"process {reader.get_server_pid()} "):
            await upgrades
        await reader.execute("ROLLBACK")
        assert revision.EXPECTED == await upgrade(database_url)


@pytest.mark.req("OPS-09", part="one-at-a-time")
async def test_the_wait_of_the_first_upgrade_is_limited(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty database the second upgrade waits for the first one's schema, and names its process."""
    monkeypatch.setattr(upgrading, "_WAIT_SECONDS", 0.2)
    first = await connect(empty_database_url, application_name="hookseal db upgrade")
    try:
        begun = first.transaction()
        await begun.start()
        await upgrading._lock(first)
        with pytest.raises(Busy, match=f"process {first.get_server_pid()} "):
            await upgrade(empty_database_url)
        monkeypatch.setattr(upgrading, "_WAIT_SECONDS", 20)
        second = asyncio.create_task(upgrade(empty_database_url))
        await eventually(partial(waits, empty_database_url))
        await begun.commit()
        await second
    finally:
        await first.close()


@pytest.mark.req("OPS-09", part="one-at-a-time")
async def test_no_lock_outlives_an_upgrade(pool: Pool, database_url: str) -> None:
    """No session keeps a lock of an upgrade: behind a pooler it would delay the next upgrade."""
    connection = await connect(database_url)
    try:
        async with connection.transaction():
            await upgrading._lock(connection)
        async with pool.acquire() as other:
            assert 0 == await other.fetchval(
                "SELECT count(*) FROM pg_locks WHERE pid = $1 AND locktype <> 'virtualxid'", connection.get_server_pid()
            )
    finally:
        await connection.close()
