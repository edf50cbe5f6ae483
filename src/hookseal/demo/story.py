"""The story that `hookseal demo` tells, on real parts, and the count that decides whether it was true."""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from hookseal.demo.installation import Installation, install
from hookseal.demo.process import worker_process
from hookseal.demo.receiver import Receiver, receiving
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.dispatcher.publish import Event, publish_json
from hookseal.embedded.stack import passing_stack
from hookseal.ground.clock import Clock
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoints import add_endpoint
from hookseal.queue.bell import bell
from hookseal.secrets.boot import unlock
from hookseal.secrets.ref import Provider

EVENTS: Final = 50
_PATIENCE_SECONDS: Final = 30.0
_ENDPOINTS: Final = (  # tenant, path, what it subscribes to
    ("acme", "/acme/invoices", "invoice.*"),
    ("acme", "/acme/everything", "*"),
    ("globex", "/globex/everything", "*"),
)
_EVENTS: Final = (("acme", "invoice.paid"), ("globex", "user.created"), ("acme", "user.created"))

Pool = asyncpg.Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What became of the deliveries of one endpoint. `verified` counts those with a valid signature."""

    tenant: str
    endpoint: str
    deliveries: int
    delivered: int
    verified: int
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the story ended."""

    events: int
    lines: tuple[Line, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether every endpoint got deliveries, and each was verified there and is on record, and none was refused."""
        return bool(self.lines) and all(
            line.deliveries > 0 and line.deliveries == line.delivered == line.verified and line.refused == 0
            for line in self.lines
        )


async def tell(say: Callable[[str], None], clock: Clock) -> Result:
    """Run the whole story and return how it ended; nothing is left running, and no file. Raises `Unavailable`."""
    started = clock.monotonic()
    say("starting an embedded PostgreSQL and Valkey")
    with tempfile.TemporaryDirectory(prefix="hookseal-demo-") as name:
        folder = Path(name)
        async with passing_stack() as stack, receiving() as receiver:
            say("migrating, and making a master key")
            installation = await install(stack, folder)
            say("starting a worker process")
            environment = installation.environment(os.environ)
            async with (
                worker_process(environment, folder / "worker.log"),
                asyncpg.create_pool(stack.postgres.url, min_size=1, max_size=4) as pool,
            ):
                paths = await _add_endpoints(pool, installation, receiver)
                say(f"publishing {EVENTS} events for two tenants")
                expected = await _publish(pool, installation)
                await _settle(pool, receiver, sum(expected.values()), clock)
                lines = [await _line(pool, receiver, path, expected[endpoint]) for endpoint, path in paths.items()]
        say("stopped everything")
    return Result(events=EVENTS, lines=tuple(lines), seconds=clock.monotonic() - started)


async def _add_endpoints(
    pool: "Pool[asyncpg.Record]", installation: Installation, receiver: Receiver
) -> dict[str, str]:
    unlocked = await unlock(pool, Provider.DB, installation.keyring)
    paths: dict[str, str] = {}
    for tenant, path, subscription in _ENDPOINTS:
        endpoint = NewEndpoint(
            tenant_id=TenantId(tenant),
            url=receiver.base_url + path,
            event_types=(subscription,),
            name=None,
            timeout_ms=5000,
        )
        async with pool.acquire() as connection:
            added = await add_endpoint(connection, unlocked, endpoint, None)
        receiver.expect(path, added.secret.reveal().decode("ascii"))
        paths[added.pointer.endpoint_id] = path
    return paths


async def _publish(pool: "Pool[asyncpg.Record]", installation: Installation) -> Counter[str]:
    """Publish and ring; return the number of deliveries by endpoint id, as PostgreSQL made them."""
    expected: Counter[str] = Counter()
    ringing = bell(installation.redis_url)
    try:
        for number in range(EVENTS):
            tenant, event_type = _EVENTS[number % len(_EVENTS)]
            event = Event(tenant_id=TenantId(tenant), event_type=event_type, correlation_id=f"demo-{number}")
            published = await publish_json(pool, event, f'{{"number": {number}}}')
            await ringing.ring(published.deliveries)
            expected.update(ring.endpoint_id for ring in published.deliveries)
    finally:
        await ringing.close()
    return expected


async def _settle(pool: "Pool[asyncpg.Record]", receiver: Receiver, expected: int, clock: Clock) -> None:
    """Return once every delivery arrived and its outcome is on record, or after the patience is over."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await receiver.wait_for(expected)
            while await pool.fetchval("SELECT count(*) FROM hookseal.deliveries WHERE state IN ('pending', 'sending')"):
                await clock.sleep(0.02)
    except TimeoutError:
        pass  # the counts tell what is missing


async def _line(pool: "Pool[asyncpg.Record]", receiver: Receiver, path: str, deliveries: int) -> Line:
    delivered = await pool.fetchval(
        "SELECT count(*) FROM hookseal.deliveries AS d JOIN hookseal.endpoints AS e ON e.id = d.endpoint_id"
        " WHERE e.url = $1 AND d.state = 'delivered'",
        receiver.base_url + path,
    )
    return Line(
        tenant=path.split("/")[1],
        endpoint=path,
        deliveries=deliveries,
        delivered=delivered,
        verified=len(receiver.verified[path]),
        refused=receiver.refused[path],
    )
