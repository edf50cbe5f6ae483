"""An initialised installation in the database of a test, worker processes on it, and a receiver on this machine."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

from hookseal.demo.process import Start, WorkerProcess, start_worker, worker_process
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.queue.bell import bell
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.endpoint.rotation import RotationResult
from tests import forked
from tests.doubles.serving import serving
from tests.doubles.stored import Installation, begin
from tests.worker.environment import environment
from tests.worker.figures import Figures, read
from tests.worker.waiting import PATIENCE_SECONDS, eventually

Pool = asyncpg.Pool
_LOGS = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as the receiver got it."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Keeps every request and answers 204, or as `answers` says for its path."""

    def __init__(self) -> None:
        self.base_url = ""
        self.received: list[Received] = []
        self.answers: dict[str, Callable[[], Awaitable[web.Response]]] = {}
        self._arrived = asyncio.Condition()

    async def serve(self, request: web.Request) -> web.Response:
        """Keep a request and answer it."""
        got = Received(path=request.path, headers=dict(request.headers), body=await request.read())
        async with self._arrived:
            self.received.append(got)
            self._arrived.notify_all()
        answer = self.answers.get(request.path)
        return web.Response(status=204) if answer is None else await answer()

    async def wait_for(self, number: int, *, within: float = PATIENCE_SECONDS) -> Received:
        """Return the request of that number, counted from 1, when it has arrived."""
        async with asyncio.timeout(within), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= number)
        return self.received[number - 1]


def status(code: int, **headers: str) -> Callable[[], Awaitable[web.Response]]:
    """Return an answer with that status."""

    async def answer() -> web.Response:
        return web.Response(status=code, headers=headers, text="as you like it")

    return answer


def held(until: asyncio.Event) -> Callable[[], Awaitable[web.Response]]:
    """Return an answer of 200 that is sent when the event is set."""

    async def answer() -> web.Response:
        await until.wait()
        return web.Response(status=200)

    return answer


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Yield a receiver that listens on this machine."""
    receiver = Receiver()
    async with serving(receiver.serve) as receiver.base_url:
        yield receiver


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker process that has become ready."""

    process: WorkerProcess
    log_file: Path

    @property
    def pid(self) -> int:
        """Its process id, as it reported it."""
        return int(self.process.ready["pid"])

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every line of its log so far."""
        return [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]

    async def ended(self) -> int:
        """Return its exit code when it has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process._process.wait()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the JSON of one of its probes."""
        url = f"{self.process.ready['health_url']}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.json()

    async def figures(self) -> Figures:
        """Return its figures as Prometheus reads them."""
        url = f"{self.process.ready['health_url']}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return read(await response.text())


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """An installation and the URLs of its servers."""

    installation: Installation
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    folder: Path

    @property
    def pool(self) -> "Pool[asyncpg.Record]":
        """The pool on the database of this test."""
        return self.installation.pool

    def worker(self, **changes: str) -> AbstractAsyncContextManager[Worker]:
        """Return a context manager that runs a worker process with these settings changed."""
        return self.worker_by(forked.worker, **changes)

    def worker_by(self, start: Start, /, **changes: str) -> AbstractAsyncContextManager[Worker]:
        """Return the same for a worker that this function starts."""
        return self._working(start, changes)

    def started_worker(self, **changes: str) -> AbstractAsyncContextManager[Worker]:
        """Return the same in a newly started Python, so that its command line and environment are its own."""
        return self._working(start_worker, changes)

    def broken_worker(self, loop: str) -> AbstractAsyncContextManager[Worker]:
        """Return the same for a worker whose loop of that name dies at each pass."""
        return self._working(partial(forked.worker, module="tests.worker.broken_worker"), {"BROKEN": loop})

    @asynccontextmanager
    async def _working(self, start: Start, changes: Mapping[str, str]) -> AsyncIterator[Worker]:
        log_file = self.folder / f"worker-{next(_LOGS)}.log"
        variables = os.environ | environment(self.database_url, self.redis_url, **changes)
        async with worker_process(variables, log_file, start=start) as process:
            yield Worker(process=process, log_file=log_file)

    async def endpoint(
        self, url: str, *, tenant: str = "acme", timeout_ms: int = 1000, secret: SecretMaterial | None = None
    ) -> AddedEndpoint:
        """Add an endpoint that subscribes to everything."""
        new = NewEndpoint(tenant_id=TenantId(tenant), url=url, event_types=("*",), timeout_ms=timeout_ms)
        return await self.installation.add(new, secret)

    async def rotate(self, added: AddedEndpoint, *, overlap_seconds: int = 0) -> RotationResult:
        """Rotate the secret of the endpoint; by default the previous one is revoked."""
        of = added.pointer
        return await self.installation.rotate(of.endpoint_id, tenant=of.tenant_id, overlap_seconds=overlap_seconds)

    async def publish(self, tenant: str = "acme", *, rung: bool = True) -> tuple[Ring, ...]:
        """Publish an event, ring its due deliveries by default, and return all deliveries."""
        published = await self.installation.published(tenant)
        if rung:
            ringing = bell(self.redis_url)
            await ringing.ring(published.due)
            await ringing.close()
        return published.deliveries

    async def state(self, ring: Ring, wanted: str, *, waiting_for: str | None = None) -> asyncpg.Record:
        """Return the delivery when it is in that state."""

        async def look() -> asyncpg.Record | None:
            row = await self.installation.delivery(ring)
            return row if (row["state"], row["waiting_for"]) == (wanted, waiting_for) else None

        return await eventually(look, within=PATIENCE_SECONDS)

    async def tried(self, ring: Ring) -> asyncpg.Record:
        """Return the delivery when it is pending again after an attempt."""

        async def look() -> asyncpg.Record | None:
            row = await self.installation.delivery(ring)
            return row if row["state"] == "pending" and row["attempts"] else None

        return await eventually(look, within=PATIENCE_SECONDS)


async def world(pool: "Pool[asyncpg.Record]", database_url: str, redis_url: str, folder: Path) -> World:
    """Initialise an installation."""
    return World(installation=await begin(pool), database_url=database_url, redis_url=redis_url, folder=folder)
