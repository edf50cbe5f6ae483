"""What a fault test runs on: an installation on real servers, a receiver, a fleet of workers and a producer."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Connection
from tests.doubles.stored import Installation, begin
from tests.faults.comparison import Delivery, Evidence, RecordedAttempt, Report, compare
from tests.faults.fleet import Fleet, fleet
from tests.faults.recording_receiver import RecordingReceiver, recording_receiver
from tests.worker.environment import environment
from tests.worker.waiting import eventually

Pool = asyncpg.Pool
TENANT = TenantId("acme")
BATCH = 25
MAX_AHEAD = 2_000
POLL_SECONDS = 0.1
# The shortest lease that the settings allow: deliveries of a dead worker are due again after seven seconds.
SHORT = {
    "HOOKSEAL_LEASE_SECONDS": "7",
    "HOOKSEAL_DRAIN_SECONDS": "6",
    "HOOKSEAL_SWEEP_SECONDS": "1",
    "HOOKSEAL_LOG_LEVEL": "info",
}
LEASE_SECONDS = 7.0
# For tests in which nothing may be sent twice: a busy receiver has time to answer.
CALM = SHORT | {"HOOKSEAL_LEASE_SECONDS": "15", "HOOKSEAL_DRAIN_SECONDS": "12", "HOOKSEAL_SWEEP_SECONDS": "4"}
SHORT_TIMEOUT_MS, CALM_TIMEOUT_MS = 1000, 5000
SWEEP_SECONDS = 4.0
_PUBLISH = (
    "SELECT (hookseal.publish($1, 'invoice.paid', json_build_object('n', n))).delivery_id::text AS id"
    " FROM generate_series($2::int, $3::int) AS n"
)
_DELIVERIES = (
    "SELECT d.id::text, d.state, d.attempts, sha256(v.body) AS digest, d.lease_token IS NOT NULL AS is_leased"
    " FROM hookseal.deliveries AS d JOIN hookseal.events AS v ON v.tenant_id = d.tenant_id AND v.id = d.event_id"
)
_ATTEMPTS = "SELECT delivery_id::text, number, outcome, status, worker FROM hookseal.attempts"
_PUBLISHED_AT = (
    "SELECT d.id::text, extract(epoch FROM v.occurred_at)::float8 AS at"
    " FROM hookseal.deliveries AS d JOIN hookseal.events AS v ON v.tenant_id = d.tenant_id AND v.id = d.event_id"
)
_UNSETTLED = "SELECT count(*) FROM hookseal.deliveries WHERE state IN ('pending', 'sending')"


@dataclass(slots=True, kw_only=True)
class Site:
    """What a fault test runs on. `published` has the id of every delivery whose publishing was confirmed."""

    installation: Installation
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    receiver: RecordingReceiver
    fleet: Fleet
    published: set[str] = field(default_factory=set)
    _number: int = 0

    @property
    def pool(self) -> "Pool[asyncpg.Record]":
        """Connections of the test itself."""
        return self.installation.pool

    async def publish(
        self, events: int, *, per_second: float | None = None, connection: Connection | None = None
    ) -> list[str]:
        """Publish that many events without rings; return the ids of their deliveries, one for each endpoint and event.

        With `per_second` they are spread over time, at most `MAX_AHEAD` deliveries ahead of the receiver; with
        `connection` they are part of its transaction. Only confirmed events count as published.
        """
        loop = asyncio.get_running_loop()
        began, made = loop.time(), list[str]()
        for done in range(0, events, BATCH):
            first, count = self._number + 1, min(BATCH, events - done)
            self._number += count
            rows = await (connection or self.pool).fetch(_PUBLISH, TENANT, first, first + count - 1)
            made += [row["id"] for row in rows]
            self.published.update(made[-len(rows) :])
            if per_second is not None:
                await asyncio.sleep(max(0.0, began + (done + count) / per_second - loop.time()))  # the requested rate
                await self._wait_for_the_receiver()
        return made

    async def _wait_for_the_receiver(self) -> None:
        while len(self.published) - len(self.receiver.requests) > MAX_AHEAD:  # noqa: ASYNC110 -- it polls a difference, not an event
            await asyncio.sleep(POLL_SECONDS)

    async def count_unsettled(self) -> int:
        """Return the number of deliveries that have not ended."""
        count: int = await self.pool.fetchval(_UNSETTLED)
        return count

    async def wait_until_settled(self, *, within: float = 60.0) -> None:
        """Return when every delivery has ended and Redis is empty."""

        async def is_settled() -> bool:
            await asyncio.sleep(POLL_SECONDS)  # counting rows is expensive for the others
            return not await self.count_unsettled() and not await self.keys()

        await eventually(is_settled, within=within)

    async def keys(self) -> list[str]:
        """Return every key in Redis."""
        async with Redis.from_url(self.redis_url) as client:
            return [key.decode(errors="replace") for key in await client.keys("*")]

    async def published_and_arrived(self) -> list[tuple[float, float]]:
        """Return, for each delivery that arrived, when it was published and first arrived, in Unix seconds."""
        first: dict[str, float] = {}
        for request in self.receiver.requests:
            first.setdefault(request.delivery_id, request.at)
        rows = await self.pool.fetch(_PUBLISHED_AT)
        return [(row["at"], first[row["id"]]) for row in rows if row["id"] in first]

    async def report(self, *, dead: Collection[str] | None = None, ends: Mapping[str, State] | None = None) -> Report:
        """Compare what was published, received and recorded. Call it when everything is settled."""
        deliveries = [Delivery(**row) for row in await self.pool.fetch(_DELIVERIES)]
        attempts = [RecordedAttempt(**row) for row in await self.pool.fetch(_ATTEMPTS)]
        return compare(
            Evidence(
                published=self.published,
                requests=self.receiver.requests,
                deliveries=deliveries,
                attempts=attempts,
                redis_keys=await self.keys(),
                dead=self.fleet.dead if dead is None else dead,
                ends=ends or {},
            )
        )


@asynccontextmanager
async def open_site(
    database_url: str, redis_url: str, folder: Path, *, endpoints: int = 2, calm: bool = False, **settings: str
) -> AsyncIterator[Site]:
    """Yield an installation on these servers, in a migrated, empty database; no process runs afterwards.

    Every event goes to every endpoint. The workers' leases are as short as `SHORT`; on a `calm` site requests time out
    and leases expire only by a fault. `settings` are further settings of every worker.
    """
    timeout_ms = CALM_TIMEOUT_MS if calm else SHORT_TIMEOUT_MS
    variables = environment(database_url, redis_url, **(CALM if calm else SHORT) | settings)
    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=6) as pool,
        recording_receiver() as receiver,
        fleet(variables, folder) as workers,
    ):
        site = Site(
            installation=await begin(pool),
            database_url=database_url,
            redis_url=redis_url,
            receiver=receiver,
            fleet=workers,
        )
        for number in range(endpoints):
            await subscribe(site, f"/{number}", timeout_ms=timeout_ms)
        yield site


async def subscribe(site: Site, path: str, **changes: Any) -> None:
    """Add an endpoint of this path of the receiver that gets every event, with these fields changed."""
    new = NewEndpoint(
        tenant_id=TENANT, url=site.receiver.base_url + path, event_types=("*",), **{"backoff_base_seconds": 1} | changes
    )
    added = await site.installation.add(new)
    site.receiver.secrets[path] = added.secret.reveal().decode()
