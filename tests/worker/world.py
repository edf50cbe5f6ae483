"""An initialised installation in the database of a test, worker processes on it, and a receiver on this machine."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from aiohttp import web

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import AddedEndpoint
from hookseal.postgres.pool import Pool
from hookseal.queue.bell import bell
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.endpoint.rotation import RotationResult
from tests import rows
from tests.doubles.serving import serving
from tests.doubles.stored import Installation, begin
from tests.worker.environment import environment
from tests.worker.fleet import HOOKSEAL, Worker, start
from tests.worker.waiting import PATIENCE_SECONDS, eventually

QUICK = "tests.worker.quick_worker"
DRAIN_SECONDS = 35.0  # longer than the drain of a worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as the receiver got it, with the names of its headers in lower case."""

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
        got = Received(
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
        )
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
    receiver = Receiver()
    async with serving(receiver.serve) as receiver.base_url:
        yield receiver


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """An installation and the URLs of its servers."""

    installation: Installation
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    folder: Path

    @property
    def pool(self) -> Pool:
        return self.installation.pool

    @asynccontextmanager
    async def worker(self, *, module: str = HOOKSEAL, **changes: str) -> AsyncIterator[Worker]:
        """Run a worker with these settings changed, or another module that becomes one; afterwards it has ended."""
        worker = await start(environment(self.database_url, self.redis_url, **changes), self.folder, module=module)
        try:
            await worker.wait_until_ready()
            yield worker
        finally:
            worker.send(signal.SIGTERM)
            try:
                await worker.ended(within=DRAIN_SECONDS)
            finally:
                worker.send(signal.SIGKILL)

    async def endpoint(
        self, url: str, *, tenant: str = "acme", timeout_ms: int = 10_000, secret: SecretMaterial | None = None
    ) -> AddedEndpoint:
        new = NewEndpoint(tenant_id=TenantId(tenant), url=url, event_types=("*",), settings={"timeout_ms": timeout_ms})
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

    async def deliver(self, tenant: str = "acme") -> Ring:
        """Publish an event for the only endpoint of a tenant, and return its delivery when it is delivered."""
        [ring] = await self.publish(tenant)
        await self.delivered(ring)
        return ring

    async def delivered(self, *rings: Ring) -> None:
        """Return when these deliveries are delivered."""
        for ring in rings:
            await self.state(ring, "delivered")

    async def expire_leases(self) -> None:
        """End the lease of every claim, as the sweep does once it takes the worker for dead."""
        await rows.change(self.pool, "deliveries", where="state = 'sending'", lease_expires_at=rows.NOW)
        await PostgresLedger(self.pool, worker="w-1", lease_seconds=45).end_lost_leases()

    async def probe_held(self) -> None:
        """Make the probes of all held endpoints due now."""
        await rows.change(self.pool, "held_endpoints", probe_at=rows.NOW)

    async def state(self, ring: Ring, wanted: str, *, waiting_for: str | None = None) -> asyncpg.Record:
        async def look() -> asyncpg.Record | None:
            row = await self.installation.delivery(ring)
            return row if (row["state"], row["waiting_for"]) == (wanted, waiting_for) else None

        return await eventually(look)

    async def tried(self, ring: Ring) -> asyncpg.Record:
        """Return the delivery when it is pending again after an attempt."""

        async def look() -> asyncpg.Record | None:
            row = await self.installation.delivery(ring)
            return row if row["state"] == "pending" and row["attempts"] else None

        return await eventually(look)


async def world(pool: Pool, database_url: str, redis_url: str, folder: Path) -> World:
    return World(installation=await begin(pool), database_url=database_url, redis_url=redis_url, folder=folder)
