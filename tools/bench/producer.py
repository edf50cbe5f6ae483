"""A producer in its own process: publishes as ordered, and prints the cost.

To add a way of publishing, add a function here, its name in `WAYS`, and a row in `measures.WAYS`.
"""

import asyncio
import base64
import json
import os
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import asyncpg
import uvloop
from redis.asyncio import Redis

from hookseal.client import Event, Publisher
from hookseal.errors import Unavailable
from hookseal.postgres.connect import connection_pool
from tools.bench import bodies
from tools.records import percentile

ORDER: Final = "HOOKSEAL_BENCH_PUBLISH"
_AT_ONCE: Final = 50
_FEW_AT_ONCE: Final = 16  # beside which the HTTP API is measured
_BATCH: Final = 100
_CONNECTIONS: Final = 5
_TIME_BYTES: Final = 22  # of `"sent":` and a time of the clock, about
_AWAKE_SECONDS: Final = 0.5  # twice the time between two looks of an outbox at rest
_ONE: Final = "SELECT * FROM hookseal.publish_raw($1, $2, $3)"
_MANY: Final = "SELECT * FROM hookseal.publish_many($1, $2::text[]::json[])"
_ROWS: Final = """
CREATE TABLE hookseal.bench_rows (
    tenant_id text, id text DEFAULT gen_random_uuid()::text, body bytea, PRIMARY KEY (tenant_id, id))
"""
_ROW: Final = "INSERT INTO hookseal.bench_rows (tenant_id, body) VALUES ($1, $2)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How to publish, and for how long; at most `per_second`, after `warm_up` events.

    Events are for the targets in turn, each a tenant and a type of events; a call with many, for the first tenant.
    """

    way: str
    targets: list[tuple[str, str]]
    database_url: str
    seconds: float
    body_bytes: int = 1_024
    per_second: float = 0.0
    warm_up: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Publishes events with one body by calls of `publish`, which returns how many; that many calls at once."""

    publish: Callable[[bytes], Awaitable[int]]
    at_once: int = 1


@asynccontextmanager
async def _by_publisher(order: Order, at_once: int) -> AsyncIterator[Way]:
    targets = cycle(order.targets)
    async with Publisher.connect() as publisher:

        async def publish(body: bytes) -> int:
            tenant, event_type = next(targets)
            await publisher.publish(tenant_id=tenant, event_type=event_type, body=body)
            return 1

        yield Way(publish=publish, at_once=at_once)


@asynccontextmanager
async def _by_sql(order: Order, at_once: int) -> AsyncIterator[Way]:
    targets = cycle(order.targets)
    async with connection_pool(order.database_url, size=at_once) as pool:

        async def publish(body: bytes) -> int:
            return len(await pool.fetch(_ONE, *next(targets), body))

        async with pool.acquire() as connection:
            prepared = await connection.prepare(_ONE)

            async def publish_prepared(body: bytes) -> int:
                return len(await prepared.fetch(*next(targets), body))

            if at_once == 1:
                yield Way(publish=publish_prepared)
                return
        yield Way(publish=publish, at_once=at_once)


@asynccontextmanager
async def _by_publisher_many(order: Order, batch: int) -> AsyncIterator[Way]:
    tenant, event_type = order.targets[0]
    async with Publisher.connect() as publisher:

        async def publish(body: bytes) -> int:
            events = [Event(event_type=event_type, body=body)] * batch
            return len((await publisher.publish_many(tenant_id=tenant, events=events)).events)

        yield Way(publish=publish)


@asynccontextmanager
async def _by_sql_many(order: Order, batch: int) -> AsyncIterator[Way]:
    tenant, event_type = order.targets[0]
    async with connection_pool(order.database_url, size=1) as pool, pool.acquire() as connection:
        prepared = await connection.prepare(_MANY)

        async def publish(body: bytes) -> int:
            event = json.dumps({"event_type": event_type, "body": base64.b64encode(body).decode()})
            return len(await prepared.fetch(tenant, [event] * batch))

        yield Way(publish=publish)


