"""Brings a database to the revision of this version, one transaction for each migration."""

from importlib.resources import files
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from hookseal.ground.errors import ConfigError, Refused
from hookseal.schema import plaintext, publishing, revision, roles

_OWNED_BY_US: Final = """
    SELECT n.nspowner IN (me.oid, d.datdba) OR (NOT me.rolsuper AND pg_has_role(n.nspowner, 'MEMBER'))
    FROM pg_namespace AS n, pg_roles AS me, pg_database AS d
    WHERE n.nspname = 'hookseal' AND me.rolname = current_user AND d.datname = current_database()
"""
_OLDEST_SERVER: Final = 14
_ONE_AT_A_TIME: Final = 0x686F6F6B  # an advisory lock: two upgrades of one database wait for each other


async def upgrade(database_url: str) -> str:
    """Upgrade the database and return the revision it has afterwards; who publishes has no more rights than that needs.

    Where plaintext secrets are forbidden, their column is gone then. Raises `Refused` where the role may not create
    schema or roles, or the server is older than PostgreSQL 14, and `ConfigError` if the database is newer than this
    version of hookseal.
    """

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(database_url, timeout=5)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    guard = await connect()
    try:
        await _prepare(guard)
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
        await publishing.give_back(guard)
        await plaintext.remove_forbidden(guard)
        return revision.EXPECTED
    except asyncpg.InsufficientPrivilegeError as error:
        raise await _not_allowed(guard, error) from None
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != asyncpg.InsufficientPrivilegeError.sqlstate:
            raise
        raise await _not_allowed(guard, error.orig and error.orig.__cause__) from None
    finally:
        await guard.close()
        await engine.dispose()


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    if connection.get_server_version().major < _OLDEST_SERVER:
        raise Refused("hookseal needs PostgreSQL 14 or newer: upgrade the server")
    await connection.execute("SELECT pg_advisory_lock($1)", _ONE_AT_A_TIME)
    found = await revision.current(connection)
    if found is not None and found > revision.EXPECTED:
        raise ConfigError(
            f"the database has schema revision {found}, this version knows up to {revision.EXPECTED}: "
            "install a newer hookseal"
        )
    await roles.ensure(connection)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'hookseal')"):
        await connection.execute("CREATE SCHEMA hookseal")
    elif not await connection.fetchval(_OWNED_BY_US):
        raise Refused(
            "the schema hookseal belongs to another role, who could change everything in it: log in as that role; if "
            "it was restored, restore it again with its owner (docs/restore.md); if nobody put anything there, drop it"
        )


async def _not_allowed(connection: "asyncpg.Connection[asyncpg.Record]", error: BaseException | None) -> Refused:
    said = str(error.args[0]) if error is not None and error.args else "insufficient privilege"
    return Refused(
        f"this database role may not do it ({said}): log in as the owner of the schema; if it is, a superuser "
        f"must run this statement, for the roles belong to the whole server:\n  {await roles.grant_of_all(connection)};"
    )


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(files("hookseal.schema")))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()
