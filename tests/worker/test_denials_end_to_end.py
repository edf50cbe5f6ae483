"""Refused secrets under a whole worker: its deliveries wait, others continue, and its drain writes the counts."""

import os
import signal

import asyncpg
import pytest

from tests.cli.command import hookseal
from tests.doubles.logbook import audited
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.worker.environment import environment
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World

Pool = asyncpg.Pool
_ALTERED = "UPDATE hookseal.endpoints SET url = url || '?to=another' WHERE id = $1::text::uuid"


async def more_refused(world: World, worker: Worker, before: float) -> float:
    """Make the probe due now, and return the number of refusals when it has grown."""
    await world.pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")

    async def look() -> float | None:
        refused = (await worker.figures())["hookseal_secret_failures_total", "definitive"]
        return refused if refused > before else None

    return await eventually(look)


@pytest.mark.req("SEC-14", part="counted")
async def test_a_drain_writes_what_was_counted(world: World, receiver: Receiver) -> None:
    """The refusals are one audit row, written by the drain; the audit log is intact, and others are delivered."""
    altered = await world.endpoint(f"{receiver.base_url}/altered")
    await world.endpoint(f"{receiver.base_url}/other", tenant="globex")
    await world.pool.execute(_ALTERED, altered.pointer.endpoint_id)
    async with world.worker() as worker:
        waiting = [(await world.publish())[0] for _ in range(3)]
        [sent] = await world.publish("globex")
        for delivery in waiting:
            await world.state(delivery, "pending", waiting_for="secret")
        await world.state(sent, "delivered")
        refused = 0.0
        while refused < 3:  # the endpoint is held as a whole: each further refusal comes from a probe
            refused = await more_refused(world, worker, refused)
        os.kill(worker.pid, signal.SIGTERM)
        assert 0 == await worker.ended()
        worker_id = worker.process.ready["worker_id"]

    denials = [row for row in await audited(world.pool) if row["action"] == "secret.denied"]
    assert [(f"worker/{worker_id}", "tenant:acme", {"secret_tampered"})] == [
        (row["who"], row["subject"], row["after"]["denied"].keys()) for row in denials
    ]
    assert refused <= denials[0]["after"]["denied"]["secret_tampered"]
    assert [altered.pointer.endpoint_id] == denials[0]["after"]["endpoints"]
    assert ["endpoint.added"] == [row["action"] for row in await audited(world.pool, "globex")]
    settings = environment(world.database_url, world.redis_url, SECRETS_MASTER_KEY=MASTER_KEY_TEXT)
    assert 0 == (await hookseal("audit", "verify", **settings)).code


@pytest.mark.req("SEC-19")
async def test_dev_audits_nothing(pool: "Pool[asyncpg.Record]", world: World) -> None:
    """With the keys of `dev` no audit row is written, because nobody could verify it later."""
    await pool.execute("DELETE FROM hookseal.secret_keys; DELETE FROM hookseal.secret_records")
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ('acme', hookseal.uuid7(), 'https://receiver.example/', '{*}', 'of an older system')"
    )
    async with world.worker(SECRETS_PROVIDER="dev", SECRETS_MASTER_KEY="") as worker:
        [held] = await world.publish()
        await world.state(held, "pending", waiting_for="secret")

        async def refused() -> bool:
            return 1.0 == (await worker.figures())["hookseal_secret_failures_total", "definitive"]

        await eventually(refused)
        os.kill(worker.pid, signal.SIGTERM)
        assert 0 == await worker.ended()

    assert 0 == await pool.fetchval("SELECT count(*) FROM hookseal.audit_log")
