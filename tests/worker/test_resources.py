"""A worker opens all its resources, or reports which one does not fit and what to do."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import pytest
import structlog

from hookseal.config.settings import Settings
from hookseal.errors import ConfigError, HooksealError, Unavailable, with_advice
from hookseal.ground.clock import SystemClock
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import revision
from hookseal.worker.resources import Resources, opened
from tests.cli.listeners import black_hole, closed_port, refusing
from tests.doubles.stored import begin
from tests.worker.environment import settings

_AT_ONCE = 20.0  # without its own limit a start would wait for ever


@asynccontextmanager
async def opening(asked: Settings) -> AsyncIterator[Resources]:
    async with opened(asked, SystemClock(), structlog.get_logger()) as resources:
        yield resources


async def refusal(asked: Settings) -> HooksealError:
    """Return the error with which a worker with these settings refuses to start, in time and without a cause."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(HooksealError) as refused:
        async with opening(asked):
            pass
    assert loop.time() - started < _AT_ONCE
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None, "a cause could reveal the password"
    return refused.value


async def test_every_resource_is_opened(pool: Pool, database_url: str, redis_url: str) -> None:
    """Every resource answers within the block, and every worker gets its own id."""
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
async def test_an_error_of_the_block_is_unchanged(pool: Pool, database_url: str, redis_url: str) -> None:
    """An error inside the block is raised unchanged, not as a refusal to start."""
    await begin(pool)
    for error in (TimeoutError("mine"), OSError("mine")):
        with pytest.raises(type(error), match="mine"):
            async with opening(settings(database_url, redis_url)):
                raise error


@asynccontextmanager
async def nobody() -> AsyncIterator[int]:
    yield closed_port()


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """Yield a port that accepts connections, and never answers."""
    async with black_hole() as (port, _):
        yield port


@asynccontextmanager
async def closing() -> AsyncIterator[int]:
    """Yield a port that closes every connection at once."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("server", [nobody, silent, closing])
@pytest.mark.parametrize("name", ["PostgreSQL", "Redis"])
async def test_a_server_that_does_not_answer_is_named(
    server: Callable[[], AbstractAsyncContextManager[int]], name: str, database_url: str, redis_url: str
) -> None:
    """A server that is missing, silent, or closes each connection is reported in time, by its address and setting."""
    async with server() as port:
        if name == "PostgreSQL":
            refused = await refusal(settings(f"postgresql://user:hunter2@127.0.0.1:{port}/db", redis_url))
        else:
            refused = await refusal(settings(database_url, f"redis://:hunter2@127.0.0.1:{port}/0"))

    assert isinstance(refused, Unavailable)
    assert f"{name} at 127.0.0.1:{port}" in str(refused)
    assert {"PostgreSQL": "DATABASE_URL", "Redis": "REDIS_URL"}[name] in str(refused)


@pytest.mark.parametrize(
    ("sqlstate", "message", "expected"),
    [
        ("28P01", "hunter2 is wrong", "refuses the user or the password (InvalidPasswordError): correct DATABASE_URL"),
        ("3D000", "no hunter2 here", "has no such database (InvalidCatalogNameError): create it or correct DATABASE_"),
        (
            "57P03",
            "starting up hunter2",
            "is starting up or recovering, and takes no connection yet",
        ),
    ],
)
async def test_a_refused_login_has_its_reason(sqlstate: str, message: str, expected: str, redis_url: str) -> None:
    """If PostgreSQL refuses the login, the error says why and does not repeat the server's message."""
    async with refusing(sqlstate, message) as port:
        refused = await refusal(settings(f"postgresql://user:hunter2@127.0.0.1:{port}/db", redis_url))

    assert isinstance(refused, Unavailable)
    assert f"PostgreSQL at 127.0.0.1:{port} {expected}" in str(refused)


async def test_missing_tls_is_named(database_url: str, redis_url: str) -> None:
    """If the URL requires TLS and PostgreSQL offers none, the error says so."""
    refused = await refusal(settings(f"{database_url}?sslmode=require", redis_url))

    assert isinstance(refused, Unavailable)
    assert "offers no TLS, and DATABASE_URL asks for it (sslmode): turn it on there" in str(refused)


async def test_a_refused_password_is_not_shown(database_url: str, redis_url: str) -> None:
    """If Redis refuses the password, the error contains its address and not the password."""
    address = redis_url.rpartition("@")[2]
    refused = await refusal(settings(database_url, f"redis://:hunter2@{address}"))

    assert isinstance(refused, Unavailable)
    assert f"Redis at {address.partition('/')[0]} refuses the user or the password" in str(refused)


