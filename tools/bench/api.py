"""What the HTTP API and the pages cost: messages at full speed and at a rate, reads of large tables, slow clients."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from hookseal.demo.process import api_process
from hookseal.dispatcher.store import tokens
from hookseal.dispatcher.store.tokens import NewPortal, NewToken, Scope
from hookseal.ground.ids import EVERY_TENANT, TenantId
from hookseal.operations.operator import Operator
from hookseal.operations.tokens import add_portal, add_token
from hookseal.pages.views.entry import COOKIE
from hookseal.postgres.pool import Connection
from tools.bench import bodies
from tools.bench.caller import NUMBER, ORDER, Order
from tools.bench.plan import BY_16_TASKS, BY_MANY, ONE
from tools.bench.results import P99_MS, PAGE, Round
from tools.harness import (
    API,
    CALLER,
    EVENT,
    KB,
    POSTGRESQL,
    REDIS,
    WORKER,
    Meter,
    Site,
    environment_of,
    line,
    module,
    operator_of,
    resident_mb,
)

CONNECTIONS: Final = 64
SLOW_CLIENTS: Final = 400
BESIDE: Final = {BY_16_TASKS: "publisher-16", BY_MANY: "publisher-many"}  # the producer's ways of the contenders
_PATIENCE_SECONDS: Final = 60.0
_WARM_UP: Final = 20
_SETTLE_SECONDS: Final = 1.0
SLOW_SECONDS: Final = 6.0  # at most: a body may take ten, and none of the slow requests may end while it is measured
_AT_ONCE: Final = 100_000  # deliveries in a statement
_OF_ONE_EVENT: Final = 20
_ENDPOINTS: Final = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)
SELECT $1, hookseal.uuid7(), 'https://receiver.example/of/' || n, '{*}' FROM generate_series(1, $2::int) AS n
"""
# Deliveries that succeeded at once, as a worker leaves them, to the first endpoints. No trigger and no foreign key
# runs: they would take most of the time.
_DELIVERIES: Final = """
WITH published AS (
    INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)
    SELECT $1, hookseal.uuid7()::text, $4, clock_timestamp(), $2::bytea, sha256($2::bytea)
    FROM generate_series(1, $3::int)
    RETURNING id
), ended AS (
    INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, attempts, budget_spent,
                                     next_attempt_at, finished_at)
    SELECT $1, hookseal.uuid7(), e.id, published.id, 'delivered', 1, 1, NULL, now()
    FROM published
    CROSS JOIN (SELECT id FROM hookseal.endpoints WHERE tenant_id = $1 ORDER BY id LIMIT $5) AS e
    RETURNING id, endpoint_id, event_id
), linked AS (
    INSERT INTO hookseal.delivery_links (tenant_id, id, endpoint_id, event_id)
    SELECT $1, id, endpoint_id, event_id FROM ended
)
INSERT INTO hookseal.attempts
    (tenant_id, delivery_id, number, started_at, duration_ms, status, outcome, signed_by, worker, endpoint_id)
SELECT $1, id, 1, clock_timestamp(), 3, 204, 'delivered',
       ARRAY[format('db:%s:webhook-endpoint-%s:1', $1::text, endpoint_id)], 'a-worker-of-the-benchmark', endpoint_id
FROM ended
"""
_NAMED: Final = """
SELECT l.endpoint_id::text AS endpoint, l.event_id AS event, l.id::text AS delivery
FROM hookseal.delivery_links AS l WHERE l.tenant_id = $1
ORDER BY l.tenant_id, l.event_id, l.endpoint_id LIMIT 1
"""
_SESSION_SECONDS: Final = 86_400
# Pages with what a page reads most of: lists, counts, and searches in vain.
_PAGES: Final = {
    "endpoints": "/",
    "endpoint": "/endpoint/{endpoint}",
    "secret": "/endpoint/{endpoint}/secret",
    "delivery": "/delivery/{delivery}",
    "search": "/deliveries?type=no.such",
    "recover": "/endpoint/{endpoint}/recover?since=2020-01-01T00:00",
}
_OPERATOR_PAGES: Final = {
    "overview": "/operator",
    "operator search": "/operator/deliveries?tenant={tenant}&type=no.such",
    "tenant": "/operator/tenant/{tenant}",
    "replay": "/operator/tenant/{tenant}/replay?since=2020-01-01T00:00&states=delivered",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Api:
    """A process of the API on a database with one endpoint, and what is read of it."""

    site: Site
    observer: Connection
    environment: Mapping[str, str]
    pid: int
    url: str
    token: str
    tenant: str
    customer: str  # the cookies of two visitors of the pages
    operator: str

    @property
    def meter(self) -> Meter:
        """Reads the CPU of the process, which it calls that of a worker."""
        return Meter(self.site, self.observer, self.pid)

    @property
    def message(self) -> dict[str, dict[str, Any]]:
        """The request of a message, for an order."""
        body = f'{{"eventType":"{EVENT}","payload":{bodies.order(KB)}}}'
        return {"message.create": {"method": "POST", "path": f"/api/v1/app/{self.tenant}/msg", "body": body}}

    @asynccontextmanager
    async def caller(
        self, way: str, requests: dict[str, Any], **more: Any
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a client for the length of the block."""
        order = Order(way=way, url=self.url, token=self.token, requests=requests, **more)
        environment = {**os.environ, ORDER: json.dumps(asdict(order))}
        async with module("tools.bench.caller", environment=environment, log_file=self._log) as process:
            yield process

    async def called(self, way: str, requests: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return what a client reports at its end. Raises `RuntimeError` if a request failed."""
        async with self.caller(way, requests, **more) as process:
            patience = more.get("seconds", 0.0) + more.get("times", 0) + _PATIENCE_SECONDS
            result: dict[str, Any] = json.loads(await line(process, self._log, patience))
        if result["failed"]:
            raise RuntimeError(f"{result['failed']} requests were not answered with 2xx")
        return result

    @property
    def _log(self) -> Any:
        return self.site.folder / "caller.log"


@asynccontextmanager
async def _serving(site: Site, *, endpoints: int = 0, deliveries: int = 0) -> AsyncIterator[_Api]:
    """Run the API as installed, on a database to which so many endpoints and deliveries are added."""
    async with site.with_endpoints(ONE) as (installation, observer):
        [tenant] = ONE.names
        await _fill(observer, tenant, endpoints, deliveries)
        text = tokens.drawn(os.urandom)
        digest = tokens.digest(text)
        new = NewToken(name="bench", tenant_id=EVERY_TENANT, scopes=tuple(Scope), expires_at=None, digest=digest)
        operator = await operator_of(observer, installation.keyring)
        await add_token(operator, new)
        customer = await _session(operator, TenantId(tenant), Scope.READ, Scope.MANAGE, Scope.OPERATE)
        on_call = await _session(operator, EVERY_TENANT, Scope.READ, Scope.OPERATE)
        environment = environment_of(installation, site.receiver)
        environment |= {"HOOKSEAL_API_PORT": "0", "HOOKSEAL_API_RATE": "1000000"}  # one token makes all messages
        async with api_process(environment, site.folder / "api.log") as process:
            yield _Api(
                site=site,
                observer=observer,
                environment=environment,
                pid=int(process.ready["pid"]),
                url=str(process.ready["url"]),
                token=text.decode(),
                tenant=tenant,
                customer=customer,
                operator=on_call,
            )


async def _session(operator: Operator, tenant: TenantId, *scopes: Scope) -> str:
    """Return the cookie of a visitor who may do this for the tenant."""
    text, code = tokens.drawn(os.urandom), tokens.drawn_code(os.urandom)
    new = NewPortal(
        tenant_id=tenant,
        scopes=scopes,
        seconds=_SESSION_SECONDS,
        not_after=None,
        user="bench",
        session_id=None,
        refresh_url=None,
        digest=tokens.digest(text),
        code_digest=tokens.digest(code),
    )
    await add_portal(operator, new)
    return f"{COOKIE}={text.decode()}"


async def _fill(observer: Connection, tenant: str, endpoints: int, deliveries: int) -> None:
    if not endpoints:
        return
    await observer.execute(_ENDPOINTS, tenant, endpoints)
    left, body = deliveries, bodies.order(KB).encode()
    while left > 0:
        number = min(left, _AT_ONCE)
        async with observer.transaction():
            await observer.execute("SET LOCAL session_replication_role = replica")
            await observer.execute(_DELIVERIES, tenant, body, number // _OF_ONE_EVENT, EVENT, _OF_ONE_EVENT)
        left -= number
    await observer.execute("VACUUM (ANALYZE)")
    await observer.execute("CHECKPOINT")


async def messages(site: Site, seconds: float) -> Round:
    """Return the cost of a message: 64 connections send one after the other as fast as they are answered."""
    async with _serving(site) as api:
        meter = api.meter
        before = await meter.read()
        result = await api.called("full-speed", api.message, seconds=seconds, connections=CONNECTIONS, warm_up=_WARM_UP)
        cost, memory = before.until(await meter.read()), resident_mb([api.pid])
    [call] = result["calls"].values()
    counted = call["number"] / (call["number"] + _WARM_UP)
    parts = {WORKER: API, POSTGRESQL: POSTGRESQL, REDIS: REDIS}
    cpu = {name: cost.cpu[part] * counted for part, name in parts.items()}
    return Round(
        deliveries=call["number"],
        seconds=result["seconds"],
        cpu=cpu | {CALLER: result["cpu_seconds"]},
        figures={"p50_ms": call["p50_ms"], "p99_ms": call["p99_ms"], "resident_mb": memory},
    )


async def steady(site: Site, per_second: float, seconds: float) -> Round:
    """Return the milliseconds of a message at a steady rate."""
    async with _serving(site) as api:
        result = await api.called(
            "at-a-rate", api.message, seconds=seconds, per_second=per_second, connections=4, warm_up=_WARM_UP
        )
    [call] = result["calls"].values()
    return Round(
        deliveries=call["number"],
        seconds=result["seconds"],
        figures={"p50_ms": call["p50_ms"], "p99_ms": call["p99_ms"]},
    )


async def slow(site: Site, seconds: float) -> Round:
    """Return the CPU of the server while 400 clients send the body of a message byte by byte, one a second."""
    more = {"connections": SLOW_CLIENTS, "seconds": _SETTLE_SECONDS + seconds + _PATIENCE_SECONDS}
    async with _serving(site) as api, api.caller("slow", api.message, **more) as process:
        await line(process, site.folder / "caller.log")
        await asyncio.sleep(_SETTLE_SECONDS)
        meter = api.meter
        before = meter.cpu()[WORKER]
        await asyncio.sleep(seconds)
        used = meter.cpu()[WORKER] - before
    return Round(seconds=seconds, figures={"api_cpu_percent": used * 100 / seconds})


async def reads(site: Site, endpoints: int, deliveries: int, times: int) -> Round:
    """Return the p99 of lists, of pages, and of adding an endpoint, one call after the other, on tables of that size.

    Twenty of the endpoints have all deliveries, and one attempt of each.
    """
    async with _serving(site, endpoints=endpoints, deliveries=deliveries) as api:
        named = await api.observer.fetchrow(_NAMED, api.tenant)
        assert named is not None  # noqa: S101 -- it has endpoints and events
        of = f"/api/v1/app/{api.tenant}"
        endpoint, event = named["endpoint"], named["event"]
        paths = {
            "application.list": "/api/v1/app",
            "endpoint.list": f"{of}/endpoint",
            "message.list": f"{of}/msg?with_content=false",
            "message_attempt.list_by_endpoint": f"{of}/attempt/endpoint/{endpoint}",
            "message_attempt.list_by_msg": f"{of}/attempt/msg/{event}",
            "message_attempt.list_attempted_messages": f"{of}/endpoint/{endpoint}/msg?with_content=false",
            "message_attempt.list_attempted_destinations": f"{of}/msg/{event}/endpoint",
            "message.list in vain": f"{of}/msg?with_content=false&event_types=no.such",
            "message_attempt.list_by_endpoint in vain": f"{of}/attempt/endpoint/{endpoint}?event_types=no.such",
            "message_attempt.list_attempted_messages in vain": f"{of}/endpoint/{endpoint}/msg?event_types=no.such",
            "hookseal.delivery.list in vain": f"/api/hookseal/v1/app/{api.tenant}/delivery?event_type=no.such",
            "endpoint.get_stats": f"{of}/endpoint/{endpoint}/stats",
        }
        requests: dict[str, Any] = {name: {"method": "GET", "path": path} for name, path in paths.items()}
        url = f'{{"url":"https://receiver.example/new/{NUMBER}"}}'
        requests["endpoint.create"] = {"method": "POST", "path": f"{of}/endpoint", "body": url}
        ids = {**named, "tenant": api.tenant}
        for cookie, pages in ((api.customer, _PAGES), (api.operator, _OPERATOR_PAGES)):
            requests |= {
                f"{PAGE}{name}": {"method": "GET", "path": f"/portal{path.format(**ids)}", "cookie": cookie}
                for name, path in pages.items()
            }
        result = await api.called("in-turn", requests, times=times, warm_up=_WARM_UP)
        memory = resident_mb([api.pid])
    sizes = {"endpoints": float(endpoints), "stored": float(deliveries), "resident_mb": memory}
    return Round(figures=sizes | {f"{name}{P99_MS}": each["p99_ms"] for name, each in result["calls"].items()})
