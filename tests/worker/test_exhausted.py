"""A worker with few file descriptors, and receivers that keep more connections open: no budget is spent."""

import asyncio
import resource
from pathlib import Path

import pytest
import structlog

from hookseal.worker import run
from tests.worker.environment import settings
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, Worker, World, held

DELIVERIES = 30
AT_ONCE = 10


def few_files(worker: Worker) -> None:
    """Limit the worker to its open descriptors and ten more, doubled for the reserve."""
    most = max(int(path.name) for path in Path(f"/proc/{worker.pid}/fd").iterdir())
    soft = 2 * (most + 1 + AT_ONCE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, soft))


@pytest.mark.req("DEL-06")
async def test_a_delivery_waits_for_a_descriptor_unspent(world: World, receiver: Receiver) -> None:
    """A delivery without a free descriptor waits for one, unspent, and probes are answered meanwhile."""
    answer_now = asyncio.Event()
    receiver.answers["/held"] = held(answer_now)
    await world.endpoint(f"{receiver.base_url}/held", timeout_ms=20_000)
    async with world.worker() as worker:
        few_files(worker)
        rings = [(await world.publish(rung=False))[0] for _ in range(DELIVERIES)]

        async def lacks() -> bool:
            return (await worker.figures())["hookseal_exhausted_total", None] > 0

        await eventually(lacks, within=30)
        assert 200 == (await worker.get("/livez"))[0]
        assert 200 == (await worker.get("/readyz"))[0]
        assert AT_ONCE >= len(receiver.received) > 0
        answer_now.set()

        async def all_delivered() -> bool:
            return not await world.pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state <> 'delivered'")

        await eventually(all_delivered, within=45)

    spent = [(await world.installation.delivery(ring))["attempts"] for ring in rings]
    assert [1] * DELIVERIES == spent
    assert 0 == await world.pool.fetchval("SELECT count(*) FROM hookseal.attempts WHERE outcome <> 'delivered'")
    rests = [line["rests_seconds"] for line in worker.log if line["event"] == "worker.exhausted"]
    assert 0.5 == rests[0]
    assert len(rests) < DELIVERIES


@pytest.mark.parametrize(("limit", "warned"), [(755, True), (756, False)])
def test_a_low_descriptor_limit_is_logged(limit: int, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start a descriptor limit below the need of HOOKSEAL_CONCURRENCY is logged, with what to change."""
    monkeypatch.setattr(run, "raise_descriptor_limit", lambda: limit)
    with structlog.testing.capture_logs() as logs:
        run._raise_limit(settings("postgresql://h/d", "redis://h"), structlog.get_logger())

    logged = [(line["event"], line["limit"], line["needed"]) for line in logs]
    assert [("worker.few_descriptors", 755, 756)] * warned == logged
    assert all("raise the hard limit" in line["reason"] for line in logs)
