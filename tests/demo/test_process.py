"""The worker process of the demo is awaited until it is ready, and never left behind."""

import asyncio
import json
import os
import re
import stat
from pathlib import Path

import pytest

from hookseal.demo.process import worker_process
from hookseal.demo.up import watch
from hookseal.errors import Unavailable
from tests.cli.listeners import black_hole
from tests.cli.test_worker import SETTINGS
from tests.demo.test_watch import Part
from tests.doubles.stored import begin
from tests.embedded.processes import is_alive


async def test_a_failed_start_shows_the_workers_log(tmp_path: Path) -> None:
    """The error contains the end of the worker's log, and the log is private."""
    log = tmp_path / "worker.log"
    with pytest.raises(Unavailable, match="did not become ready:\nDATABASE_URL is not set"):
        async with worker_process(os.environ, log):
            pytest.fail("ready")
    assert 0o600 == stat.S_IMODE(log.stat().st_mode)


async def test_a_worker_ended_from_outside_is_seen(
    pool: object, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A worker is ready within the block and has drained after it; if it is killed from outside, that is seen."""
    await begin(pool)  # type: ignore[arg-type]
    environment = {**os.environ, **SETTINGS, "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    log = tmp_path / "worker.log"
    async with worker_process(environment, log) as worker:
        pid = worker.ready["pid"]
        assert is_alive(pid)
        assert worker.exit_code is None
    assert not is_alive(pid)
    assert "worker.stopped" == json.loads(log.read_text().splitlines()[-1])["event"]

    async with worker_process(environment, log) as worker:
        os.kill(worker.ready["pid"], 9)
        seen = f"^the worker was killed by SIGKILL; its log is {re.escape(str(log))}"
        with pytest.raises(Unavailable, match=seen):
            await watch([Part(name="PostgreSQL"), Part(name="Valkey")], [worker], asyncio.Event())


async def test_a_cancelled_start_leaves_no_process(tmp_path: Path, redis_url: str) -> None:
    """A cancelled start leaves no process."""
    async with black_hole() as (port, called):
        environment = {**os.environ, **SETTINGS, "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{port}/db"}

        async def start() -> None:
            async with worker_process(environment | {"REDIS_URL": redis_url}, tmp_path / "worker.log"):
                pytest.fail("ready")

        starting = asyncio.create_task(start())
        await asyncio.wait_for(called.wait(), 60)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
