"""An application with each library: it publishes, writes a row of its own, and ends its transaction."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import urlsplit

import django
import pg8000.dbapi
import psycopg
from django.conf import settings
from django.db import connections, transaction
from psycopg.rows import dict_row
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from hookseal.producers import dbapi
from hookseal.producers import django as for_django
from hookseal.producers import psycopg as for_psycopg
from hookseal.producers import sqlalchemy as for_sqlalchemy
from hookseal.producers.call import PublishedEvent

T = TypeVar("T")
Do: TypeAlias = Callable[..., Awaitable[Any]]
WRITE: Final = "INSERT INTO public.own DEFAULT VALUES"
ALIAS: Final = "shop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What the application does, in one transaction after the other."""

    publish: Callable[..., Awaitable[PublishedEvent]]
    write: Do
    commit: Do
    rollback: Do


Open: TypeAlias = Callable[[str, bool], Any]


class _Thread:
    """A thread of its own for what blocks; Django has a connection for each thread, and refuses that of a loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)

    def __call__(self, call: Callable[..., T], *given: Any) -> Callable[..., Awaitable[T]]:
        async def do(*more: Any, **named: Any) -> T:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: call(*given, *more, **named))

        return do

    def end(self) -> None:
        self._pool.shutdown()


@asynccontextmanager
async def thread() -> AsyncIterator[_Thread]:
    """Provide a thread for the length of the block."""
    made = _Thread()
    try:
        yield made
    finally:
        made.end()


@asynccontextmanager
async def _with_usual_iterations(url: str) -> AsyncIterator[str]:
    """Yield a login with the password `p` and the rights of that of the url.

    The servers of the tests hash passwords once only, which pg8000 refuses.
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        user, database, is_super = await (
            await connection.execute(
                "SELECT current_user, current_database(), rolsuper FROM pg_roles WHERE rolname = current_user"
            )
        ).fetchone() or ("", "", False)
        with suppress(psycopg.errors.UndefinedObject):  # a server before 16 always does it 4,096 times
            await connection.execute("SET scram_iterations = 4096")
        if not is_super:
            await connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'p'")
            yield user
            return
        member = f"hookseal_test_{database[-20:]}_pg8000"
        await connection.execute(f"CREATE ROLE {member} LOGIN SUPERUSER PASSWORD 'p'".encode())
        try:
            yield member
        finally:
            await connection.execute(f"DROP ROLE {member}".encode())


