"""Upgrades a database to the revision of this version, with one transaction for each migration."""

from importlib.resources import files
from itertools import islice
from typing import Any, Final, TypeAlias

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from hookseal.errors import Busy, Refused, Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import plural
from hookseal.postgres import pool
from hookseal.postgres.connect import connect
from hookseal.postgres.schema import plaintext, revision, roles
from hookseal.postgres.translate import Failures

_Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_OWNED_BY_US: Final = """
    SELECT n.nspowner IN (me.oid, d.datdba) OR (NOT me.rolsuper AND pg_has_role(n.nspowner, 'MEMBER'))
    FROM pg_namespace AS n, pg_roles AS me, pg_database AS d
    WHERE n.nspname = 'hookseal' AND me.rolname = current_user AND d.datname = current_database()
"""
# Alembic's own table, created before Alembic needs it. A role that may only read it cannot block this lock.
_LOCK: Final = """
    CREATE TABLE IF NOT EXISTS hookseal.alembic_version (
        version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
    LOCK TABLE hookseal.alembic_version IN SHARE ROW EXCLUSIVE MODE
"""
# A migration may change several of these, and a publish uses them in this order: with another one they would deadlock.
# `workers` comes first: so no worker appears while the migration asks which ones are live. While it waits for one of
# them, publishes and claims wait too, which give up after 5 seconds. It gives up before
# PostgreSQL looks for a deadlock (`deadlock_timeout`, 1 s), so that it ends neither of them.
_TABLES: Final = """
    SET LOCAL lock_timeout = '400ms';
    LOCK TABLE hookseal.workers, hookseal.events, hookseal.deliveries, hookseal.endpoints, hookseal.attempts,
               hookseal.delivery_links
    IN ACCESS EXCLUSIVE MODE
"""
# A worker of 0001 does not say what it knows.
_TOO_OLD: Final = """
    SELECT w.id, w.version, w.knows
    FROM (SELECT w.id, w.version, coalesce(to_jsonb(w) ->> 'revision', '0001') AS knows
          FROM hookseal.workers AS w WHERE w.beaten_at > now() - make_interval(secs => $2)) AS w
    WHERE w.knows < $1
    ORDER BY w.id
"""
# Concurrent upgrades that create the schema or the table wait for the first one, and then get one of these errors.
_MADE_MEANWHILE: Final = (asyncpg.UniqueViolationError, asyncpg.DuplicateSchemaError, asyncpg.DuplicateTableError)
_AGAIN: Final = "run `hookseal db upgrade` again, it continues from the revision that the schema has"
_CLOCK: Final = SystemClock()
_MOST_NAMED: Final = 5
_NAME: Final = "hookseal db upgrade"
_OLDEST_SERVER: Final = 14
_PAUSE_SECONDS: Final = 0.5
_SCRIPTS: Final = str(files("hookseal.postgres.schema"))
_TRIES: Final = 5
_WAIT_SECONDS: Final = 30
LIVE_SECONDS: Final = 30.0  # as in dispatcher/core/endpoint_rules.py, of a room above
# SQLAlchemy would name each statement, and a pooler may leave the name in a session that another upgrade gets.
_UNNAMED: Final = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


async def upgrade(database_url: str) -> str:
    """Upgrade the database and return its revision; afterwards the publishing functions have their proper owner.

    If plaintext secrets are forbidden, their column is removed. A newer database on which this version runs stays as it
    is. It may be run again after every error: `Refused` if the role may not create schema or roles, if an untrusted
    role may add to the schema, if a live worker may not run on the next revision, or if the server is older than
    PostgreSQL 14; `ConfigError` if this version does not run on a newer database, or if it is from before the first
    release; `Busy`, which names the holder, if a lock is not available within 30 seconds (5 for the removal of that
    column); `Unavailable` if PostgreSQL ends the connection.
    """

    async def connected() -> _Driver:
        return await connect(database_url, application_name=_NAME, timeout=5)

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=connected, poolclass=NullPool, connect_args=_UNNAMED
    )
    guard = await connected()  # finds the cause of an error when the transaction itself has failed
    try:
        await _require_supported(guard)
        await roles.ensure(guard)
        while not await _is_done(engine):
            pass
        return await revision.current(guard) or revision.EXPECTED
    except (asyncpg.PostgresError, DBAPIError) as error:
        raise await _meaning(guard, error) from None
    finally:
        await guard.close()
        await engine.dispose()


async def _require_supported(connection: _Driver) -> None:
    if connection.get_server_version().major < _OLDEST_SERVER:
        raise Refused("hookseal needs PostgreSQL 14 or newer: upgrade the server")
    at = await revision.current(connection)
    if at is not None:
        await revision.require_upgradable(connection, at)


