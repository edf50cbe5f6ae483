"""Everything behind a real PgBouncer in transaction mode, with fewer sessions than a worker has connections."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from hookseal.client.publisher import Publisher
from hookseal.embedded.server import Server
from hookseal.postgres.connect import SEARCH_PATH
from tests.cli.command import hookseal
from tests.doubles.pgbouncer import pgbouncer
from tests.worker.environment import environment
from tests.worker.test_rotation import arrived_once_at_the_first_attempt, nothing_left, verifies
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

PUBLISHED_BY_EACH = 70
NOTIFIES = "SELECT until > now() FROM hookseal.control WHERE name = 'notify'"


@asynccontextmanager
async def behind_pgbouncer(world: World, **changes: str) -> AsyncIterator[tuple[World, Server]]:
    """Yield the same installation with a PgBouncer in front of its database."""
    name = await world.pool.fetchval("SELECT quote_ident(current_database())")
    await world.pool.execute(f"ALTER DATABASE {name} SET search_path = {SEARCH_PATH}")
    async with pgbouncer(world.database_url, **changes) as server:
        yield replace(world, database_url=server.url), server


async def run(world: World, *arguments: str) -> dict[str, Any]:
    """Run a command through PgBouncer, and return what it printed."""
    ended = await hookseal(*arguments, "--json", **environment(world.database_url, world.redis_url))
    assert 0 == ended.code, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


async def publish(world: World) -> None:
    """Publish in each way: on a connection of the Publisher, on one of the caller, and by SQL."""
    through = await asyncpg.connect(world.database_url, statement_cache_size=0)
    async with Publisher.connect(world.database_url, world.redis_url) as publisher:

        async def publish_alone() -> None:
            await publisher.publish(tenant_id="acme", event_type="invoice.paid", data={"n": 1})

        async def publish_on_a_connection() -> None:
            async with through.transaction():
                published = await publisher.publish(
                    tenant_id="acme", event_type="invoice.paid", data={"n": 2}, connection=through
                )
            await published.ring()

        for _ in range(PUBLISHED_BY_EACH):
            await asyncio.gather(publish_alone(), publish_on_a_connection())
            await through.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")
    await through.close()


@pytest.mark.parametrize("kept", ["200", "0"])
async def test_an_installation_works_through_pgbouncer(world: World, receiver: Receiver, kept: str) -> None:
    """Through PgBouncer an endpoint is added and rotated, 210 events are delivered once, and the worker stops."""
    async with behind_pgbouncer(world, max_prepared_statements=kept) as (pooled, _):
        url = f"{receiver.base_url}/hook"
        add = ("endpoint", "add", "--tenant", "acme", "--url", url, "--event-type", "*", "--timeout-ms", "15000")
        rotate = ("endpoint", "rotate", "--tenant", "acme", "--print-secret")
        added = await run(pooled, *add)
        async with pooled.worker() as worker:
            async with asyncio.TaskGroup() as group:
                group.create_task(publish(pooled))
                await receiver.wait_for(20)
                rotated = await run(pooled, *rotate, "--endpoint", added["endpoint_id"])
            await receiver.wait_for(3 * PUBLISHED_BY_EACH)
            await eventually(lambda: nothing_left(world))
            await worker.stop()

    await arrived_once_at_the_first_attempt(world, receiver)
    assert verifies(rotated["secret"], receiver.received[-1])
    assert [] == [line for line in worker.log if line["level"] == "error" or line["event"].endswith(".failed")]


async def test_a_worker_that_cannot_listen_delivers(world: World, receiver: Receiver) -> None:
    """A worker that cannot listen through PgBouncer logs once what to set, requests no notifications, and delivers."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with behind_pgbouncer(world) as (pooled, _), pooled.worker(HOOKSEAL_LISTEN="true") as worker:
        [reason] = await eventually(lambda: [line["reason"] for line in worker.log if line["event"] == "listen.failed"])
        await world.pool.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")
        await receiver.wait_for(1)
        assert "HOOKSEAL_LISTEN_URL" in reason
        assert not await world.pool.fetchval(NOTIFIES)


async def test_the_listen_url_bypasses_pgbouncer(world: World, receiver: Receiver) -> None:
    """With HOOKSEAL_LISTEN_URL the listener connects to PostgreSQL itself, and all else goes through PgBouncer."""
    await world.endpoint(f"{receiver.base_url}/hook")
    changes = {"HOOKSEAL_LISTEN": "true", "HOOKSEAL_LISTEN_URL": world.database_url}
    async with behind_pgbouncer(world) as (pooled, _), pooled.worker(**changes) as worker:
        await eventually(lambda: world.pool.fetchval(NOTIFIES))
        await world.pool.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json)")
        await receiver.wait_for(1)
        assert not worker.logged("listen.failed")


async def test_a_wrong_listen_url_is_logged_without_its_password(world: World, receiver: Receiver) -> None:
    """An error in HOOKSEAL_LISTEN_URL is logged with that name, without the password, and the worker delivers."""
    await world.endpoint(f"{receiver.base_url}/hook")
    changes = {"HOOKSEAL_LISTEN": "true", "HOOKSEAL_LISTEN_URL": f"{world.database_url}_absent"}
    async with world.worker(**changes) as worker:
        [reason] = await eventually(lambda: [line["reason"] for line in worker.log if line["event"] == "listen.failed"])
        await world.publish()
        await receiver.wait_for(1)

    assert "has no such database (InvalidCatalogNameError): create it or correct HOOKSEAL_LISTEN_URL" in reason
