"""Outages of Redis and PostgreSQL, each under load: the worker reports it, lives, and continues afterwards."""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import asyncpg
from redis.asyncio import Redis

from hookseal.embedded.server import Server
from hookseal.postgres.translate import OUTAGES
from tests.faults.balance import Balance
from tests.faults.clocks import WallClock
from tests.faults.cutting import Cut, Moment
from tests.faults.scenarios import SETTLES_WITHIN, Size
from tests.faults.standby import have_it_wait_for_the_standby, promote, standby
from tests.faults.tcp_proxy import line
from tests.faults.ways import PATIENCE_SECONDS, Way, probed, says
from tests.worker.waiting import eventually

# A text in each command of a worker to Redis that no other command contains.
SAID_TO_REDIS = {
    "ring": b"\xa7deliver",
    "take": b"$8\r\narq:job:\r\n",
    "wait": b"$8\r\nBZPOPMIN\r\n",
    "probe": b"$4\r\nEVAL\r\n",
}
# The same for its statements to PostgreSQL.
CLAIM_AND_RECORD = {"claim": b"SET state = 'sending'", "record": b"duration_ms, status, outcome, snippet"}
SAID_TO_POSTGRESQL = CLAIM_AND_RECORD | {
    "ring": b"name = 'outbox' AND token",
    "sweep": b"ORDER BY d.next_attempt_at, d.id\n    LIMIT",
    "take back": b"ORDER BY d.lease_expires_at",
    "probe": b"transaction_read_only",
}
STRANDED = 10
HOURS, YEARS = timedelta(hours=6), timedelta(days=3 * 365)
BY_LOSS_OF_POWER = signal.SIGQUIT
_OTHERS = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    " ORDER BY random() LIMIT 1"
)

Outage = Callable[[Way], Awaitable[int]]


async def lived_through(
    way: Way, outages: Sequence[Outage], size: Size, settings: Mapping[str, Any] = MappingProxyType({})
) -> Balance:
    """Let one worker go through these outages, again and again until all is published; return the balance."""
    await way.fleet.start(**settings)
    faults = 0
    async with way.flow(round(size.per_second)):
        while not faults or way.events < size.events:
            for outage in outages:
                await way.flowing()
                faults += await outage(way)
    return await _balance(way, faults)


async def failed_over(way: Way, size: Size) -> Balance:
    """Again and again kill the primary under load, promote its synchronous standby, and lead the line there."""
    worker = await way.fleet.start()
    faults = 0
    async with AsyncExitStack() as servers:
        primary = way.server.server
        async with way.flow(round(size.per_second)):
            while not faults or way.events < size.events:
                other = await servers.enter_async_context(standby(primary.url))
                await have_it_wait_for_the_standby(primary)
                await way.flowing(10)
                await _move(way, primary, other)
                await says(worker, postgresql="ok", secrets="ok")
                await way.flowing(10)
                primary, faults = other, faults + 1
        return await _balance(way, faults)


async def failed_over_behind(way: Way, size: Size) -> Balance:
    """The same once, with an asynchronous standby that did not receive the second half of the events.

    `forgotten` counts the published deliveries that were lost, `published_again` those of them that exist again after
    their producer has published the same events again.
    """
    await way.fleet.start()
    primary, half = way.server.server, size.events // 2
    async with line(primary.port) as stream, standby(stream.url(primary.url)) as other:
        await way.publish_surely(half)
        await way.settled(within=SETTLES_WITHIN)
        stream.hold()
        names = await way.publish_surely(half)
        await way.settled(within=SETTLES_WITHIN)
        confirmed = set(way.published)
        await _move(way, primary, other)
        kept = await way.delivery_ids()
        way.published.clear()
        await way.publish_surely(half, names=names)
        again = way.published - kept
        way.published |= kept
        way.witness.seen = [seen for seen in way.witness.seen if seen.delivery_id not in confirmed - kept]
        found = await _balance(way, 1)
        return replace(found, counts=found.counts | {"forgotten": len(confirmed - kept), "published_again": len(again)})


async def clock_set(way: Way, clock: WallClock, wrong_by: timedelta) -> int:
    """Set the wall clock of the running worker."""
    clock.step_to(wrong_by)
    await way.flowing(20)
    await says(way.fleet.running[0], postgresql="ok", redis="ok", secrets="ok")
    return 1


async def cut(way: Way, sayings: Mapping[str, bytes], moments: Sequence[Moment]) -> int:
    """Cut the line at each of these moments of each of these commands or statements."""
    [worker] = way.fleet.running
    for name, saying in sayings.items():
        for moment in moments:
            way.scissors.cut = asked = Cut(saying=saying, moment=moment)

            async def done(asked: Cut = asked) -> bool:
                await probed(worker, "/readyz")
                return asked.is_done

            try:
                await eventually(done, within=PATIENCE_SECONDS)
            except AssertionError:
                raise AssertionError(f"never {moment}: {name}") from None
    return len(sayings) * len(moments)