@asynccontextmanager
async def with_pg8000(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use a driver of PEP 249."""
    parts = urlsplit(url)
    async with thread() as of, _with_usual_iterations(url) as user:
        connection = pg8000.dbapi.connect(
            user=user, password="p", host=parts.hostname or "", port=parts.port or 5432, database=parts.path[1:]
        )
        connection.autocommit = autocommit
        try:
            yield _of_dbapi(of, connection)
        finally:
            connection.close()


@asynccontextmanager
async def with_psycopg_as_any_driver(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use psycopg as a driver of PEP 249."""
    async with thread() as of:
        with psycopg.connect(url, autocommit=autocommit) as connection:
            yield _of_dbapi(of, connection)


def _of_dbapi(of: _Thread, connection: Any) -> Caller:
    return Caller(
        publish=of(dbapi.publish, connection),
        write=of(connection.cursor().execute, WRITE),
        commit=of(connection.commit),
        rollback=of(connection.rollback),
    )


@asynccontextmanager
async def with_psycopg(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use psycopg, with rows that are no tuples."""
    async with thread() as of:
        with psycopg.connect(url, autocommit=autocommit, row_factory=dict_row) as connection:
            yield Caller(
                publish=of(for_psycopg.publish, connection),
                write=of(connection.execute, WRITE),
                commit=of(connection.commit),
                rollback=of(connection.rollback),
            )


@asynccontextmanager
async def with_async_psycopg(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use psycopg in asyncio."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=autocommit, row_factory=dict_row) as connection:

        async def publish(**event: Any) -> PublishedEvent:
            return await for_psycopg.publish_async(connection, **event)

        async def write() -> None:
            await connection.execute(WRITE)

        yield Caller(publish=publish, write=write, commit=connection.commit, rollback=connection.rollback)


@asynccontextmanager
async def with_psycopg_pipeline(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use psycopg in pipeline mode."""
    async with thread() as of:
        with psycopg.connect(url, autocommit=autocommit) as connection, connection.pipeline():
            yield Caller(
                publish=of(for_psycopg.publish, connection),
                write=of(connection.execute, WRITE),
                commit=of(connection.commit),
                rollback=of(connection.rollback),
            )


@asynccontextmanager
async def with_async_psycopg_pipeline(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use psycopg in asyncio and in pipeline mode."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=autocommit) as connection, connection.pipeline():

        async def publish(**event: Any) -> PublishedEvent:
            return await for_psycopg.publish_async(connection, **event)

        async def write() -> None:
            await connection.execute(WRITE)

        yield Caller(publish=publish, write=write, commit=connection.commit, rollback=connection.rollback)


def _engine_of(url: str, driver: str) -> str:
    return url.replace("postgresql://", f"postgresql+{driver}://", 1)


def _level(autocommit: bool) -> dict[str, Any]:
    return {"isolation_level": "AUTOCOMMIT"} if autocommit else {}


@asynccontextmanager
async def with_session(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use a Session of SQLAlchemy."""
    engine = create_engine(_engine_of(url, "psycopg"), poolclass=NullPool, **_level(autocommit))
    async with thread() as of:
        with Session(engine) as session:
            yield Caller(
                publish=of(for_sqlalchemy.publish, session),
                write=of(session.execute, text(WRITE)),
                commit=of(session.commit),
                rollback=of(session.rollback),
            )


@asynccontextmanager
async def with_connection(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use a Connection of SQLAlchemy."""
    engine = create_engine(_engine_of(url, "psycopg"), poolclass=NullPool, **_level(autocommit))
    async with thread() as of:
        with engine.connect() as connection:
            yield Caller(
                publish=of(for_sqlalchemy.publish, connection),
                write=of(connection.execute, text(WRITE)),
                commit=of(connection.commit),
                rollback=of(connection.rollback),
            )


@asynccontextmanager
async def with_async_session(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use an AsyncSession of SQLAlchemy."""
    engine = create_async_engine(_engine_of(url, "asyncpg"), poolclass=NullPool, **_level(autocommit))
    async with AsyncSession(engine) as session:

        async def publish(**event: Any) -> PublishedEvent:
            return await for_sqlalchemy.publish_async(session, **event)

        async def write() -> None:
            await session.execute(text(WRITE))

        yield Caller(publish=publish, write=write, commit=session.commit, rollback=session.rollback)


@asynccontextmanager
async def with_async_connection(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use an AsyncConnection of SQLAlchemy."""
    engine = create_async_engine(_engine_of(url, "asyncpg"), poolclass=NullPool, **_level(autocommit))
    async with engine.connect() as connection:

        async def publish(**event: Any) -> PublishedEvent:
            return await for_sqlalchemy.publish_async(connection, **event)

        async def write() -> None:
            await connection.execute(text(WRITE))

        yield Caller(publish=publish, write=write, commit=connection.commit, rollback=connection.rollback)


def use_django(url: str) -> None:
    """Let Django use the database at this url by its alias."""
    if not settings.configured:
        settings.configure(DATABASES={})
        django.setup()
    parts = urlsplit(url)
    of = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username,
        "PASSWORD": parts.password or "",
        "HOST": parts.hostname,
        "PORT": parts.port,
    }
    connections.settings[ALIAS] = connections.configure_settings({"default": {}, ALIAS: of})[ALIAS]


@asynccontextmanager
async def with_django(url: str, autocommit: bool) -> AsyncIterator[Caller]:
    """Use Django; a transaction is a block of `atomic`."""
    use_django(url)
    blocks: list[Any] = []

    def begin() -> None:
        if not autocommit and not blocks:
            blocks.append(transaction.atomic(using=ALIAS))
            blocks[0].__enter__()

    def publish(**event: Any) -> PublishedEvent:
        begin()
        return for_django.publish(using=ALIAS, **event)

    def write() -> None:
        begin()
        with connections[ALIAS].cursor() as cursor:
            cursor.execute(WRITE)

    def end(error: type[BaseException] | None) -> None:
        if blocks:
            blocks.pop().__exit__(error, error and error(), None)

    async with thread() as of:
        yield Caller(publish=of(publish), write=of(write), commit=of(end, None), rollback=of(end, ValueError))
        await of(end, ValueError)()
        await of(lambda: connections.close_all())()  # noqa: PLW0108 -- each thread has connections of its own


CALLERS: Final[dict[str, Open]] = {
    "pg8000": with_pg8000,
    "dbapi": with_psycopg_as_any_driver,
    "psycopg": with_psycopg,
    "async-psycopg": with_async_psycopg,
    "psycopg-pipeline": with_psycopg_pipeline,
    "async-psycopg-pipeline": with_async_psycopg_pipeline,
    "session": with_session,
    "connection": with_connection,
    "async-session": with_async_session,
    "async-connection": with_async_connection,
    "django": with_django,
}