async def _is_done(engine: AsyncEngine) -> bool:
    """Run the next step in a transaction of its own; return whether it was the last one.

    The lock ends with the transaction, even behind a pooler, and the next step is decided under the lock. So concurrent
    upgrades run each step once.
    """
    for _ in range(_TRIES):
        async with engine.connect() as connection:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_SECONDS}s'"))
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                await _lock(driver)
                await _lock_tables(driver)
            except (*_MADE_MEANWHILE, asyncpg.DeadlockDetectedError):
                continue
            was_last = await _step(connection, driver)
            await connection.commit()
            return was_last
    raise Busy("other processes keep changing the schema of hookseal or locking its tables: end them and try again")


async def _lock(connection: _Driver) -> None:
    """Lock out every other upgrade until the end of the transaction. Creates the schema if it is missing."""
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'hookseal')"):
        await connection.execute("CREATE SCHEMA hookseal")
    elif not await connection.fetchval(_OWNED_BY_US):
        raise Refused(
            "the schema hookseal belongs to another role, who could change everything in it: log in as that role; if "
            "it was restored, restore it again with its owner (docs/restore.md); if nobody put anything there, drop it"
        )
    await connection.execute(_LOCK)


async def _lock_tables(connection: _Driver) -> None:
    """If a migration follows, make publishes and claims wait until the end of the transaction.

    If another transaction has locked one of the tables, it tries again, and lets them continue between two tries. The
    migration then waits only briefly for a lock on any other table, because publishes and claims wait meanwhile.
    """
    at = await revision.current(connection)
    if at is None or at >= revision.EXPECTED:
        return
    until = _CLOCK.monotonic() + _WAIT_SECONDS
    while True:
        try:
            async with connection.transaction():  # a savepoint: if one lock is not available, the others are given up
                await connection.execute(_TABLES)
        except asyncpg.LockNotAvailableError:
            if _CLOCK.monotonic() >= until:
                raise
            await _CLOCK.sleep(_PAUSE_SECONDS)
        else:
            return


async def _step(connection: AsyncConnection, driver: _Driver) -> bool:
    await roles.refuse(driver)
    await roles.refuse_bound(driver)
    at = await revision.current(driver)
    if at is None or at < revision.EXPECTED:
        following = _following(at)
        oldest = max(_runs_from(following), await revision.runs_from(driver) or "")
        await _require_young_workers(driver, at, following, oldest)
        await connection.run_sync(_migrate)
        if at is not None:
            await driver.execute("UPDATE hookseal.alembic_version SET runs_from = $1", oldest)
        return False
    if at == revision.EXPECTED:
        await roles.restore_owner(driver)
        await plaintext.remove_forbidden(driver)
    return True


def _following(at: str | None) -> Script:
    """Return the migration that follows this revision."""
    return next(each for each in ScriptDirectory(_SCRIPTS).walk_revisions() if each.down_revision == at)


def _runs_from(migration: Script) -> str:
    """Return the oldest revision whose version may run on what this migration changes; by default no older one.

    An earlier migration may have excluded that version: on the schema run those that each migration admits.
    """
    oldest: str = getattr(migration.module, "runs_from", migration.revision)
    return oldest


async def _require_young_workers(connection: _Driver, at: str | None, following: Script, oldest: str) -> None:
    """Raise `Refused`, naming them, if live workers know less than `oldest`, and so may not run on it afterwards."""
    if at is None:
        return
    rows = await connection.fetch(_TOO_OLD, oldest, LIVE_SECONDS)
    if not rows:
        return
    named = ", ".join(
        f"{row['id']} (version {row['version']}, knows {row['knows']})" for row in islice(rows, _MOST_NAMED)
    )
    more = len(rows) - _MOST_NAMED
    raise Refused(
        f"only versions that know revision {oldest} run on {following.revision}, and "
        f"{plural(len(rows), 'live worker is', 'live workers are')} older: {named}"
        + (f" and {more} more" if more > 0 else "")
        + f". The schema stays at {at}: stop these workers, or replace them by a version that knows {oldest}, and try "
        f"again. A worker that was killed counts as live for {LIVE_SECONDS:.0f} seconds"
    )


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    command.upgrade(config, "+1")


async def _meaning(guard: _Driver, error: asyncpg.PostgresError | DBAPIError) -> Exception:
    """Return the error for the operator; `error` itself if it has no known meaning."""
    cause = error if isinstance(error, asyncpg.PostgresError) else error.orig and error.orig.__cause__
    if isinstance(cause, asyncpg.InsufficientPrivilegeError):
        return Refused(
            f"this database role may not do it ({cause}): log in as the owner of the schema; if it is, a superuser "
            f"must run this statement, for the roles belong to the whole server:\n  {await roles.grant_of_all(guard)};"
        )
    if isinstance(cause, asyncpg.LockNotAvailableError):
        held_by = await pool.holders(guard, application=_NAME)
        return Busy(
            f"waited too long for a lock on hookseal's tables, {held_by}; nothing was changed: try again after that"
        )
    outage = None if cause is None else Failures().meaning(cause)
    return error if outage is None else Unavailable(f"{outage}", advice=_AGAIN)
