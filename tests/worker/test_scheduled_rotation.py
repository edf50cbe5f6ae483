"""Scheduled rotation by whole workers, on a database with a moved clock: announced, done once, despite a kill."""

import os
import signal
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from tests.doubles import moved_clock
from tests.doubles.logbook import audited
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World

pytestmark = pytest.mark.req("SEC-11")

HALF_A_DAY = timedelta(hours=12, seconds=1)


@pytest.fixture
async def with_moved_clock(world: World) -> World:
    """Return an installation whose workers use a moved clock."""
    await moved_clock.make_for_all(world.database_url)
    return world


async def wait_for_log_line(worker: Worker, event: str) -> dict[str, Any]:
    """Return the log line of that event, once there is one."""

    async def look() -> dict[str, Any] | None:
        return next((line for line in worker.log if line["event"] == event), None)

    return await eventually(look)


async def scheduled(world: World, receiver: Receiver) -> str:
    """Add an endpoint that is rotated every day, and return its id."""
    added = await world.endpoint(f"{receiver.base_url}/hook")
    await world.pool.execute("UPDATE hookseal.endpoints SET rotate_every_days = 1")
    return added.pointer.endpoint_id


async def announced(world: World) -> None:
    """Let a worker announce the rotation, and let half a day pass."""
    await moved_clock.move(world.pool, HALF_A_DAY)
    async with world.worker() as worker:
        await wait_for_log_line(worker, "secret.rotation_announced")
    await moved_clock.move(world.pool, HALF_A_DAY)


async def actions(world: World) -> list[str]:
    """Return the audited actions of the tenant, in order."""
    return [row["action"] for row in await audited(world.pool)]


async def test_a_scheduled_rotation_is_announced_and_made(with_moved_clock: World, receiver: Receiver) -> None:
    """A worker announces the rotation in log and audit log, rotates when it is due, then signs with both secrets."""
    endpoint_id = await scheduled(with_moved_clock, receiver)
    await announced(with_moved_clock)
    async with with_moved_clock.worker(SECRETS_ROTATION_OVERLAP_SECONDS="0") as worker:
        line = await wait_for_log_line(worker, "secret.rotated_by_schedule")
        [ring] = await with_moved_clock.publish()
        await with_moved_clock.state(ring, "delivered")
    assert (endpoint_id, 2) == (line["endpoint_id"], line["generation"])
    assert 2 == (await receiver.wait_for(1)).headers["webhook-signature"].count("v1,")
    assert ["endpoint.added", "secret.rotation_announced", "secret.rotated"] == await actions(with_moved_clock)
    assert {f"worker/{worker.process.ready['worker_id']}"} == {
        row["who"] for row in await audited(with_moved_clock.pool) if row["action"] == "secret.rotated"
    }


async def test_a_kill_during_a_rotation_changes_nothing(with_moved_clock: World, receiver: Receiver) -> None:
    """If a worker is killed during a rotation, nothing is changed; of two later workers one rotates, once."""
    await scheduled(with_moved_clock, receiver)
    await announced(with_moved_clock)
    async with AsyncExitStack() as stack:
        async with with_moved_clock.pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT FROM hookseal.audit_heads WHERE tenant_id = 'acme' FOR UPDATE")
            doomed = await stack.enter_async_context(with_moved_clock.worker())
            await _wait_for_the_last_statements(with_moved_clock)
            os.kill(doomed.pid, signal.SIGKILL)
            await doomed.ended()
        await with_moved_clock.pool.execute(
            "UPDATE hookseal.control SET until = now() WHERE name = 'outbox'"
        )  # its lease has expired
        assert ["endpoint.added", "secret.rotation_announced"] == await actions(with_moved_clock)
        for _ in range(2):
            await stack.enter_async_context(with_moved_clock.worker())

        async def rotated() -> bool:
            return "secret.rotated" in await actions(with_moved_clock)

        await eventually(rotated)
    assert ["endpoint.added", "secret.rotation_announced", "secret.rotated"] == await actions(with_moved_clock)
    assert [1, 2] == [
        row["version"]
        for row in await with_moved_clock.pool.fetch(
            "SELECT version FROM hookseal.secret_records WHERE tenant_id = 'acme' ORDER BY version"
        )
    ]


async def _wait_for_the_last_statements(world: World) -> None:
    """Return when a session waits for the end of the audit log, the last step of a rotation."""

    async def look() -> bool:
        found = await world.pool.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%audit_heads AS head%')"
        )
        return bool(found)

    await eventually(look)
