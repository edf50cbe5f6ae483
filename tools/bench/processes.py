"""Processes of the benchmark. The kernel ends each of them with it, however it ends."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, Final

from hookseal.demo.process import Start, start_worker, worker_process

ROOT: Final = Path(__file__).resolve().parents[2]
_LINE_SECONDS: Final = 30.0

OnReady = Callable[[int], Awaitable[None]]


def ending_with_this_process(death_signal: signal.Signals, *command: str) -> tuple[str, ...]:
    """Return a command that runs this one so that its process gets the signal when this process ends."""
    launch = files("hookseal.embedded").joinpath("launch.py").read_text()
    return (sys.executable, "-I", "-S", "-c", launch, str(os.getpid()), str(int(death_signal)), "", *command)


async def module(
    python: Path,
    *arguments: str,
    environment: Mapping[str, str],
    log: BinaryIO,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> asyncio.subprocess.Process:
    """Start a module with that Python, and return the process; its standard error goes to the file."""
    return await asyncio.create_subprocess_exec(
        *ending_with_this_process(signal.SIGKILL, str(python), "-m", *arguments),
        cwd=ROOT,
        env=dict(environment),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
    )


async def line(process: asyncio.subprocess.Process, log_file: Path) -> str:
    """Return the next line of its output. Raises `RuntimeError` with the end of its log if there is none."""
    if process.stdout is None:
        raise RuntimeError("the process has no standard output")
    async with asyncio.timeout(_LINE_SECONDS):
        text = (await process.stdout.readline()).decode()
    if not text:
        raise RuntimeError(f"the process ended: {last_error_line(log_file)}")
    return text


def last_error_line(log_file: Path) -> str:
    """Return the last line of a log that names an error, or else its last line."""
    lines = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    named = [line.lstrip("| ") for line in lines if re.match(r"[|\s]*[\w.]*(Error|Unavailable|Refused)\b", line)]
    return (named or lines or [""])[-1]


async def ended(process: asyncio.subprocess.Process) -> None:
    """Kill it: it has no state to save."""
    if process.returncode is None:
        process.kill()
    await process.wait()


@asynccontextmanager
async def hookseal_workers(
    environment: Mapping[str, str], processes: int, log_file: Path, on_ready: OnReady | None = None
) -> AsyncIterator[tuple[int, ...]]:
    """Run that many worker processes for the length of the block, and yield the id of the process that was started.

    Several are one parent with so many children. `on_ready` is called with the id when it reports readiness.
    """
    begin: Start = start_worker if processes == 1 else partial(_parent, processes=processes)
    async with worker_process(environment, log_file, start=begin) as worker:
        pid = int(worker.ready["pid"])
        if on_ready is not None:
            await on_ready(pid)
        yield (pid,)


async def _parent(environment: Mapping[str, str], log: BinaryIO, *, processes: int) -> asyncio.subprocess.Process:
    command = (sys.executable, "-P", "-m", "hookseal", "worker", "--processes", str(processes))
    return await asyncio.create_subprocess_exec(
        *ending_with_this_process(signal.SIGTERM, *command),
        env=dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )
