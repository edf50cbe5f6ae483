"""A worker opens all its parts, or says which one does not fit and what to do."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import structlog

from hookseal.config.settings import Settings
from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import ConfigError, HooksealError, Unavailable
from hookseal.worker.resources import Resources, opened
from hookseal.worker.run import run
from tests.cli.listeners import black_hole, closed_port, refusing
from tests.doubles.stored import begin
from tests.worker.environment import settings

Pool = asyncpg.Pool
_AT_ONCE = 20.0  # others would wait for ever


@asynccontextmanager
async def opening(asked: Settings) -> AsyncIterator[Resources]:
    """Open the resources of a worker."""
    async with opened(asked, SystemClock(), structlog.get_logger()) as resources:
        yield resources


async def refusal(asked: Settings) -> HooksealError:
    """Return why a worker with these settings does not start, which it says within five seconds."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(HooksealError) as told:
        async with opening(asked):
            pass
    assert loop.time() - started < _AT_ONCE
    assert "hunter2" not in str(told.value)
    assert told.value.__cause__ is None, "the cause could print what its own text holds"
    return told.value


async def test_all_that_fits(pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str) -> None:
    """Everything answers inside the block; the id of the worker is its own."""
    await begin(pool)
    ids = set()
    for _ in range(2):
        async with opening(settings(database_url, redis_url)) as resources:
            ids.add(resources.worker_id)
            await resources.bell.ping()
            await resources.unlocked.check_sentinel()
            assert 1 == await resources.pool.fetchval("SELECT 1")
    assert 2 == len(ids)


@pytest.mark.req("DEL-03")
async def test_what_the_block_raises_passes(pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str) -> None:
    """An error inside the block is nobody's refusal to start: it passes as it is."""
    await begin(pool)
    for error in (TimeoutError("mine"), OSError("mine")):
        with pytest.raises(type(error), match="mine"):
            async with opening(settings(database_url, redis_url)):
                raise error


async def test_no_postgresql(redis_url: str) -> None:
    """A PostgreSQL that is not there is named by its address."""
    port = closed_port()
    told = await refusal(settings(f"postgresql://user:hunter2@127.0.0.1:{port}/db", redis_url))

    assert isinstance(told, Unavailable)
    assert f"PostgreSQL at 127.0.0.1:{port}" in str(told)
    assert "DATABASE_URL" in str(told)


async def test_a_postgresql_that_never_answers(redis_url: str) -> None:
    """A PostgreSQL that accepts and never answers is given up in time, and named."""
    async with black_hole() as (port, _):
        told = await refusal(settings(f"postgresql://user:hunter2@127.0.0.1:{port}/db", redis_url))

    assert isinstance(told, Unavailable)
    assert f"PostgreSQL at 127.0.0.1:{port}" in str(told)


@pytest.mark.parametrize(
    ("sqlstate", "message", "said"),
    [
        ("28P01", "hunter2 is wrong", "refuses the user or the password (InvalidPasswordError): correct DATABASE_URL"),
        ("3D000", "no hunter2 here", "has no such database (InvalidCatalogNameError): create it or correct DATABASE_"),
        ("57P03", "starting up hunter2", "takes no connection now (CannotConnectNowError): try again once it does"),
    ],
)
async def test_a_postgresql_that_refuses(sqlstate: str, message: str, said: str, redis_url: str) -> None:
    """A PostgreSQL that refuses is named with what it refuses, and its own words are not repeated."""
    async with refusing(sqlstate, message) as port:
        told = await refusal(settings(f"postgresql://user:hunter2@127.0.0.1:{port}/db", redis_url))

    assert isinstance(told, Unavailable)
    assert f"PostgreSQL at 127.0.0.1:{port} {said}" in str(told)


async def test_no_tls_where_it_is_demanded(database_url: str, redis_url: str) -> None:
    """A PostgreSQL without TLS, where the url asks for it, is said, and not that it does not answer."""
    told = await refusal(settings(f"{database_url}?sslmode=require", redis_url))

    assert isinstance(told, Unavailable)
    assert "offers no TLS, and DATABASE_URL asks for it (sslmode): turn it on there" in str(told)


