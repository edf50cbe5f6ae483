"""Outages of Redis and PostgreSQL, one after the other over one site: each is told, survived, and costs nothing."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from redis.asyncio import Redis

from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server
from hookseal.embedded.valkey import valkey
from hookseal.schema.database import OUTAGES
from hookseal.schema.upgrade import upgrade
from tests.faults.books import Balance
from tests.faults.cutting import Cut, Moment, OnPostgres, OnRedis, Scissors
from tests.faults.fleet import Member
from tests.faults.line import Line, line
from tests.faults.servers import Restartable, restartable
from tests.faults.site import TENANT, Site, opened
from tests.faults.standby import have_it_wait_for_the_standby, promote, standby
from tests.worker.waiting import eventually

EVENTS = 5
PER_SECOND = 20
PATIENCE_SECONDS = 30.0
# What a worker says to Redis, by words that it says nowhere else.
SAID_TO_REDIS = {
    "ring": b"$4\r\nZADD\r\n",
    "look": b"$13\r\nZRANGEBYSCORE\r\n",
    "take": b"$5\r\nWATCH\r\n",
    "hold": b"$5\r\nMULTI\r\n*4\r\n$6\r\nPSETEX\r\n",
    "begin": b"$6\r\nINCRBY\r\n",
    "finish": b"$3\r\nDEL\r\n",
    "probe": b"$8\r\nSETRANGE\r\n",
}


# What it says to PostgreSQL.
CLAIM_AND_RECORD = {"claim": b"SET state = 'sending'", "record": b"duration_ms, status, outcome, snippet"}
SAID_TO_POSTGRES = CLAIM_AND_RECORD | {
    "ring": b"name = 'outbox' AND token",
    "sweep": b"ORDER BY d.next_attempt_at, d.id\n    LIMIT",
    "take back": b"ORDER BY d.lease_expires_at",
}
# Long enough for a record to be written when the outage is over: nothing is sent twice then.
PATIENT = {"HOOKSEAL_LEASE_SECONDS": "45", "HOOKSEAL_DRAIN_SECONDS": "25"}
_PUBLISH = (
    "SELECT delivery_id::text AS id FROM hookseal.publish($1, 'invoice.paid', json_build_object('n', $2::int),"
    " event_id => $3)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A site whose workers reach one of their servers by a line that can be cut, beside the server itself."""

    site: Site
    line: Line
    scissors: Scissors
    server: Restartable


@asynccontextmanager
async def way_to_redis(database_url: str, folder: Path) -> AsyncIterator[Way]:
    """Yield a site on a Redis of its own."""
    scissors = Scissors()
    async with (
        restartable(valkey, durable=True) as redis,
        line(redis.server.port, lambda: OnRedis(scissors)) as wire,
        opened(database_url, redis.server.url, folder, REDIS_URL=wire.url(redis.server.url)) as site,
    ):
        yield Way(site=site, line=wire, scissors=scissors, server=redis)


@asynccontextmanager
async def way_to_postgres(redis_url: str, folder: Path, **settings: str) -> AsyncIterator[Way]:
    """Yield a site on a PostgreSQL of its own; whoever uses it comes by the line."""
    scissors = Scissors()
    async with (
        restartable(postgres, durable=True) as database,
        line(database.server.port, lambda: OnPostgres(scissors)) as wire,
    ):
        await upgrade(database.server.url)
        async with opened(wire.url(database.server.url), redis_url, folder, **settings) as site:
            yield Way(site=site, line=wire, scissors=scissors, server=database)


async def publish(site: Site, events: int = EVENTS, *, names: Sequence[str] = ()) -> Sequence[str]:
    """Publish as a producer should: again, under the same id, until it was told that it is done. Return the ids."""
    names = names or [uuid4().hex for _ in range(events)]
    for name in names:

        async def told(name: str = name) -> bool:
            try:
                rows = await site.pool.fetch(_PUBLISH, TENANT, 1, name, timeout=PATIENCE_SECONDS)
            except OUTAGES:
                return False
            site.published.update(row["id"] for row in rows)
            return True

        await eventually(told, within=PATIENCE_SECONDS)
    return names


async def says(member: Member, **wanted: str) -> None:
    """Return once the worker says this of its dependencies, while it lives."""
    ready = all(state == "ok" for state in wanted.values())

    async def look() -> bool:
        status, said = await _asked(member, "/readyz")
        return (status == 200) is ready and wanted.items() <= said["checks"].items()

    await eventually(look, within=PATIENCE_SECONDS)
    assert (200, {"status": "ok"}) == await _asked(member, "/livez")


