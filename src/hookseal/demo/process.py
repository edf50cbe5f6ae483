"""Runs a real `hookseal worker` or `hookseal api` process, waits until it is ready, and stops it with a drain."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from hookseal.embedded.folders import create_private
from hookseal.errors import Unavailable

STOP_SECONDS: Final = 35.0  # longer than the drain of a worker
_START_SECONDS: Final = 60.0  # as that of one of several processes of a worker


class RunningProcess:
    """A process that has reported readiness; `ready` is its ready line, and `name` its name in messages."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, ready: dict[str, Any]) -> None:
        self._process = process
        self.name = name
        self.log = log
        self.ready = ready

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    def stop(self) -> None:
        """Make it drain."""
        if self._process.returncode is None:
            self._process.terminate()


class Start(Protocol):
    """Starts a process with this environment. Its standard output is a pipe, its log goes to the file."""

    async def __call__(self, environment: Mapping[str, str], log: BinaryIO) -> asyncio.subprocess.Process:
        """Return the process that was started."""
        ...


async def start_worker(environment: Mapping[str, str], log: BinaryIO) -> asyncio.subprocess.Process:
    """Start a worker with this Python, as it is deployed, and return its process."""
    return await _start(("worker",), environment, log)


async def start_without_arq(environment: Mapping[str, str], log: BinaryIO) -> asyncio.subprocess.Process:
    """Start the same worker without arq, which the extra `embedded` does not bring, and return its process."""
    return await _start(("worker", "--without-arq"), environment, log)


async def _start(words: Sequence[str], environment: Mapping[str, str], log: BinaryIO) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        # The kernel then makes it drain when this process ends, however that happens.
        *(sys.executable, "-I", "-S", "-c", files("hookseal.embedded").joinpath("launch.py").read_text()),
        *(str(os.getpid()), str(int(signal.SIGTERM)), ""),
        *(sys.executable, "-P", "-m", "hookseal", *words),
        env=dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C reaches only this process, which then lets the worker drain
    )


def worker_process(
    environment: Mapping[str, str],
    log_file: Path,
    *,
    start: Start = start_without_arq,
    at_once: asyncio.Event | None = None,
) -> AbstractAsyncContextManager[RunningProcess]:
    """Run a worker process for the length of the block, with its log in the file.

    At the end of the block it drains, and is killed after 35 seconds, or when `at_once` is set. Raises `Unavailable`,
    with the end of its log, if it does not become ready within 20 seconds.
    """
    return _running("the worker", start, environment, log_file, at_once)


def api_process(
    environment: Mapping[str, str], log_file: Path, *, at_once: asyncio.Event | None = None
) -> AbstractAsyncContextManager[RunningProcess]:
    """Run a process of the HTTP API for the length of the block, as `worker_process` runs a worker."""
    return _running("the API", partial(_start, ("api",)), environment, log_file, at_once)


@asynccontextmanager
async def _running(
    name: str, start: Start, environment: Mapping[str, str], log_file: Path, at_once: asyncio.Event | None
) -> AsyncIterator[RunningProcess]:
    with os.fdopen(create_private(log_file), "ab") as log:
        process = await start(environment, log)
    try:
        yield RunningProcess(name, process, log_file, await _ready(name, process, log_file))
    finally:
        await _end(process, asyncio.Event() if at_once is None else at_once)


async def _ready(name: str, process: asyncio.subprocess.Process, log_file: Path) -> dict[str, Any]:
    line = b""
    try:
        async with asyncio.timeout(_START_SECONDS):
            if process.stdout is not None:
                line = await process.stdout.readline()
        ready: dict[str, Any] = json.loads(line)
    except (TimeoutError, ValueError):
        raise Unavailable(f"{name} did not become ready:\n{_log_tail(log_file)}") from None
    return ready


def _log_tail(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return "\n".join(line.removeprefix("hookseal: ") for line in lines)  # the command that shows them puts it there


async def _end(process: asyncio.subprocess.Process, at_once: asyncio.Event) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    ended, hurried = asyncio.create_task(process.wait()), asyncio.create_task(at_once.wait())
    await asyncio.wait({ended, hurried}, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it has just ended
            process.kill()
    await ended