@pytest.mark.req("OPS-09", part="compared")
@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ("no schema", "`hookseal db upgrade`"),
        ("at revision 0000", "`hookseal db upgrade`"),
        ("at revision 9999", "install a newer hookseal"),
    ],
)
async def test_another_schema_revision_is_refused(
    found: str, remedy: str, empty_database_url: str, redis_url: str
) -> None:
    if found != "no schema":
        connection = await asyncpg.connect(empty_database_url)
        await connection.execute("CREATE SCHEMA hookseal; CREATE TABLE hookseal.alembic_version (version_num text)")
        await connection.execute(f"COMMENT ON SCHEMA hookseal IS '{revision.LINE}'")
        await connection.execute("INSERT INTO hookseal.alembic_version VALUES ($1)", found[-4:])
        await connection.close()
    refused = await refusal(settings(empty_database_url, redis_url))

    assert isinstance(refused, ConfigError)
    assert found in str(refused)
    assert remedy in with_advice(refused)


@pytest.mark.req("OPS-09", part="compared")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("DROP TRIGGER deliveries_date_end ON hookseal.deliveries", "trigger deliveries_date_end on deliveries is"),
        ("DROP INDEX hookseal.deliveries_leased", "index deliveries_leased on deliveries is missing"),
        # what a worker does first with the schema of an older build
        ("DROP TABLE hookseal.endpoints CASCADE", "table hookseal.endpoints is missing"),
        ("COMMENT ON SCHEMA hookseal IS NULL; DROP FUNCTION hookseal.guard_owned() CASCADE",
         "A build before the first release made it"),
        ("COMMENT ON SCHEMA hookseal IS NULL; UPDATE hookseal.alembic_version SET version_num = '0006'",
         "says revision 0006, but not that this line of hookseal made it"),
    ],
)  # fmt: skip
async def test_a_schema_that_differs_is_refused(
    change: str, named: str, pool: Pool, database_url: str, redis_url: str
) -> None:
    """A worker starts on no schema that something changed, or that a build of another line made: it is named."""
    await pool.execute(change)
    refused = await refusal(settings(database_url, redis_url))

    assert isinstance(refused, ConfigError)
    assert named in str(refused)
    assert "docs/guide/upgrading.md" in str(refused)
    assert "newer" not in str(refused)


async def test_an_installation_without_keys_is_refused(database_url: str, redis_url: str) -> None:
    refused = await refusal(settings(database_url, redis_url))

    assert isinstance(refused, ConfigError)
    assert "hookseal key init" in str(refused)


@pytest.mark.req("SEC-04", part="check-at-boot")
async def test_another_master_key_is_refused(pool: Pool, database_url: str, redis_url: str) -> None:
    """A worker with another master key than the installation's is refused, with the ids of both keys."""
    await begin(pool)
    registered = await pool.fetchval("SELECT key_id FROM hookseal.secret_keys")
    other = base64.b64encode(os.urandom(32)).decode()
    refused = await refusal(settings(database_url, redis_url, SECRETS_MASTER_KEY=other))

    assert isinstance(refused, ConfigError)
    assert registered in str(refused)
    assert "is not registered" in str(refused)
    assert other not in str(refused)


@pytest.mark.req("SEC-04", part="check-at-boot")
async def test_dev_is_refused_where_keys_are_registered(pool: Pool, database_url: str, redis_url: str) -> None:
    """Where master keys are registered, a worker with the provider `dev` is refused (78), with the setting to use."""
    await begin(pool)
    refused = await refusal(settings(database_url, redis_url, SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY=""))

    assert (78, True) == (refused.exit_code, "set SECRETS_PROVIDER=db" in str(refused))


@pytest.mark.req("DUR-02")
async def test_a_timeout_longer_than_the_drain_is_refused(pool: Pool, database_url: str, redis_url: str) -> None:
    """An enabled endpoint whose timeout is longer than the drain is refused, with the value that is needed."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 19500")
    short = {"HOOKSEAL_DRAIN_SECONDS": "24", "HOOKSEAL_LEASE_SECONDS": "30"}
    refused = await refusal(settings(database_url, redis_url, **short))

    assert isinstance(refused, ConfigError)
    assert "HOOKSEAL_DRAIN_SECONDS must be at least 25" in str(refused)
    async with opening(settings(database_url, redis_url, **short | {"HOOKSEAL_DRAIN_SECONDS": "25"})):
        pass
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    async with opening(settings(database_url, redis_url, **short)):
        pass
