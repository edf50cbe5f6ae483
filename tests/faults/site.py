"""What a fault test runs on: an installation, a receiver that records, a fleet of workers, and a producer."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Unpack
from uuid import uuid4

import asyncpg
from aiohttp import web
from redis.asyncio import Redis

from hookseal.dispatcher.core.endpoint_settings import EndpointSettings
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.embedded.postgres import postgres
from hookseal.embedded.valkey import valkey
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.postgres.translate import OUTAGES
from hookseal.receiver import VerificationError, verify
from tests.doubles.serving import serving
from tests.doubles.stored import Installation, begin
from tests.faults.comparison import Delivery, Evidence, ReceivedRequest, RecordedAttempt, Report, compare
from tests.faults.servers import Restartable, restartable
from tests.faults.tcp_proxy import Disconnector, PostgresFilter, RedisFilter, TcpProxy, tcp_proxy
from tests.worker.environment import environment
from tests.worker.fleet import Fleet, Worker, fleet
from tests.worker.waiting import PATIENCE_SECONDS, eventually

Answer = Callable[[ReceivedRequest], Awaitable[int]]


async def at_once(_request: ReceivedRequest) -> int:
    return 204


def slowly(seconds: float) -> Answer:
    async def answer(_request: ReceivedRequest) -> int:
        await asyncio.sleep(seconds)  # a slow receiver is the purpose
        return 204

    return answer


def failing_first(times: int = 1, status: int = 404) -> Answer:
    """Answer the first attempts of every delivery with that status, and later ones with 204.

    A 404 is retried and opens no breaker; ten answers 503 in a row would open it.
    """

    async def answer(request: ReceivedRequest) -> int:
        return status if request.attempt <= times else 204

    return answer


class RecordingReceiver:
    """Records `requests`; `answer` may be changed at any time, `secrets` has the secret of each path."""

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[ReceivedRequest] = []
        self.secrets: dict[str, str] = {}
        self.answer: Answer = at_once
        self._arrived = asyncio.Condition()

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        received = ReceivedRequest(
            delivery_id=request.headers["webhook-id"],
            attempt=int(request.headers["x-hookseal-attempt"]),
            path=request.path,
            digest=sha256(body).digest(),
            is_verified=self._verified(request, body),
            at=time.time(),
        )
        async with self._arrived:
            self.requests.append(received)
            self._arrived.notify_all()
        status = await self.answer(received)
        received.answered = status
        return web.Response(status=status)

    async def wait_for(self, requests: int, *, within: float = PATIENCE_SECONDS) -> list[ReceivedRequest]:
        """Return all requests so far, when there are that many. Raises `TimeoutError`."""
        async with asyncio.timeout(within), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= requests)
        return self.requests

    def of(self, delivery_id: str) -> list[ReceivedRequest]:
        return [each for each in self.requests if each.delivery_id == delivery_id]

    def _verified(self, request: web.Request, body: bytes) -> bool:
        try:
            verified = verify(body, request.headers, [self.secrets[request.path]], now=time.time())
        except (VerificationError, KeyError):
            return False
        return verified.delivery_id == request.headers["webhook-id"]


@asynccontextmanager
async def recording_receiver() -> AsyncIterator[RecordingReceiver]:
    receiver = RecordingReceiver()
    async with serving(receiver.serve) as receiver.base_url:
        yield receiver


# What a fault test runs on: an installation on real servers, a receiver, a fleet of workers and a producer.


TENANT = TenantId("acme")
FAULTY = "tests.faults.faulty_worker"  # causes the fault of the variable FAULT in itself
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
    """What a fault test runs on. `published` has the id of every delivery whose publishing was confirmed.

    `installation` is None if another version has made it.
    """

    pool: Pool
    installation: Installation | None
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    receiver: RecordingReceiver
    fleet: Fleet
    published: set[str] = field(default_factory=set)
    _number: int = 0

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
            pool=pool,
            installation=await begin(pool),
            database_url=database_url,
            redis_url=redis_url,
            receiver=receiver,
            fleet=workers,
        )
        for number in range(endpoints):
            await subscribe(site, f"/{number}", timeout_ms=timeout_ms)
        yield site


async def subscribe(site: Site, path: str, **changes: Unpack[EndpointSettings]) -> None:
    """Add an endpoint of this path of the receiver that gets every event, with these fields changed."""
    new = NewEndpoint(
        tenant_id=TENANT,
        url=site.receiver.base_url + path,
        event_types=("*",),
        settings={"backoff_base_seconds": 1, **changes},
    )
    assert site.installation is not None
    added = await site.installation.add(new)
    site.receiver.secrets[path] = added.secret.reveal().decode()


# A site whose workers reach one of their servers through a proxy, and a producer that retries until confirmed.


BATCHES_PER_SECOND = 20
# Long enough to record an attempt after an outage, so that nothing is sent twice.
SWEEP = "2"
LONG_LEASE, LONG_DRAIN = "45", "25"
_PUBLISH_AGAIN = (
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
                    rows = await self.pool.fetch(_PUBLISH_AGAIN, TENANT, 1, name, timeout=ANSWER_SECONDS)
                    self.published.update(row["id"] for row in rows)
                    return True
                return False

            await eventually(confirmed)
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
        await self.receiver.wait_for(len(self.receiver.requests) + requests)

    async def delivery_ids(self) -> set[str]:
        async def fetch() -> set[str] | None:
            with suppress(*OUTAGES):
                return {row["id"] for row in await self.pool.fetch("SELECT id::text FROM hookseal.deliveries")}
            return None

        return await eventually(fetch)


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
        pool=site.pool,
        installation=site.installation,
        database_url=site.database_url,
        redis_url=site.redis_url,
        receiver=site.receiver,
        fleet=site.fleet,
        proxy=proxy,
        disconnector=disconnector,
        server=server,
    )


async def wait_for_checks(worker: Worker, **wanted: str) -> None:
    """Return when `/readyz` reports these states of its checks; `/livez` must succeed."""
    is_ready = all(state == "ok" for state in wanted.values())

    async def look() -> bool:
        status, answer = await worker.get("/readyz")
        return (status == 200) is is_ready and wanted.items() <= answer["checks"].items()

    await eventually(look)
    assert (200, {"status": "ok"}) == await worker.get("/livez")
