"""Worker processes of tests: started with the real command, each with a log of its own, one or many at once."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests import forked
from tests.worker.figures import Figures, read
from tests.worker.waiting import eventually

ROOT: Final = Path(__file__).parents[2]
HOOKSEAL: Final = "hookseal"
# With a variable that Python reads at its start, a worker is a new Python, so that its environment is its own.
NEW_PYTHON: Final = {"PYTHONNODEBUGRANGES": "1"}
WORKER_SECONDS: Final = 80.0  # many start at once, on few and busy cores
_LOGS = count(1)


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker process. `ready` is its ready line, empty until it is ready."""

    process: asyncio.subprocess.Process
    log_file: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def worker_id(self) -> str:
        """The id by which it owns leases."""
        return str(self.ready["worker_id"])

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every complete line of its log so far; a kill may have cut the last line."""
        lines = self.log_file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def logged(self, *events: str) -> list[dict[str, Any]]:
        """Return the lines of its log about these events."""
        return [line for line in self.log if line["event"] in events]

    async def wait_until_ready(self) -> None:
        """Return when it is ready. Fails with the end of its log if it ends before."""
        is_ready = await self.was_ready()
        assert is_ready, f"a worker did not become ready:\n{self.log_file.read_text(encoding='utf-8')[-2000:]}"

    async def was_ready(self) -> bool:
        """Return, when it is ready or has ended, whether it was ready. It claims nothing before its ready line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(WORKER_SECONDS):
            line = await self.process.stdout.readline()
        self.ready = json.loads(line) if line else {}
        return bool(line)

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def ended(self, *, within: float = WORKER_SECONDS) -> int:
        """Return its exit code when it has ended. Raises `TimeoutError`."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def paused(self) -> None:
        """Return when the kernel reports it as stopped."""
        stat = Path(f"/proc/{self.pid}/stat")
        await eventually(lambda: stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T")

    async def stop(self) -> None:
        """Stop it with SIGTERM; it must drain and exit with 0."""
        self.send(signal.SIGTERM)
        assert 0 == await self.ended()

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert -signal.SIGKILL == await self.ended()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of one of its probes."""
        async with aiohttp.ClientSession() as session, session.get(self.ready["health_url"] + path) as response:
            return response.status, await response.json()

    async def answers(self, path: str, status: int) -> dict[str, Any]:
        """Return the JSON of one of its probes, once that has this status."""

        async def look() -> dict[str, Any] | None:
            found, body = await self.get(path)
            return body if found == status else None

        return await eventually(look)

    async def figure(self, name: str, label: str | None = None) -> float | None:
        return (await self.figures()).get((name, label))

    async def figures(self) -> Figures:
        """Return its figures as Prometheus reads them."""
        url = f"{self.ready['health_url']}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return read(await response.text())


async def start(settings: Mapping[str, str], folder: Path, *, module: str = HOOKSEAL) -> Worker:
    """Start a worker, or another module that becomes one; an empty setting is left out."""
    variables = {name: value for name, value in settings.items() if value}
    log_file = folder / f"worker-{next(_LOGS)}.log"
    with log_file.open("ab") as log:
        process = await forked.start(
            "worker",
            module=module,
            cwd=ROOT,
            env=os.environ | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    return Worker(process=process, log_file=log_file)


class Fleet:
    """Starts workers on one installation. `dead` names those whose attempts may be recorded as unknown."""

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self.workers: list[Worker] = []
        self.dead: set[str] = set()
        self._settings = settings
        self._folder = folder

    @property
    def running(self) -> list[Worker]:
        """The workers that are ready and have not ended, the oldest first."""
        return [worker for worker in self.workers if worker.is_running and worker.ready]

    async def start(self, *, module: str = HOOKSEAL, wait: bool = True, **settings: str) -> Worker:
        """Start a worker with these settings changed and, by default, wait until it is ready."""
        worker = await start({**self._settings, **settings}, self._folder, module=module)
        self.workers.append(worker)
        if wait:
            await worker.wait_until_ready()
        return worker

    async def start_many(self, number: int, **settings: str) -> list[Worker]:
        workers = [await self.start(wait=False, **settings) for _ in range(number)]
        await asyncio.gather(*(worker.wait_until_ready() for worker in workers))
        return workers

    async def kill(self, worker: Worker) -> None:
        """Kill it with SIGKILL and wait until it has ended; its attempts may then be recorded as unknown."""
        worker.send(signal.SIGKILL)
        await worker.ended()
        if worker.ready or await worker.was_ready():
            self.dead.add(worker.worker_id)

    async def stop_all(self) -> None:
        """Stop all running workers; each must drain and exit with 0."""
        await asyncio.gather(*(worker.stop() for worker in self.running))


@asynccontextmanager
async def fleet(settings: Mapping[str, str], folder: Path) -> AsyncIterator[Fleet]:
    """Yield a fleet; none of its processes runs afterwards."""
    made = Fleet(settings, folder)
    try:
        yield made
    finally:
        for worker in made.workers:
            if worker.is_running:
                worker.send(signal.SIGKILL)  # ends a frozen process as well
                await worker.process.wait()
