"""A site whose workers reach one of their servers through a line, and a producer that retries until it is confirmed."""

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
from hookseal.postgres.handles import ANSWER_SECONDS
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.postgres.translate import OUTAGES
from tests.faults.cutting import OnPostgres, OnRedis, Scissors
from tests.faults.fleet import Member
from tests.faults.servers import Restartable, restartable
from tests.faults.site import TENANT, Site, opened
from tests.faults.tcp_proxy import Line, line
from tests.worker.waiting import eventually

PATIENCE_SECONDS = 60.0
BEATS_PER_SECOND = 20
# Long enough to record an attempt after an outage, so that nothing is sent twice.
SWEEP = "2"
PATIENT_LEASE, PATIENT_DRAIN = "45", "25"
_PUBLISH = (
    "SELECT delivery_id::text AS id FROM hookseal.publish($1, 'invoice.paid', json_build_object('n', $2::int),"
    " event_id => $3)"
)


@dataclass(slots=True, kw_only=True)
class Way(Site):
    """A site, the line to one of its servers, the scissors that can cut it, and the server itself.

    `events` counts the events that were published with confirmation.
    """

    line: Line
    scissors: Scissors
    server: Restartable
    events: int = 0

    async def publish_surely(self, events: int, *, names: Sequence[str] = ()) -> Sequence[str]:
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
    async def flow(self, per_second: int = BEATS_PER_SECOND) -> AsyncIterator[None]:
        """Publish that many events a second, with confirmation, during the block."""
        ended = asyncio.Event()

        async def steadily() -> None:
            while not ended.is_set():
                await self.publish_surely(max(1, per_second // BEATS_PER_SECOND))
                await asyncio.sleep(1 / BEATS_PER_SECOND)  # the requested rate

        publishing = asyncio.create_task(steadily())
        try:
            yield
        finally:
            ended.set()
            await publishing

    async def flowing(self, requests: int = 1) -> None:
        """Return when that many more requests have arrived."""
        await self.witness.wait_for(len(self.witness.seen) + requests, within=PATIENCE_SECONDS)

    async def delivery_ids(self) -> set[str]:
        """Return the id of every delivery in the database."""

        async def look() -> set[str] | None:
            with suppress(*OUTAGES):
                return {row["id"] for row in await self.pool.fetch("SELECT id::text FROM hookseal.deliveries")}
            return None

        return await eventually(look, within=PATIENCE_SECONDS)


@asynccontextmanager
async def way_to_redis(database_url: str, folder: Path) -> AsyncIterator[Way]:
    """Yield a site on a durable Redis of its own, which its workers reach through the line."""
    scissors = Scissors()
    async with (
        restartable(valkey, durable=True) as redis,
        line(redis.server.port, lambda: OnRedis(scissors)) as wire,
        opened(
            database_url,
            redis.server.url,
            folder,
            calm=True,
            HOOKSEAL_SWEEP_SECONDS=SWEEP,
            REDIS_URL=wire.url(redis.server.url),
        ) as site,
    ):
        yield _way(site, wire, scissors, redis)


@asynccontextmanager
async def way_to_postgres(
    redis_url: str, folder: Path, *, lease_seconds: str = PATIENT_LEASE, drain_seconds: str = PATIENT_DRAIN
) -> AsyncIterator[Way]:
    """Yield a site on a PostgreSQL of its own, which all its users reach through the line."""
    scissors = Scissors()
    async with (
        restartable(postgres, durable=True) as database,
        line(database.server.port, lambda: OnPostgres(scissors)) as wire,
    ):
        await upgrade(database.server.url)
        async with opened(
            wire.url(database.server.url),
            redis_url,
            folder,
            calm=True,
            HOOKSEAL_SWEEP_SECONDS=SWEEP,
            HOOKSEAL_LEASE_SECONDS=lease_seconds,
            HOOKSEAL_DRAIN_SECONDS=drain_seconds,
        ) as site:
            yield _way(site, wire, scissors, database)


def _way(site: Site, wire: Line, scissors: Scissors, server: Restartable) -> Way:
    return Way(
        installation=site.installation,
        database_url=site.database_url,
        redis_url=site.redis_url,
        witness=site.witness,
        fleet=site.fleet,
        line=wire,
        scissors=scissors,
        server=server,
    )


async def says(member: Member, **wanted: str) -> None:
    """Return when the worker reports these states of its checks; it must live."""
    ready = all(state == "ok" for state in wanted.values())

    async def look() -> bool:
        status, was_ready = await probed(member, "/readyz")
        return (status == 200) is ready and wanted.items() <= was_ready["checks"].items()

    await eventually(look, within=PATIENCE_SECONDS)
    assert (200, {"status": "ok"}) == await probed(member, "/livez")


async def probed(member: Member, path: str) -> tuple[int, dict[str, Any]]:
    """Return the answer of one of its probes."""
    async with aiohttp.ClientSession() as session, session.get(member.ready["health_url"] + path) as response:
        return response.status, await response.json()