@asynccontextmanager
async def _by_insert_and_ping(order: Order, _at_once: int) -> AsyncIterator[Way]:
    """Insert a row of that size and ping Redis: a lower bound of the cost of publishing."""
    tenant, _ = order.targets[0]
    async with connection_pool(order.database_url, size=1) as pool, pool.acquire() as connection:
        await connection.execute(_ROWS)
        prepared = await connection.prepare(_ROW)
        async with Redis.from_url(os.environ["REDIS_URL"]) as redis:

            async def publish(body: bytes) -> int:
                await prepared.fetch(tenant, body)
                await redis.ping()
                return 1

            yield Way(publish=publish)


WAYS: Final = {
    "publisher": (_by_publisher, 1),
    "publisher-16": (_by_publisher, _FEW_AT_ONCE),
    "publisher-50": (_by_publisher, _AT_ONCE),
    "sql": (_by_sql, 1),
    "sql-pool": (_by_sql, _CONNECTIONS),
    "publisher-many": (_by_publisher_many, _BATCH),
    "sql-many": (_by_sql_many, _BATCH),
    "insert-ping": (_by_insert_and_ping, 1),
}


class _Calls:
    """Counts the published events and the duration of each call."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self.events = 0
        self.failed = 0
        self.milliseconds: list[float] = []

    async def one(self, body: bytes, begun: float) -> None:
        published = await self._way.publish(body)
        self.events += published  # apart from the await, during which others count
        self.milliseconds.append((time.monotonic() - begun) * 1e3)


async def at_full_speed(way: Way, order: Order) -> _Calls:
    """Publish for that many seconds."""
    calls, body = _Calls(way), bodies.order(order.body_bytes).encode()
    until = time.monotonic() + order.seconds

    async def some() -> None:
        while (begun := time.monotonic()) < until:
            await calls.one(body, begun)

    await asyncio.gather(*(some() for _ in range(way.at_once)))
    return calls


async def at_a_rate(way: Way, order: Order) -> _Calls:
    """Publish at the rate, each event when it is due, even if the previous one is unfinished; the body has the time."""
    calls, after = _Calls(way), bodies.order(order.body_bytes - _TIME_BYTES).encode().removeprefix(b"{")

    async def one() -> None:
        begun = time.monotonic()
        try:
            await calls.one(b'{"sent":%.6f,' % begun + after, begun)
        except (Unavailable, asyncpg.PostgresError, OSError):  # the rate is higher than this machine can do
            calls.failed += 1

    start = time.monotonic()
    async with asyncio.TaskGroup() as publishing:
        for number in range(int(order.seconds * order.per_second)):
            await asyncio.sleep(max(0.0, start + number / order.per_second - time.monotonic()))
            publishing.create_task(one())
    return calls


async def warmed_up(way: Way, order: Order) -> int:
    """Open the connections by publishing, then publish `warm_up` times more; return the number of events.

    At a steady rate it opens one, and others when they are needed: a burst would leave the lane of its endpoint crowded
    for two seconds.
    After a warm-up it waits until workers have found all of it: at a steady rate the outbox is not at rest.
    """
    body = bodies.order(order.body_bytes).encode()
    at_once = 1 if order.per_second else way.at_once
    number = sum(await asyncio.gather(*(way.publish(body) for _ in range(at_once))))
    for _ in range(order.warm_up):
        number += await way.publish(body)
    if order.warm_up:
        await asyncio.sleep(_AWAKE_SECONDS)
    return number


async def main(order: Order) -> None:
    """Publish, and print the cost."""
    begin, number = WAYS[order.way]
    async with begin(order, number) as way:
        ahead = await warmed_up(way, order)
        before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        calls = await (at_a_rate(way, order) if order.per_second else at_full_speed(way, order))
        seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "events": calls.events,
        "failed": calls.failed,
        "before": ahead,
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "p50_ms": percentile(calls.milliseconds, 0.5),
        "p99_ms": percentile(calls.milliseconds, 0.99),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Order(**json.loads(os.environ[ORDER]))))
