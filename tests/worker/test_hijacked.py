"""Functions that a producer's login creates in `public`, which PostgreSQL 14 allows to all, are never called."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from hookseal.dispatcher.store.publish import Event, publish_json, publish_raw
from hookseal.embedded.server import Server
from hookseal.ground.ids import TenantId
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.schema.upgrade import upgrade
from tests.cli.command import hookseal
from tests.doubles import hijacked
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.worker import world as worlds
from tests.worker.test_roles import url
from tests.worker.world import Receiver, World

pytestmark = [pytest.mark.req("SEC-08"), pytest.mark.req("OPS-10"), pytest.mark.timeout(180)]

LOGINS = {"runs": "hookseal_worker", "decides": "hookseal_operator", "looks": "hookseal_readonly"}


@pytest.fixture
async def hostile(own_postgres: Server, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """Yield an installation where a producer created functions that match our calls better than the built-in ones."""
    async with connection_pool(own_postgres.url, size=3) as pool:
        for login, role in LOGINS.items() | {("mallory", "hookseal_producer"), ("sells", "hookseal_producer")}:
            await pool.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'hunter2'; GRANT {role} TO {login}")
        await pool.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        world = await worlds.world(pool, own_postgres.url, redis_url, tmp_path)
        mallory = await asyncpg.connect(url(world, "mallory"))
        try:
            await hijacked.make(mallory)
        finally:
            await mallory.close()
        yield world


def settings(world: World, login: str) -> dict[str, str]:
    """Return the settings of a command of that login."""
    return {
        "DATABASE_URL": url(world, login),
        "REDIS_URL": world.redis_url,
        "SECRETS_PROVIDER": "db",
        "SECRETS_MASTER_KEY": MASTER_KEY_TEXT,
    }


async def test_a_worker_calls_no_foreign_function(hostile: World, receiver: Receiver) -> None:
    """A worker claims, delivers and sweeps without calling any of them."""
    await hostile.endpoint(f"{receiver.base_url}/hook")
    async with hostile.worker(DATABASE_URL=url(hostile, "runs"), HOOKSEAL_LISTEN="true") as worker:
        for _ in range(3):
            [ring] = await hostile.publish()
            await hostile.state(ring, "delivered")
        assert 200 == (await worker.get("/readyz"))[0]
        await worker.figures()

    assert [] == await hijacked.called(hostile.pool)


COMMANDS = (
    ("decides", "producer", "grant", "--role", "mallory", "--tenant", "acme"),
    ("decides", "producer", "list"),
    ("decides", "key", "status"),
    ("decides", "audit", "verify"),
    ("decides", "endpoint", "list"),
    ("decides", "delivery", "list"),
    ("decides", "secret", "cache-clear"),
    ("looks", "audit", "list"),
)


async def test_commands_call_no_foreign_function(hostile: World) -> None:
    """Commands of an operator and of a reader work without calling any of them."""
    await hostile.endpoint("https://receiver.example/hook")
    for login, *command in COMMANDS:
        ended = await hookseal(*command, "--json", **settings(hostile, login))
        assert 0 == ended.code, ended.err
        assert [] == await hijacked.called(hostile.pool), command


async def test_publishing_ignores_the_callers_search_path(hostile: World) -> None:
    """The functions that publish set their own search path, so that the caller's path has no effect."""
    await hostile.endpoint("https://receiver.example/hook")
    await hostile.pool.execute("INSERT INTO hookseal.producers VALUES ('sells', 'acme', now(), 'sells')")
    sells = await asyncpg.connect(url(hostile, "sells"), server_settings={"search_path": "public, pg_catalog"})
    try:
        rows = await sells.fetch("SELECT * FROM hookseal.publish('acme', 'a.b', '{}'::json)")
    finally:
        await sells.close()

    assert 1 == len(rows)
    assert [] == await hijacked.called(hostile.pool)


async def test_the_publisher_calls_no_foreign_function(hostile: World) -> None:
    """The statements of the Publisher on a caller's connection name the types of PostgreSQL with their schema."""
    sells = await asyncpg.connect(url(hostile, "sells"), server_settings={"search_path": "public, pg_catalog"})
    try:
        await hostile.pool.execute("INSERT INTO hookseal.producers VALUES ('sells', 'acme', now(), 'sells')")
        await publish_json(sells, Event(tenant_id=TenantId("acme"), event_type="a.b"), "{}")
        await publish_raw(sells, Event(tenant_id=TenantId("acme"), event_type="a.b"), b"{}")
    finally:
        await sells.close()

    assert [] == await hijacked.called(hostile.pool)


async def test_an_upgrade_calls_no_foreign_function(hostile: World) -> None:
    """`db upgrade` of an existing schema and of an empty database calls none of them."""
    await upgrade(hostile.database_url)
    await hostile.pool.execute("DROP SCHEMA hookseal CASCADE")
    await upgrade(hostile.database_url)

    assert [] == await hijacked.called(hostile.pool)