async def test_a_postgresql_that_hangs_up(redis_url: str) -> None:
    """What closes every connection at once is no PostgreSQL that answers."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        told = await refusal(settings(f"postgresql://user:hunter2@127.0.0.1:{port}/db", redis_url))

    assert isinstance(told, Unavailable)
    assert f"PostgreSQL at 127.0.0.1:{port}" in str(told)


async def test_no_redis(database_url: str) -> None:
    """A Redis that is not there is named by its address."""
    port = closed_port()
    told = await refusal(settings(database_url, f"redis://:hunter2@127.0.0.1:{port}/0"))

    assert isinstance(told, Unavailable)
    assert f"Redis at 127.0.0.1:{port}" in str(told)
    assert "REDIS_URL" in str(told)


async def test_a_redis_that_never_answers(database_url: str) -> None:
    """A Redis that accepts and never answers is given up in time, and named."""
    async with black_hole() as (port, _):
        told = await refusal(settings(database_url, f"redis://:hunter2@127.0.0.1:{port}/0"))

    assert isinstance(told, Unavailable)
    assert f"Redis at 127.0.0.1:{port}" in str(told)


async def test_a_redis_with_another_password(database_url: str, redis_url: str) -> None:
    """A Redis that refuses the password is named, and the password is not."""
    address = redis_url.rpartition("@")[2]
    told = await refusal(settings(database_url, f"redis://:hunter2@{address}"))

    assert isinstance(told, Unavailable)
    assert f"Redis at {address.partition('/')[0]} refuses the user or the password" in str(told)


@pytest.mark.req("OPS-09", part="compared")
@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ("no schema", "`hookseal db upgrade`"),
        ("at revision 0000", "`hookseal db upgrade`"),
        ("at revision 9999", "install a newer hookseal"),
    ],
)
async def test_another_schema(found: str, remedy: str, empty_database_url: str, redis_url: str) -> None:
    """A database with another schema than this version's is refused, naming what to do."""
    if found != "no schema":
        connection = await asyncpg.connect(empty_database_url)
        await connection.execute("CREATE SCHEMA hookseal; CREATE TABLE hookseal.alembic_version (version_num text)")
        await connection.execute("INSERT INTO hookseal.alembic_version VALUES ($1)", found[-4:])
        await connection.close()
    told = await refusal(settings(empty_database_url, redis_url))

    assert isinstance(told, ConfigError)
    assert found in str(told)
    assert remedy in str(told)


async def test_not_begun(database_url: str, redis_url: str) -> None:
    """An installation without keys is refused, naming the command that makes them."""
    told = await refusal(settings(database_url, redis_url))

    assert isinstance(told, ConfigError)
    assert "hookseal key init" in str(told)


@pytest.mark.req("SEC-04", part="check-at-boot")
async def test_another_master_key(pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str) -> None:
    """A worker with another master key than the installation's is refused, naming both by their ids."""
    await begin(pool)
    registered = await pool.fetchval("SELECT key_id FROM hookseal.secret_keys")
    other = base64.b64encode(os.urandom(32)).decode()
    told = await refusal(settings(database_url, redis_url, SECRETS_MASTER_KEY=other))

    assert isinstance(told, ConfigError)
    assert registered in str(told)
    assert "is not registered" in str(told)
    assert other not in str(told)


@pytest.mark.req("SEC-04", part="check-at-boot")
async def test_dev_on_an_installation_that_was_begun(
    pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str
) -> None:
    """Where master keys are registered, a worker of the provider dev does not start (78), and says what to set."""
    await begin(pool)
    told = await refusal(settings(database_url, redis_url, SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY=""))

    assert (78, True) == (told.exit_code, "set SECRETS_PROVIDER=db" in str(told))


@pytest.mark.req("DUR-02")
async def test_a_timeout_that_outlasts_the_drain(
    pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str
) -> None:
    """An enabled endpoint that may take longer than a stop waits is refused, with the number that would do."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 19500")
    short = {"HOOKSEAL_DRAIN_SECONDS": "24", "HOOKSEAL_LEASE_SECONDS": "30"}
    told = await refusal(settings(database_url, redis_url, **short))

    assert isinstance(told, ConfigError)
    assert "HOOKSEAL_DRAIN_SECONDS must be at least 25" in str(told)
    async with opening(settings(database_url, redis_url, **short | {"HOOKSEAL_DRAIN_SECONDS": "25"})):
        pass
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    async with opening(settings(database_url, redis_url, **short)):
        pass


async def test_a_busy_port(pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str) -> None:
    """A worker whose probes cannot listen does not start, and says which port, and how to choose another."""
    await begin(pool)
    async with black_hole() as (port, _):
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port} .*HOOKSEAL_HEALTH_PORT"):
            await run(settings(database_url, redis_url, HOOKSEAL_HEALTH_PORT=str(port)))
