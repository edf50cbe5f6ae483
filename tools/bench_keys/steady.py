"""A steady stream of deliveries by a real worker, and the results of those that were published in a period."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiohttp

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.publish import Event, publish_json
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Pool
from hookseal.queue.bell import Bell

ENDPOINTS: Final = 32
_TENANT: Final = TenantId("steady")
_DRAIN_SECONDS: Final = 25
_PATIENCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_FAILURES: Final = re.compile(r"^hookseal_secret_failures_total\S* (\S+)$", re.MULTILINE)
_UNSETTLED: Final = "SELECT count(*) FROM hookseal.deliveries WHERE state IN ('pending', 'sending')"
_NOT_AT_ONCE: Final = (
    "SELECT count(*) FROM hookseal.deliveries AS d WHERE d.state <> 'delivered' OR d.attempts <> 1"
    " OR d.waiting_for IS NOT NULL"
)
_WHILE: Final = (
    "SELECT count(*) AS deliveries,"
    "       percentile_cont(0.5) WITHIN GROUP (ORDER BY took.ms) AS p50_ms,"
    "       percentile_cont(0.99) WITHIN GROUP (ORDER BY took.ms) AS p99_ms"
    "  FROM hookseal.events AS e"
    "  JOIN hookseal.deliveries AS d ON d.tenant_id = e.tenant_id AND d.event_id = e.id"
    "  JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id"
    " CROSS JOIN LATERAL (SELECT 1000 * extract(epoch FROM a.started_at - e.occurred_at)::float8 + a.duration_ms AS ms)"
    "    AS took"
    " WHERE e.occurred_at BETWEEN $1 AND $2"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A period, by the clock of the database."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.begin).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The deliveries that were published in a period: how many a second, and how long each took."""

    per_second: float
    p50_ms: float
    p99_ms: float


async def subscribe(operator: Operator, url: str) -> None:
    """Add the endpoints, each for its own event type."""
    for number in range(ENDPOINTS):
        new = NewEndpoint(tenant_id=_TENANT, url=f"{url}{number}", event_types=(f"steady.n{number}",))
        await add_endpoint(operator, new, None, own_drain_seconds=_DRAIN_SECONDS)


@asynccontextmanager
async def streaming(pool: Pool, ringing: Bell, per_second: float) -> AsyncIterator[None]:
    """Publish that many events a second for the length of the block, for one endpoint after the other."""
    over = asyncio.Event()
    publishing = asyncio.create_task(_flow(pool, ringing, per_second, over))
    try:
        yield
    finally:
        over.set()
        await publishing


async def _flow(pool: Pool, ringing: Bell, per_second: float, over: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    due, number = loop.time(), 0
    while not over.is_set():
        event = Event(tenant_id=_TENANT, event_type=f"steady.n{number % ENDPOINTS}")
        await ringing.ring((await publish_json(pool, event, "{}")).deliveries)
        number += 1
        due += 1 / per_second
        await asyncio.sleep(max(0.0, due - loop.time()))


async def settled(pool: Pool) -> None:
    """Return once no delivery is pending or being sent. Raises `TimeoutError`."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while await pool.fetchval(_UNSETTLED):  # noqa: ASYNC110 -- a table tells nobody when it changes
            await asyncio.sleep(_LOOK_SECONDS)


async def stream(pool: Pool, of: Period) -> Stream:
    """Return the results of the events published in that period; all zero if there were none."""
    [row] = await pool.fetch(_WHILE, of.begin, of.end)
    rate, p50, p99 = row["deliveries"] / of.seconds, row["p50_ms"] or 0.0, row["p99_ms"] or 0.0
    return Stream(per_second=round(rate, 1), p50_ms=round(p50, 2), p99_ms=round(p99, 2))


async def failures(pool: Pool, metrics_url: str, log: str) -> int:
    """Return how often a secret was not available: by the worker's metrics, its log, and failed or held deliveries."""
    async with aiohttp.ClientSession() as session, session.get(metrics_url) as response:
        refused = sum(float(value) for value in _FAILURES.findall(await response.text()))
    waited = log.count('"delivery.waiting"')
    return int(refused) + waited + int(await pool.fetchval(_NOT_AT_ONCE))