async def refused(way: Way, check: str) -> int:
    """Close the port, then open it again."""
    way.line.close()
    await says(way.fleet.running[0], **{check: "unavailable"})
    await way.line.open()
    await says(way.fleet.running[0], **{check: "ok"})
    return 1


async def held_up(way: Way, check: str) -> int:
    """Forward nothing on the line for a while, in either direction, and keep every connection."""
    way.line.hold()
    await says(way.fleet.running[0], **{check: "timeout"})
    way.line.go_on()
    await says(way.fleet.running[0], **{check: "ok"})
    return 1


async def stranded(way: Way, check: str) -> int:
    """Forward nothing more on existing connections, like a firewall that forgot them; new ones work."""
    database_url = way.server.server.url if check == "postgresql" else way.database_url
    way.line.strand()
    connection = await asyncpg.connect(database_url)  # a producer with a working connection
    try:
        await way.publish(STRANDED, connection=connection)
        await way.flowing(STRANDED)
    finally:
        await connection.close()
    await says(way.fleet.running[0], **{check: "ok"})
    way.line.cut()  # ends the connections of the test itself, which would wait for longer
    return 1


async def frozen(way: Way, check: str) -> int:
    """Freeze every process of the server for a while."""
    way.server.server.freeze()
    try:
        await says(way.fleet.running[0], **{check: "timeout"})
    finally:
        way.server.server.thaw()
    await says(way.fleet.running[0], **{check: "ok"})
    return 1


async def ended(way: Way, check: str, number: signal.Signals, *, durable: bool = True) -> int:
    """End the server with this signal and start it on the same port; unless `durable`, without its data."""
    await way.server.end(number)
    await says(way.fleet.running[0], **{check: "unavailable"})
    await way.server.start(durable=durable)
    await says(way.fleet.running[0], **{check: "ok"})
    return 1


async def redis_full(way: Way) -> int:
    """Leave Redis no memory for a while, so that it refuses every write and answers all else."""
    async with Redis.from_url(way.redis_url) as client:
        await client.config_set("maxmemory", "1")
        await says(way.fleet.running[0], redis="unavailable")
        await client.config_set("maxmemory", "0")
    await says(way.fleet.running[0], redis="ok")
    return 1


async def backend_killed(way: Way) -> int:
    """Kill -9 one process of PostgreSQL, which then ends all others and recovers."""

    async def done() -> bool:
        with suppress(*OUTAGES):
            os.kill(await way.pool.fetchval(_OTHERS), signal.SIGKILL)
            return True
        return False

    await eventually(done, within=PATIENCE_SECONDS)
    await way.publish_surely(1)
    await says(way.fleet.running[0], postgresql="ok")
    return 1


async def _move(way: Way, primary: Server, other: Server) -> None:
    os.kill(primary.pid, BY_LOSS_OF_POWER)
    await says(way.fleet.running[0], postgresql="unavailable")
    way.line.lead_to(other.port)
    await says(way.fleet.running[0], postgresql="unavailable", secrets="ok")  # it is read-only
    await promote(other)


async def _balance(way: Way, faults: int) -> Balance:
    await way.settled(within=SETTLES_WITHIN)
    assert [0] == await way.fleet.stop_all()
    found = await way.balance()
    return replace(found, counts=found.counts | {"faults": faults})


def of_the_clock(clock: WallClock) -> list[Outage]:
    """Return every step of the wall clock of a worker: by hours and years, in both directions, and back."""
    steps = (-HOURS, HOURS, -HOURS, YEARS, -YEARS, timedelta(0))
    return [partial(clock_set, clock=clock, wrong_by=wrong_by) for wrong_by in steps]


def of_redis(moments: Sequence[Moment]) -> list[Outage]:
    """Return every outage of Redis."""
    return [
        partial(cut, sayings=SAID_TO_REDIS, moments=moments),
        partial(refused, check="redis"),
        partial(held_up, check="redis"),
        partial(stranded, check="redis"),
        partial(frozen, check="redis"),
        partial(ended, check="redis", number=signal.SIGKILL),
        redis_full,
        partial(ended, check="redis", number=signal.SIGKILL, durable=False),
        partial(ended, check="redis", number=signal.SIGTERM),
    ]


def of_postgresql(sayings: Mapping[str, bytes]) -> list[Outage]:
    """Return every outage of PostgreSQL without a failover."""
    return [
        partial(cut, sayings=sayings, moments=list(Moment)),
        partial(refused, check="postgresql"),
        partial(held_up, check="postgresql"),
        partial(stranded, check="postgresql"),
        partial(frozen, check="postgresql"),
        partial(ended, check="postgresql", number=signal.SIGINT),  # fast shutdown
        partial(ended, check="postgresql", number=BY_LOSS_OF_POWER),  # immediate shutdown
        backend_killed,
    ]
