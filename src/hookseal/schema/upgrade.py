"""Brings a database to the revision of this version, one transaction for each migration."""

from importlib.resources import files
from typing import Any, Final, TypeAlias

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from hookseal.ground.errors import Busy, ConfigError, Refused
from hookseal.schema import locks, plaintext, publishing, revision, roles, strangers
from hookseal.schema.connect import connect

_Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_OWNED_BY_US: Final = """
    SELECT n.nspowner IN (me.oid, d.datdba) OR (NOT me.rolsuper AND pg_has_role(n.nspowner, 'MEMBER'))
    FROM pg_namespace AS n, pg_roles AS me, pg_database AS d
    WHERE n.nspname = 'hookseal' AND me.rolname = current_user AND d.datname = current_database()
"""
# Alembic's own table, made before Alembic looks for it. Whoever may only read it cannot stand in the way of this lock.
_LOCK: Final = """
    CREATE TABLE IF NOT EXISTS hookseal.alembic_version (
        version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
    LOCK TABLE hookseal.alembic_version IN SHARE ROW EXCLUSIVE MODE
"""
# Who makes schema or table at the same time waits for the first to end, and learns that they are there.
_MADE_MEANWHILE: Final = (asyncpg.UniqueViolationError, asyncpg.DuplicateSchemaError, asyncpg.DuplicateTableError)
_NAME: Final = "hookseal db upgrade"
_OLDEST_SERVER: Final = 14
_TRIES: Final = 5
_WAIT_SECONDS: Final = 30


async def upgrade(database_url: str) -> str:
    """Upgrade the database and return the revision it has afterwards; who publishes has no more rights than that needs.

    Where plaintext secrets are forbidden, their column is gone then. It may be run again after whatever it raises:
    `Refused` if the role may not create schema or roles, if a stranger may add to the schema, or if the server is older
    than PostgreSQL 14; `ConfigError` if the database is newer than this version of hookseal;
    `Busy`, naming who holds it, if a lock is not had within 30 seconds (5 for the removal of that column).
    """

    async def connected() -> _Driver:
        return await connect(database_url, application_name=_NAME, timeout=5)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connected, poolclass=NullPool)
    guard = await connected()  # says what is the matter while the transaction can say nothing any more
    try:
        await _require_older(guard)
        await roles.ensure(guard)
        while not await _is_done(engine):
            pass
        return revision.EXPECTED
    except (asyncpg.PostgresError, DBAPIError) as error:
        raise await _meaning(guard, error) from None
    finally:
        await guard.close()
        await engine.dispose()


async def _require_older(connection: _Driver) -> None:
    if connection.get_server_version().major < _OLDEST_SERVER:
        raise Refused("hookseal needs PostgreSQL 14 or newer: upgrade the server")
    found = await revision.current(connection)
    if found is not None and found > revision.EXPECTED:
        raise ConfigError(
            f"the database has schema revision {found}, this version knows up to {revision.EXPECTED}: "
            "install a newer hookseal"
        )


async def _is_done(engine: AsyncEngine) -> bool:
    """Do the next step in a transaction of its own; return whether it was the last one.

    Its lock ends with it, whatever a pooler does with the session, and what is next is read under the lock: so several
    upgrades at once do each step once.
    """
    for _ in range(_TRIES):
        async with engine.connect() as connection:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_SECONDS}s'"))
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                await _lock(driver)
            except _MADE_MEANWHILE:
                continue
            done = await _step(connection, driver)
            await connection.commit()
            return done
    raise Busy("others make the schema of hookseal, and take it away, all the time: end them and try again")


async def _lock(connection: _Driver) -> None:
    """Hold the schema against every other upgrade, to the end of the transaction; make it where it is not there."""
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'hookseal')"):
        await connection.execute("CREATE SCHEMA hookseal")
    elif not await connection.fetchval(_OWNED_BY_US):
        raise Refused(
            "the schema hookseal belongs to another role, who could change everything in it: log in as that role; if "
            "it was restored, restore it again with its owner (docs/restore.md); if nobody put anything there, drop it"
        )
    await connection.execute(_LOCK)


async def _step(connection: AsyncConnection, driver: _Driver) -> bool:
    await strangers.refuse(driver)
    await strangers.refuse_bound(driver)
    if await revision.current(driver) != revision.EXPECTED:
        await connection.run_sync(_migrate)
        return False
    await publishing.give_back(driver)
    await plaintext.remove_forbidden(driver)
    return True


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(files("hookseal.schema")))
    config.attributes["connection"] = connection
    command.upgrade(config, "+1")


async def _meaning(guard: _Driver, error: asyncpg.PostgresError | DBAPIError) -> Exception:
    """Return what an answer of PostgreSQL means for the operator, itself if that is not for us to say."""
    said = error if isinstance(error, asyncpg.PostgresError) else error.orig and error.orig.__cause__
    if isinstance(said, asyncpg.InsufficientPrivilegeError):
        return Refused(
            f"this database role may not do it ({said}): log in as the owner of the schema; if it is, a superuser "
            f"must run this statement, for the roles belong to the whole server:\n  {await roles.grant_of_all(guard)};"
        )
    if isinstance(said, asyncpg.LockNotAvailableError):
        held = await locks.holders(guard, application=_NAME)
        return Busy(
            f"waited too long for a lock on hookseal's tables, {held}; nothing was changed: try again after that"
        )
    return error
