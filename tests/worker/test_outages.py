"""A whole worker while a dependency is frozen."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from hookseal.embedded.server import Server
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World, held, world

Pool = asyncpg.Pool


async def unready(worker: Worker, name: str) -> None:
    """Return when the worker reports that dependency as a timeout; it must live."""

    async def look() -> bool:
        status, body = await worker.get("/readyz")
        return status == 503 and body["checks"][name] == "timeout"

    await eventually(look)
    assert (200, {"status": "ok"}) == await worker.get("/livez")


async def ready(worker: Worker) -> None:
    """Return when the worker is ready."""

    async def look() -> bool:
        return (await worker.get("/readyz"))[0] == 200

    await eventually(look)


@pytest.mark.req("DEL-03")
async def test_a_worker_lives_while_postgresql_is_frozen(
    own_postgres: Server, redis_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """While PostgreSQL is frozen a worker lives and is unready; afterwards it records what it sent, and continues."""
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=4) as pool:
        installed = await world(pool, own_postgres.url, redis_url, tmp_path)
        await installed.endpoint(f"{receiver.base_url}/held", timeout_ms=15_000)
        async with installed.worker() as worker:
            [in_flight] = await installed.publish()
            await receiver.wait_for(1)
            own_postgres.freeze()
            try:
                answer.set()
                await unready(worker, "postgresql")
            finally:
                own_postgres.thaw()
            await installed.state(in_flight, "delivered")
            [later] = await installed.publish()
            await installed.state(later, "delivered")
            await ready(worker)

    assert [in_flight.delivery_id, later.delivery_id] == [each.headers["webhook-id"] for each in receiver.received]


async def test_dropped_connections_are_opened_again(world: World, receiver: Receiver) -> None:
    """Connections that PostgreSQL ends are opened again, and deliveries continue."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with world.worker() as worker:
        for _ in range(3):
            await world.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            [ring] = await world.publish()
            await world.state(ring, "delivered")
        await ready(worker)


async def test_a_worker_lives_while_redis_is_frozen(
    pool: "Pool[asyncpg.Record]", database_url: str, own_valkey: Server, tmp_path: Path, receiver: Receiver
) -> None:
    """While Redis is frozen a worker lives and is unready; afterwards events published meanwhile are delivered."""
    installed = await world(pool, database_url, own_valkey.url, tmp_path)
    await installed.endpoint(f"{receiver.base_url}/hook")
    async with installed.worker() as worker:
        own_valkey.freeze()
        try:
            [ring] = await installed.publish(rung=False)
            await unready(worker, "redis")
        finally:
            own_valkey.thaw()
        await installed.state(ring, "delivered")
        await ready(worker)


async def test_a_stop_does_not_wait_for_a_frozen_postgresql(
    own_postgres: Server, redis_url: str, tmp_path: Path
) -> None:
    """A worker that is stopped while PostgreSQL is frozen does not wait for it, and exits with 0."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=4) as pool:
        installed = await world(pool, own_postgres.url, redis_url, tmp_path)
        async with installed.worker() as worker:
            await ready(worker)
            own_postgres.freeze()
            try:
                await unready(worker, "postgresql")
                os.kill(worker.pid, signal.SIGTERM)
                assert 0 == await worker.ended()
            finally:
                own_postgres.thaw()


@pytest.mark.req("DUR-04", "DUR-05")
async def test_a_stop_ends_while_nothing_can_be_recorded(world: World, receiver: Receiver) -> None:
    """A worker that is stopped while nothing can be recorded tries until its drain ends, logs what is left, exits 0."""
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    await world.endpoint(f"{receiver.base_url}/held")

    async with world.worker(HOOKSEAL_LEASE_SECONDS="7", HOOKSEAL_DRAIN_SECONDS="6") as worker:
        [ring] = await world.publish()
        await receiver.wait_for(1)
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE hookseal.attempts IN ACCESS EXCLUSIVE MODE")
            answer.set()

            async def reported() -> bool:
                found, body = await worker.get("/readyz")
                return (503, "unavailable", 1) == (
                    *(found, body["checks"]["records"]),
                    body.get("unrecorded", {}).get("outcomes"),
                )

            await eventually(reported)
            os.kill(worker.pid, signal.SIGTERM)
            assert 0 == await worker.ended()
        events = [line["event"] for line in worker.log]
        assert (1, 1) == (events.count("records.failed"), events.count("delivery.unrecorded"))

    assert "sending" == (await world.installation.delivery(ring))["state"]
