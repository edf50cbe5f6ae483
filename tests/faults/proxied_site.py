"""A site whose workers reach one of their servers through a proxy, and a producer that retries until confirmed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from hookseal.embedded.postgres import postgres
from hookseal.embedded.valkey import valkey
from hookseal.postgres.pool import ANSWER_SECONDS
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.postgres.translate import OUTAGES
from tests.faults.disconnects import Disconnector, PostgresFilter, RedisFilter
from tests.faults.fleet import WorkerProcess
from tests.faults.servers import Restartable, restartable
from tests.faults.site import TENANT, Site, open_site
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.worker.waiting import eventually

PATIENCE_SECONDS = 60.0
BATCHES_PER_SECOND = 20
# Long enough to record an attempt after an outage, so that nothing is sent twice.
SWEEP = "2"
LONG_LEASE, LONG_DRAIN = "45", "25"
_PUBLISH = (
    "SELECT delivery_id::text AS id FROM hookseal.publish($1, 'invoice.paid', json_build_object('n', $2::int),"
    " event_id => $3)"
)


@dataclass(slots=True, kw_only=True)
class ProxiedSite(Site):
    """A site, the proxy to one of its servers, the disconnector of the proxy, and the server itself.

    `events` counts the events whose publishing was confirmed.
    """

    proxy: TcpProxy
    disconnector: Disconnector
    server: Restartable
    events: int = 0

    async def publish_until_confirmed(self, events: int, *, names: Sequence[str] = ()) -> Sequence[str]:
        """Publish as a producer should: again with the same id until it is confirmed; return the ids."""
        names = names or [uuid4().hex for _ in range(events)]
        for name in names:

            async def confirmed(name: str = name) -> bool:
                with suppress(*OUTAGES):
                    rows = await self.pool.fetch(_PUBLISH, TENANT, 1, name, timeout=ANSWER_SECONDS)
                    self.published.update(row["id"] for row in rows)
                    return True
                return False

            await eventually(confirmed, within=PATIENCE_SECONDS)
        self.events += len(names)
        return names

    @asynccontextmanager
    async def publishing(self, per_second: int = BATCHES_PER_SECOND) -> AsyncIterator[None]:
        """Publish that many events a second during the block, each until it is confirmed."""
        ended = asyncio.Event()

        async def publish() -> None:
            while not ended.is_set():
                await self.publish_until_confirmed(max(1, per_second // BATCHES_PER_SECOND))
                await asyncio.sleep(1 / min(per_second, BATCHES_PER_SECOND))  # the requested rate

        task = asyncio.create_task(publish())
        try:
            yield
        finally:
            ended.set()
            await task

    async def wait_for_requests(self, requests: int = 1) -> None:
        """Return when that many more requests have arrived."""
        await self.receiver.wait_for(len(self.receiver.requests) + requests, within=PATIENCE_SECONDS)

    async def delivery_ids(self) -> set[str]:
        """Return the id of every delivery in the database."""

        async def fetch() -> set[str] | None:
            with suppress(*OUTAGES):
                return {row["id"] for row in await self.pool.fetch("SELECT id::text FROM hookseal.deliveries")}
            return None

        return await eventually(fetch, within=PATIENCE_SECONDS)


@asynccontextmanager
async def site_with_redis_proxy(database_url: str, folder: Path) -> AsyncIterator[ProxiedSite]:
    """Yield a site on a durable Redis of its own, which its workers reach through a proxy."""
    disconnector = Disconnector()
    async with (
        restartable(valkey, durable=True) as redis,
        tcp_proxy(redis.server.port, lambda: RedisFilter(disconnector)) as proxy,
        open_site(
            database_url,
            redis.server.url,
            folder,
            calm=True,
            HOOKSEAL_SWEEP_SECONDS=SWEEP,
            REDIS_URL=proxy.url(redis.server.url),
        ) as site,
    ):
        yield _proxied(site, proxy, disconnector, redis)


@asynccontextmanager
async def site_with_postgres_proxy(
    redis_url: str, folder: Path, *, lease_seconds: str = LONG_LEASE, drain_seconds: str = LONG_DRAIN
) -> AsyncIterator[ProxiedSite]:
    """Yield a site on a PostgreSQL of its own, which all its clients reach through a proxy."""
    disconnector = Disconnector()
    async with (
        restartable(postgres, durable=True) as database,
        tcp_proxy(database.server.port, lambda: PostgresFilter(disconnector)) as proxy,
    ):
        await upgrade(database.server.url)
        async with open_site(
            proxy.url(database.server.url),
            redis_url,
            folder,
            calm=True,
            HOOKSEAL_SWEEP_SECONDS=SWEEP,
            HOOKSEAL_LEASE_SECONDS=lease_seconds,
            HOOKSEAL_DRAIN_SECONDS=drain_seconds,
        ) as site:
            yield _proxied(site, proxy, disconnector, database)


def _proxied(site: Site, proxy: TcpProxy, disconnector: Disconnector, server: Restartable) -> ProxiedSite:
    return ProxiedSite(
        installation=site.installation,
        database_url=site.database_url,
        redis_url=site.redis_url,
        receiver=site.receiver,
        fleet=site.fleet,
        proxy=proxy,
        disconnector=disconnector,
        server=server,
    )


async def wait_for_checks(worker: WorkerProcess, **wanted: str) -> None:
    """Return when `/readyz` reports these states of its checks; `/livez` must succeed."""
    is_ready = all(state == "ok" for state in wanted.values())

    async def look() -> bool:
        status, answer = await probed(worker, "/readyz")
        return (status == 200) is is_ready and wanted.items() <= answer["checks"].items()

    await eventually(look, within=PATIENCE_SECONDS)
    assert (200, {"status": "ok"}) == await probed(worker, "/livez")


async def probed(worker: WorkerProcess, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of one of its probes."""
    async with aiohttp.ClientSession() as session, session.get(worker.ready["health_url"] + path) as response:
        return response.status, await response.json()
