"""The recipes of docs/guide/frameworks.md that install the schema, and what is special about single libraries."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import alembic.command
import asyncpg
import psycopg
import pytest
from alembic.config import Config
from django.db import connections, transaction
from django.db.migrations.state import ProjectState
from sqlalchemy import NullPool, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from hookseal.errors import ConfigError, Conflict, Refused
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import revision
from hookseal.producers import dbapi as for_dbapi
from hookseal.producers import django as for_django
from hookseal.producers import psycopg as for_psycopg
from hookseal.producers import sqlalchemy as for_sqlalchemy
from hookseal.producers.schema import install
from tests.doubles.applications import served
from tests.doubles.logins import login
from tests.producers.callers import ALIAS, thread, use_django

pytestmark = pytest.mark.req("DEL-19")

PAGE: Final = Path(__file__).parents[2] / "docs" / "guide" / "frameworks.md"
_ENV: Final = """
from alembic import context
from sqlalchemy import NullPool, create_engine

url = context.config.get_main_option("sqlalchemy.url")
with create_engine(url, poolclass=NullPool).connect() as connection:
    context.configure(connection=connection, version_table_schema="public")
    with context.begin_transaction():
        context.run_migrations()
"""


def recipe(containing: str) -> str:
    """Return the one example of the page that contains this text."""
    (found,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        if containing in block
    ]
    assert isinstance(found, str)
    return found


async def installed(url: str) -> str | None:
    """Return the revision of the schema in that database."""
    connection = await asyncpg.connect(url)
    try:
        return await revision.current(connection)
    finally:
        await connection.close()


async def test_alembics_revision_installs_the_schema(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(_ENV)
    (tmp_path / "versions" / "a1.py").write_text(recipe("from alembic import op"))
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", empty_database_url.replace("postgresql:", "postgresql+psycopg:", 1))
    async with thread() as of:
        await of(alembic.command.upgrade, config, "head")()
    assert revision.EXPECTED == await installed(empty_database_url)


async def test_djangos_migration_installs_the_schema(empty_database_url: str) -> None:
    made: dict[str, Any] = {}
    exec(compile(recipe("from django.db import migrations"), str(PAGE), "exec"), made)  # noqa: S102 -- our own page
    with_hookseal = made["Migration"]("0001_hookseal", "shop")
    use_django(empty_database_url)

    def migrate() -> None:
        with connections[ALIAS].schema_editor(atomic=with_hookseal.atomic) as editor:
            with_hookseal.apply(ProjectState(), editor)
        connections.close_all()

    async with thread() as of:
        await of(migrate)()
    assert revision.EXPECTED == await installed(empty_database_url)


async def test_the_sqlalchemy_application_publishes_what_it_commits(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application of the page publishes what it commits; what PostgreSQL refuses at the commit sends nothing."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    made: dict[str, Any] = {}
    exec(compile(recipe("from fastapi import"), str(PAGE), "exec"), made)  # noqa: S102 -- our own page
    async with served(made["app"]) as url, aiohttp.ClientSession(url) as session:
        answers = [await session.post("/invoices/1/paid") for _ in range(2)]
        assert [200, 500] == [answer.status for answer in answers]
        event = (await answers[0].json())["event_id"]

    assert [event] == [row["id"] for row in await pool.fetch("SELECT id FROM hookseal.events")]


async def test_a_refused_upgrade_prints_its_statements(empty_database_url: str, pool: Pool) -> None:
    async with login(pool, empty_database_url) as (_, url):
        with pytest.raises(Refused, match="may not"):
            install(url)


def test_another_url_is_refused_without_its_text() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL") as caught:
        install("mysql://u:hunter2@h/d")

    assert "hunter2" not in str(caught.value)


async def test_djangos_on_commit_finds_the_event(database_url: str, pool: Pool) -> None:
    event: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": 1, "using": ALIAS}
    use_django(database_url)
    seen: list[tuple[int, bool]] = []

    def after_commit() -> None:
        with psycopg.connect(database_url) as another:
            (count,) = another.execute("SELECT count(*) FROM hookseal.events").fetchone() or (None,)
        seen.append((count, for_django.publish(**event).is_committed))

    def pay() -> None:
        with transaction.atomic(using=ALIAS):
            transaction.on_commit(after_commit, using=ALIAS)
            for_django.publish(**event)
            assert [] == seen
        connections.close_all()

    async with thread() as of:
        await of(pay)()
    assert [(1, True)] == seen
    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


async def test_a_session_of_the_other_kind_is_named(database_url: str) -> None:
    """Each function of SQLAlchemy says which one takes the session or connection that was given."""
    event: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": 1}
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1), poolclass=NullPool)
    async_engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:", 1))
    scoped = async_scoped_session(async_sessionmaker(async_engine), scopefunc=lambda: 1)
    given: tuple[Any, ...] = AsyncSession(async_engine), async_engine.connect(), scoped
    for of_asyncio in given:
        with pytest.raises(TypeError, match=r"^an AsyncSession or AsyncConnection goes to publish_async$"):
            for_sqlalchemy.publish(of_asyncio, **event)
    with Session(engine) as session, engine.connect() as connection:
        others: tuple[Any, ...] = session, connection, scoped_session(sessionmaker(engine))
        for other in others:
            with pytest.raises(
                TypeError, match=f"not {type(other).__name__}: a Session or Connection goes to publish$"
            ):
                await for_sqlalchemy.publish_async(other, **event)


async def test_a_scoped_session_publishes(database_url: str, pool: Pool) -> None:
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1), poolclass=NullPool)
    session: Any = scoped_session(sessionmaker(engine))

    def pay() -> None:
        for_sqlalchemy.publish(session, tenant_id="acme", event_type="invoice.paid", data=1)
        session.commit()
        session.remove()

    async with thread() as of:
        await of(pay)()
    async_engine = create_async_engine(
        database_url.replace("postgresql:", "postgresql+asyncpg:", 1), poolclass=NullPool
    )
    scoped = async_scoped_session(async_sessionmaker(async_engine), scopefunc=lambda: 1)
    await for_sqlalchemy.publish_async(scoped, tenant_id="acme", event_type="invoice.paid", data=1)
    await scoped.commit()
    await scoped.remove()
    assert 2 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


async def test_a_connection_of_psycopg_of_the_other_kind_is_named(database_url: str) -> None:
    event: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": 1}
    of_asyncio: Any
    other: Any
    async with await psycopg.AsyncConnection.connect(database_url) as of_asyncio:
        with pytest.raises(TypeError, match=r"^an AsyncConnection goes to publish_async$"):
            for_psycopg.publish(of_asyncio, **event)
    with psycopg.connect(database_url) as other, pytest.raises(TypeError, match=r"^a Connection goes to publish$"):
        await for_psycopg.publish_async(other, **event)


PAID: Final[dict[str, Any]] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": 1}


def _in_a_pipeline(connection: Any, publish: Callable[[], object]) -> None:
    """Publish in a pipeline of this connection of psycopg, which is refused."""
    with connection.pipeline(), pytest.raises(Conflict, match="the connection is in psycopg's pipeline mode") as caught:
        publish()
    assert "connection" == caught.value.field


def _with_dbapi(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        _in_a_pipeline(connection, lambda: for_dbapi.publish(connection, **PAID))


def _with_django(url: str) -> None:
    use_django(url)
    with connections[ALIAS].cursor() as cursor:
        _in_a_pipeline(cursor.connection, lambda: for_django.publish(using=ALIAS, **PAID))
    connections.close_all()


def _with_sqlalchemy(url: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1), poolclass=NullPool)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        _in_a_pipeline(driver, lambda: for_sqlalchemy.publish(connection, **PAID))
        _in_a_pipeline(driver, lambda: for_sqlalchemy.publish(Session(connection), **PAID))
        connection.commit()


@pytest.mark.parametrize("publish_with", [_with_dbapi, _with_django, _with_sqlalchemy])
async def test_a_pipeline_is_refused_before_anything_is_stored(
    publish_with: Callable[[str], None], database_url: str, pool: Pool
) -> None:
    """What cannot read rows in psycopg's pipeline mode refuses it, and stores nothing."""
    async with thread() as of:
        await of(publish_with, database_url)()
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


