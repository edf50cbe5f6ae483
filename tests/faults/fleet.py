"""Worker processes of the fault suite: started with the real command, many at once, each with a log of its own."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import forked
from tests.worker.waiting import eventually

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 80.0  # many start at once, on few and busy cores
HOOKSEAL, FAULTY = "hookseal", "tests.faults.faulty_worker"


@dataclass(slots=True, kw_only=True)
class WorkerProcess:
    """One worker process. `ready` is its ready line."""

    process: asyncio.subprocess.Process
    log_file: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def worker_id(self) -> str:
        """The id by which it owns leases."""
        return str(self.ready["worker_id"])

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every complete line of its log so far; a kill may have cut the last line."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log about this event."""
        return [line for line in self.log if line["event"] == event]

    async def wait_until_ready(self) -> None:
        """Return when it is ready. Fails with the end of its log if it ends before."""
        is_ready = await self.was_ready()
        assert is_ready, f"a worker did not become ready:\n{self.log_file.read_text(encoding='utf-8')[-2000:]}"

    async def was_ready(self) -> bool:
        """Return, when it is ready or has ended, whether it was ready. It claims nothing before its ready line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self.process.stdout.readline()
        self.ready = json.loads(line) if line else {}
        return bool(line)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self, *, within: float = PATIENCE_SECONDS) -> int:
        """Return its exit code when it has ended. Raises `TimeoutError`."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def paused(self) -> None:
        """Return when the kernel reports it as stopped."""

        async def is_stopped() -> bool:
            return _state(self.pid) == "T"

        await eventually(is_stopped, within=PATIENCE_SECONDS)


class Fleet:
    """Starts workers on one installation. `dead` names those whose attempts may be recorded as unknown."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.workers: list[WorkerProcess] = []
        self.dead: set[str] = set()
        self._environment = environment
        self._folder = folder

    @property
    def running(self) -> list[WorkerProcess]:
        """The workers that are ready and have not ended, the oldest first."""
        return [worker for worker in self.workers if worker.is_running and worker.ready]

    async def start(self, *, fault: str = "", wait: bool = True, **settings: str) -> WorkerProcess:
        """Start a worker with these settings changed and, by default, wait until it is ready.

        With a `fault` (`tests/faults/fault.py`) it causes that fault in itself.
        """
        worker = await self._started(settings, fault)
        if wait:
            await worker.wait_until_ready()
        return worker

    async def start_many(self, number: int, **settings: str) -> list[WorkerProcess]:
        """Start that many workers at once and wait until all are ready."""
        workers = [await self._started(settings) for _ in range(number)]
        await asyncio.gather(*(worker.wait_until_ready() for worker in workers))
        return workers

    async def kill(self, worker: WorkerProcess) -> None:
        """Kill it with SIGKILL and wait until it has ended; its attempts may then be recorded as unknown."""
        worker.send(signal.SIGKILL)
        await worker.ended()
        if worker.ready or await worker.was_ready():
            self.dead.add(worker.worker_id)

    async def stop(self, worker: WorkerProcess) -> int:
        """Stop it with SIGTERM; return its exit code."""
        worker.send(signal.SIGTERM)
        return await worker.ended()

    async def stop_all(self) -> list[int]:
        """Stop all running workers; return their exit codes."""
        return list(await asyncio.gather(*(self.stop(worker) for worker in self.running)))

    async def _started(self, settings: Mapping[str, str], fault: str = "") -> WorkerProcess:
        variables = {name: value for name, value in {**self._environment, **settings}.items() if value}
        log_file = self._folder / f"worker-{len(self.workers) + 1}.log"
        with log_file.open("ab") as log:
            process = await forked.start(
                "worker",
                module=FAULTY if fault else HOOKSEAL,
                cwd=ROOT,
                env=os.environ | variables | {"FAULT": fault},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        worker = WorkerProcess(process=process, log_file=log_file)
        self.workers.append(worker)
        return worker


@asynccontextmanager
async def fleet(environment: Mapping[str, str], folder: Path) -> AsyncIterator[Fleet]:
    """Yield a fleet; none of its processes runs afterwards."""
    made = Fleet(environment, folder)
    try:
        yield made
    finally:
        for worker in made.workers:
            if worker.is_running:
                worker.send(signal.SIGKILL)  # ends a frozen process as well
                await worker.process.wait()


def _state(pid: int) -> str:
    """Return the kernel's letter for the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
