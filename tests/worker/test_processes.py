"""Several worker processes under one parent, on a real PostgreSQL and Valkey."""

import asyncio
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import ProcessCollector

from hookseal.ground.version import VERSION
from hookseal.postgres.schema.revision import EXPECTED
from tests.doubles.stored import MASTER_KEY_TEXT
from tests.worker.fleet import Worker
from tests.worker.test_probes import FINE
from tests.worker.waiting import eventually, eventually_equals
from tests.worker.world import Receiver, World, held


def processes(worker: Worker) -> list[dict[str, Any]]:
    """Return what the parent reported about its processes."""
    found: list[dict[str, Any]] = worker.ready["processes"]
    return found


async def ended(pid: int) -> None:
    """Return when the process has ended; its parent may not have waited for it yet."""
    await eventually(lambda: _has_ended(pid))


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def all_ready(worker: Worker) -> dict[str, Any]:
    """Return the answer of `/readyz` once the worker is ready."""

    async def look() -> dict[str, Any] | None:
        status, body = await worker.get("/readyz")
        return body if status == 200 else None

    return await eventually(look)


@pytest.mark.req("OPS-01")
@pytest.mark.req("DEL-03")
@pytest.mark.req("SEC-01", part="db")
async def test_two_processes_are_one_worker(world: World, receiver: Receiver, tmp_path: Path) -> None:
    """Two processes share the work, are two live workers behind one port, and get the keys through a socket.

    The variable that makes other programs keep counters in files has no effect. After a signal every process finishes
    what is in flight, then all end with 0; further signals change nothing.
    """
    await world.endpoint(f"{receiver.base_url}/hook", timeout_ms=15_000)
    changes = {"HOOKSEAL_CONCURRENCY": "2", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    async with world.worker(HOOKSEAL_PROCESSES="2", **changes) as worker:
        one, two = processes(worker)
        assert (1, 2) == (one["process"], two["process"])
        assert 3 == len({worker.pid, one["pid"], two["pid"]})
        present = await world.pool.fetch("SELECT id FROM hookseal.workers")
        assert {one["worker_id"], two["worker_id"]} == {row["id"] for row in present}
        await world.delivered(*[(await world.publish())[0] for _ in range(6)])
        await _require_both_ready(worker)
        for process in (one, two):
            _shows_no_key(process["pid"], world)
        await _require_drained(world, receiver, worker)
    assert [] == _files_of_figures(tmp_path)


async def _require_drained(world: World, receiver: Receiver, worker: Worker) -> None:
    answer = asyncio.Event()
    receiver.answers["/hook"] = held(answer)
    before = len(receiver.received)
    rings = [(await world.publish())[0] for _ in range(4)]
    await receiver.wait_for(before + 4)  # the concurrency of both together
    assert 4.0 == (await worker.figures())["hookseal_in_flight", None]
    worker.send(signal.SIGTERM)
    await eventually(lambda: _is_draining(worker))
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGINT)
    answer.set()
    assert 0 == await worker.ended()
    assert {"delivered"} == {(await world.installation.delivery(ring))["state"] for ring in rings}
    assert [] == await world.pool.fetch("SELECT id FROM hookseal.workers")
    held_back = {ring.delivery_id for ring in rings}
    attempted = Counter(line["process"] for line in worker.log if line.get("delivery_id") in held_back)
    assert {1: 2, 2: 2} == attempted


async def _require_both_ready(worker: Worker) -> None:
    well = {"status": "ok", "processes": {"1": "ok", "2": "ok"}}
    for path in ("/readyz", "/startupz"):
        await eventually_equals((200, well | {"checks": FINE[path]}), partial(worker.get, path))
    assert (200, well) == await worker.get("/livez")
    figures = await worker.figures()
    assert (6.0, 2.0) == (figures["hookseal_attempts_total", "delivered"], figures["hookseal_processes", None])
    assert 1.0 == figures["hookseal_build_info", f"{EXPECTED} {VERSION}"]
    assert _start_of(worker.pid) == figures["process_start_time_seconds", None]  # the parent counts as one
    of_each = [_start_of(process["pid"]) for process in processes(worker)]
    assert [] == [start for start in of_each if start < figures["process_start_time_seconds", None]]


def _start_of(pid: int) -> float:
    """Return the start time of a process, as that process reports it."""
    families = ProcessCollector(pid=lambda: pid, registry=None).collect()
    return next(sample.value for family in families for sample in family.samples if "start_time" in sample.name)