async def test_a_pipeline_of_asyncio_is_refused_before_anything_is_stored(database_url: str, pool: Pool) -> None:
    """SQLAlchemy's connection of asyncio refuses a pipeline of its driver, and stores nothing."""
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+psycopg:", 1), poolclass=NullPool)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        async with driver.pipeline():
            with pytest.raises(Conflict, match="the connection is in psycopg's pipeline mode"):
                await for_sqlalchemy.publish_async(connection, **PAID)
        await connection.commit()
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.events")


@pytest.mark.parametrize("autocommit", [False, True])
async def test_an_earlier_error_of_a_pipeline_is_raised_first(autocommit: bool, database_url: str, pool: Pool) -> None:
    """An error of what the caller sent before is raised unchanged, and nothing is published.

    `SAVEPOINT` fails in autocommit with the SQLSTATE by which `publish` recognises a connection in no transaction.
    """
    earlier = "SAVEPOINT own" if autocommit else "SELECT * FROM public.absent"
    error = psycopg.errors.NoActiveSqlTransaction if autocommit else psycopg.errors.UndefinedTable

    def pay() -> None:
        with psycopg.connect(database_url, autocommit=autocommit) as connection, connection.pipeline():
            connection.execute(earlier)
            with pytest.raises(error):
                for_psycopg.publish(connection, **PAID)
            connection.rollback()
            assert 1 == len(connection.execute("SELECT 1").fetchall())

    async with thread() as of:
        await of(pay)()
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=autocommit) as of_asyncio,
        of_asyncio.pipeline(),
    ):
        await of_asyncio.execute(earlier)
        with pytest.raises(error):
            await for_psycopg.publish_async(of_asyncio, **PAID)
        await of_asyncio.rollback()
    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.events")
