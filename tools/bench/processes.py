"""Processes of the benchmark. The kernel ends each of them with it, however it ends."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache, partial
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
    """Run that many worker processes for the length of the block, and yield the ids of the started processes.

    They start at the same time; `on_ready` is called with the id of each when it reports readiness.

    If `hookseal worker` has the option `--processes`, that is one parent with so many children, else so many workers.
    """
    async with AsyncExitStack() as running:
        if processes > 1 and _has_option_processes():
            begin: Start = partial(_parent, processes=processes)
            logs = [log_file]
        else:
            begin = start_worker
            logs = [log_file.with_suffix(f".{number}.log") for number in range(processes)]

        async def one(log: Path) -> int:
            worker = await running.enter_async_context(worker_process(environment, log, start=begin))
            pid = int(worker.ready["pid"])
            if on_ready is not None:
                await on_ready(pid)
            return pid

        yield tuple(await asyncio.gather(*(one(log) for log in logs)))


async def _parent(environment: Mapping[str, str], log: BinaryIO, *, processes: int) -> asyncio.subprocess.Process:
    command = _hookseal("worker", "--processes", str(processes))
    return await asyncio.create_subprocess_exec(
        *ending_with_this_process(signal.SIGTERM, *command),
        env=dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )


@cache
def _has_option_processes() -> bool:
    command = _hookseal("worker", "--help")
    return b"--processes" in subprocess.run(command, capture_output=True, check=True).stdout


def _hookseal(*arguments: str) -> Sequence[str]:
    return (sys.executable, "-P", "-m", "hookseal", *arguments)
