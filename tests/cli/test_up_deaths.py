"""`hookseal up` ends with one error if a part of it dies; the data and the logs of that run are there at the next."""

import asyncio
import os
import signal
import stat
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from hookseal.embedded.process import children
from tests.cli.command import DEADLINE_SECONDS
from tests.cli.listeners import black_hole
from tests.cli.process_leaks import processes_in
from tests.cli.test_up import Terminal, finished
from tests.embedded.processes import arguments

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the parts are found in /proc")

PROGRAMS = {
    "the worker": "hookseal\0worker",
    "the API": "hookseal\0api",
    "PostgreSQL": "bin/postgres",
    "Valkey": "valkey-server",
}
LOGS = ("worker.log", "api.log", "postgres.log", "valkey.log")


@pytest.fixture
def terminal(servers_folder: Path) -> Terminal:
    """Return a terminal in a new folder."""
    return Terminal(servers_folder)


def kill(process: Process, *names: str) -> None:
    """Kill these parts of the running `up`."""
    programs = {arguments(pid): pid for pid in children(process.pid)}
    for name in names:
        [pid] = [pid for program, pid in programs.items() if PROGRAMS[name] in program]
        os.kill(pid, signal.SIGKILL)


async def message_of(terminal: Terminal, process: Process) -> str:
    """Return the error of an `up` that ends by itself, and that has printed nothing else."""
    failed = await finished(process)
    assert (69, terminal.starting.decode()) == (failed.code, failed.err)
    assert "unavailable" == failed.json["error"]["code"]
    return str(failed.json["error"]["message"])


async def require_no_process(terminal: Terminal) -> None:
    """Fail unless all processes end: the children of a killed PostgreSQL notice its end by themselves."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await asyncio.to_thread(processes_in, terminal.temporary):
            pass


async def test_a_dead_part_ends_it(terminal: Terminal) -> None:
    """The error names the part, its log and what to do. The next start has the data, and keeps the logs once."""
    async with terminal.up() as (process, ready):
        added = await terminal.run_on_stack(
            *("endpoint", "add", "--tenant", "acme", "--url", ready["receiver_url"], "--event-type", "*")
        )
        await require_end(terminal, process, "Valkey", "valkey.log", "The worker, the API and PostgreSQL")
    texts = [(terminal.state / name).read_text() for name in LOGS]

    async with terminal.up() as (process, _):
        kept = [terminal.state / f"{name}.1" for name in LOGS]
        assert texts == [path.read_text() for path in kept]
        assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in kept}
        assert not (terminal.state / "worker.log").read_text().startswith(texts[0])
        assert added["endpoint_id"] in str(await terminal.run_on_stack("endpoint", "list"))
        await require_end(terminal, process, "the worker", "worker.log", "The API, PostgreSQL and Valkey")

    async with terminal.up() as (process, _):
        await require_end(terminal, process, "the API", "api.log", "The worker, PostgreSQL and Valkey")


async def require_end(terminal: Terminal, process: Process, dead: str, log: str, others: str) -> None:
    """Kill the part, and fail unless `up` ends with the error about it and leaves no process."""
    kill(process, dead)
    assert await message_of(terminal, process) == (
        f"{dead} was killed by SIGKILL; its log is {terminal.state / log}. {others} are stopped too, and the data "
        "is kept: start `hookseal up` again, then repeat the eval in the second terminal, since the ports are new"
    )
    await require_no_process(terminal)


async def test_a_request_in_flight_delays_no_error(terminal: Terminal) -> None:
    """Without PostgreSQL the worker cannot record an answer, so that nothing waits for one."""
    async with black_hole() as (port, called), terminal.up() as (process, _):
        await terminal.send_to_black_hole(port)
        await asyncio.wait_for(called.wait(), DEADLINE_SECONDS)
        kill(process, "PostgreSQL")
        assert (await message_of(terminal, process)).startswith("PostgreSQL was killed")
    assert '"worker.stopped"' not in (terminal.state / "worker.log").read_text()
    await require_no_process(terminal)