async def _asked(member: Member, path: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(member.ready["health_url"] + path) as response:
        return response.status, await response.json()


@asynccontextmanager
async def flow(site: Site) -> AsyncIterator[None]:
    """Publish one event after the other for the length of the block."""
    ended = asyncio.Event()

    async def steadily() -> None:
        while not ended.is_set():
            await publish(site, 1)
            await asyncio.sleep(1 / PER_SECOND)  # the pace asked for

    publishing = asyncio.create_task(steadily())
    try:
        yield
    finally:
        ended.set()
        await publishing


async def cut(way: Way, sayings: Mapping[str, bytes], moments: Sequence[Moment]) -> int:
    """Cut the line at each of these moments of each of these sayings, while there is something to say."""
    [worker] = way.site.fleet.running
    async with flow(way.site):
        for name, saying in sayings.items():
            for moment in moments:
                way.scissors.cut = asked = Cut(saying=saying, moment=moment)

                async def done(asked: Cut = asked) -> bool:
                    await _asked(worker, "/readyz")
                    return asked.is_done

                try:
                    await eventually(done, within=PATIENCE_SECONDS)
                except AssertionError:
                    raise AssertionError(f"never {moment}: {name}") from None
    return len(sayings) * len(moments)


async def gone(way: Way, check: str) -> None:
    """A server that refuses, that stands still, and a way on which nothing passes; each ends, and is over."""
    [worker] = way.site.fleet.running
    server = way.server.server
    for begins, ends, state in (
        (way.line.close, way.line.open, "unavailable"),
        (way.line.hold, way.line.go_on, "timeout"),
        (server.freeze, server.thaw, "timeout"),
    ):
        async with flow(way.site):
            await way.site.witness.wait_for(len(way.site.witness.seen) + 1)
            begins()
            await says(worker, **{check: state})
            over = ends()
            if over is not None:
                await over
            await says(worker, **{check: "ok"})


async def ended(way: Way, check: str, number: signal.Signals, *, durable: bool) -> None:
    """End the server by this signal under load, and start it again."""
    [worker] = way.site.fleet.running
    async with flow(way.site):
        await way.site.witness.wait_for(len(way.site.witness.seen) + 1)
        await way.server.end(number)
        await says(worker, **{check: "unavailable"})
        await way.server.start_again(durable=durable)
        await says(worker, **{check: "ok"})


async def redis_full(way: Way) -> None:
    """A Redis that has no memory left refuses every write and answers the rest; then there is memory again."""
    [worker] = way.site.fleet.running
    async with Redis.from_url(way.site.redis_url) as client, flow(way.site):
        await client.config_set("maxmemory", "1")
        await says(worker, redis="unavailable")
        await client.config_set("maxmemory", "0")
        await says(worker, redis="ok")


async def backend_killed(way: Way) -> None:
    """Kill -9 of one process of PostgreSQL, upon which it ends all of them, and recovers."""
    [worker] = way.site.fleet.running
    async with flow(way.site):
        for _ in range(2):
            await way.site.witness.wait_for(len(way.site.witness.seen) + 1)
            pid = await _other_backend(way.site)
            os.kill(pid, signal.SIGKILL)
            await publish(way.site, 1)
    await says(worker, postgresql="ok")


async def _other_backend(site: Site) -> int:
    async def look() -> int | None:
        with suppress(*OUTAGES):
            pid: int | None = await site.pool.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                " ORDER BY random() LIMIT 1"
            )
            return pid
        return None

    return await eventually(look, within=PATIENCE_SECONDS)


async def failed_over(way: Way) -> Balance:
    """The primary dies under load, its synchronous standby is promoted, and the line leads there."""
    [worker] = way.site.fleet.running
    async with standby(way.server.server.url) as other:
        await have_it_wait_for_the_standby(way.server.server)
        async with flow(way.site):
            await way.site.witness.wait_for(len(way.site.witness.seen) + EVENTS)
            await _moved(way, other)
            await says(worker, postgresql="ok", secrets="ok")
            await way.site.witness.wait_for(len(way.site.witness.seen) + EVENTS)
        await way.site.settled()
        assert [0] == await way.site.fleet.stop_all()
        return await way.site.balance()


async def failed_over_behind(way: Way, events: int) -> tuple[int, int]:
    """The same with a standby for which nobody waits, and which has not heard of the last events.

    Return how many deliveries were published to no avail, and how many of them were there once their producer had
    published the same events again.
    """
    primary = way.server.server
    async with line(primary.port) as stream, standby(stream.url(primary.url)) as other:
        await way.site.witness.wait_for(2 * len(await publish(way.site, events)))
        stream.hold()
        names = await publish(way.site, events)
        await way.site.witness.wait_for(4 * events)
        before = set(way.site.published)
        await _moved(way, other)
        kept = await _ids(way.site)
        way.site.published.clear()
        await publish(way.site, names=names)
        await way.site.settled()
        assert [0] == await way.site.fleet.stop_all()
        return len(before - kept), len(way.site.published & await _ids(way.site) - kept)


async def _moved(way: Way, other: Server) -> None:
    [worker] = way.site.fleet.running
    await way.server.end(signal.SIGQUIT)
    await says(worker, postgresql="unavailable")
    way.line.lead_to(other.port)
    await promote(other)


async def _ids(site: Site) -> set[str]:
    async def look() -> set[str] | None:
        with suppress(*OUTAGES):
            return {row["id"] for row in await site.pool.fetch("SELECT id::text FROM hookseal.deliveries")}
        return None

    return await eventually(look, within=PATIENCE_SECONDS)