def _files_of_figures(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("*.db")]


def _shows_no_key(pid: int, world: World) -> None:
    """Fail if a setting of the parent is in the environment or the arguments of its process."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:  # it belongs to root, so another user cannot read it
        assert os.geteuid() != 0
        environment = b""
    else:
        assert b"PATH=" in environment
    assert b"--parent-channel" in arguments
    for secret in (MASTER_KEY_TEXT, world.database_url, world.redis_url):
        assert secret.encode() not in environment + arguments
    names = [entry.partition(b"=")[0].decode() for entry in environment.split(b"\0")]
    assert [] == [name for name in names if name.startswith(("HOOKSEAL_", "SECRETS_", "DATABASE_", "REDIS_"))]


async def _is_draining(worker: Worker) -> bool:
    status, body = await worker.get("/readyz")
    return (status, body["status"]) == (503, "draining")


@pytest.mark.req("DEL-03")
async def test_a_killed_process_is_replaced(world: World, receiver: Receiver) -> None:
    """A killed process is replaced, its delivery is attempted again, and no counter of the worker decreases.

    If then the parent is killed, its processes notice it, finish what is in flight, and end.
    """
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    await world.endpoint(f"{receiver.base_url}/held", timeout_ms=15_000)
    async with world.worker(HOOKSEAL_PROCESSES="2") as worker:
        [ring] = await world.publish()
        await receiver.wait_for(1)
        owner = (await world.installation.delivery(ring))["lease_owner"]
        [victim] = [process for process in processes(worker) if process["worker_id"] == owner]
        os.kill(victim["pid"], signal.SIGKILL)
        await world.expire_leases()
        number = str(victim["process"])

        async def degraded() -> bool:
            status, body = await worker.get("/livez")  # it asks no process, so it is cheap
            assert status == 200
            return body["status"] == "degraded" and body["processes"][number] in {"waiting", "starting"}

        await eventually(degraded)
        answer.set()
        await world.state(ring, "delivered")
        assert ["unknown", "delivered"] == [row["outcome"] for row in await world.installation.attempts(ring)]
        await all_ready(worker)
        await _require_one_restart(worker, victim["process"])
        await _require_orphans_end(world, receiver, worker)
        assert {victim["worker_id"]} >= {row["id"] for row in await world.pool.fetch("SELECT id FROM hookseal.workers")}


async def _require_one_restart(worker: Worker, number: int) -> None:
    figures = await worker.figures()
    assert (1.0, 2.0) == (
        figures["hookseal_process_restarts_total", "killed"],
        figures["hookseal_processes", None],
    )
    [restart] = worker.logged("process.restarting")
    assert (number, -9) == (restart["process"], restart["exit_code"])


async def _require_orphans_end(world: World, receiver: Receiver, worker: Worker) -> None:
    answer = asyncio.Event()
    receiver.answers["/held"] = held(answer)
    before = len(receiver.received)
    pids = {line["process"]: line["pid"] for line in worker.log if line["event"] == "process.started"}
    [ring] = await world.publish()
    await receiver.wait_for(before + 1)
    worker.send(signal.SIGKILL)
    await eventually(lambda: _log_lines(worker, "worker.draining", 2))
    answer.set()
    for pid in pids.values():
        await ended(pid)
    assert "delivered" == (await world.installation.delivery(ring))["state"]
    assert {1, 2} == {line["process"] for line in worker.log if line["event"] == "process.orphaned"}


async def _log_lines(worker: Worker, event: str, times: int) -> bool:
    return [line["event"] for line in worker.log].count(event) == times


async def test_a_process_that_cannot_restart_ends_the_worker(world: World) -> None:
    """If a process cannot start again until an operator changes something, the worker ends with its message."""
    async with world.worker(HOOKSEAL_PROCESSES="2") as worker:
        await world.pool.execute("UPDATE hookseal.alembic_version SET version_num = '9999', runs_from = '9999'")
        os.kill(processes(worker)[0]["pid"], signal.SIGKILL)
        assert 78 == await worker.ended()
        *lines, last = worker.log_file.read_text(encoding="utf-8").splitlines()
    assert last.startswith("hookseal: the schema is at revision 9999, this version knows up to")
    assert [] == [line for line in lines if line.startswith("hookseal: ")]
    await ended(processes(worker)[1]["pid"])
