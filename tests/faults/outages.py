"""Outages of Redis and PostgreSQL, and steps of the clock, under load: the worker reports them and survives."""

import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg
from redis.asyncio import Redis

from hookseal.embedded.server import Server
from hookseal.postgres.translate import OUTAGES
from tests.faults.comparison import Report
from tests.faults.scenarios import SETTLES_WITHIN, Size
from tests.faults.servers import make_replication_synchronous, promote, promote_redis, standby, standby_of_redis
from tests.faults.site import ProxiedSite, wait_for_checks
from tests.faults.tcp_proxy import Disconnect, Moment, tcp_proxy
from tests.worker.waiting import eventually

SHARED = ("/dev/shm/faketime_shm_{}", "/dev/shm/sem.faketime_sem_{}")
LIBRARY = "vendor/libfaketime/src/libfaketime.so.1"


def library() -> Path | None:
    """Return the library that a process must preload, or None if this machine has no wheel of it."""
    found = find_spec("libfaketime")
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) / LIBRARY if places else None


class WallClock:
    """Writes the clock's offset to a file. Start the process with `settings`, and `forget` it when it has ended."""

    def __init__(self, preloaded: Path, folder: Path, *, offset: timedelta) -> None:
        self._file = folder / "clock"
        self.settings: dict[str, Any] = {
            "LD_PRELOAD": str(preloaded),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # the file is read at each query, so that a step takes effect at once
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.step_to(offset)

    def step_to(self, offset: timedelta) -> None:
        """Set the clock to the true time plus this offset."""
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(f"{offset.total_seconds():+.0f}\n", encoding="ascii")
        unfinished.replace(self._file)

    @staticmethod
    def forget(pid: int) -> None:
        """Remove the files that the library leaves when a process executes another program, as workers in tests do."""
        for name in SHARED:
            Path(name.format(pid)).unlink(missing_ok=True)


# Outages of Redis and PostgreSQL, each under load: the worker reports it, survives, and continues afterwards.


# A text in each request of a worker to Redis that no other request contains. A wait and the script that takes rings are
# one request; a disconnect within it lets the wait through, and not the script.
REDIS_COMMANDS = {
    "ring": b"\xa7deliver",
    "take": b"$8\r\narq:job:\r\n",
    "probe": b"$4\r\nEVAL\r\n",
}
# A text in each of its statements to PostgreSQL that no other statement contains.
CLAIM_AND_RECORD = {"claim": b"SET state = 'sending'", "record": b"duration_ms, status, outcome, snippet"}
POSTGRESQL_STATEMENTS = CLAIM_AND_RECORD | {
    "ring": b"name = 'outbox' AND token",
    "sweep": b"ORDER BY d.next_attempt_at, d.id\n    LIMIT",
    "take back": b"ORDER BY d.lease_expires_at",
    "probe": b"transaction_read_only",
}
EVENTS_MEANWHILE = 10
HOURS, YEARS = timedelta(hours=6), timedelta(days=3 * 365)
IMMEDIATE_SHUTDOWN = signal.SIGQUIT
_ANOTHER_BACKEND = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    " ORDER BY random() LIMIT 1"
)

Outage = Callable[[ProxiedSite], Awaitable[int]]


async def survive_outages(
    site: ProxiedSite, outages: Sequence[Outage], size: Size, settings: Mapping[str, Any] = MappingProxyType({})
) -> Report:
    """Cause these outages around one worker, again and again until all is published; return the report."""
    await site.fleet.start(**settings)
    faults = 0
    async with site.publishing(round(size.per_second)):
        while not faults or site.events < size.events:
            for outage in outages:
                await site.wait_for_requests()
                faults += await outage(site)
    return await _report(site, faults)


async def fail_over(site: ProxiedSite, size: Size) -> Report:
    """Again and again kill the primary under load, promote its synchronous standby, and redirect the proxy to it."""
    worker = await site.fleet.start()
    faults = 0
    async with AsyncExitStack() as servers:
        primary = site.server.server
        async with site.publishing(round(size.per_second)):
            while not faults or site.events < size.events:
                other = await servers.enter_async_context(standby(primary.url))
                await make_replication_synchronous(primary)
                await site.wait_for_requests(10)
                await _kill_and_promote(site, primary, other)
                await wait_for_checks(worker, postgresql="ok", secrets="ok")
                await site.wait_for_requests(10)
                primary, faults = other, faults + 1
        return await _report(site, faults)


async def fail_over_to_lagging_standby(site: ProxiedSite, size: Size) -> Report:
    """Fail over once, to an asynchronous standby that did not receive the second half of the events.

    `forgotten` counts the published deliveries that were lost, `published_again` those of them that exist again after
    their producer has published the same events again.
    """
    await site.fleet.start()
    primary, half = site.server.server, size.events // 2
    async with tcp_proxy(primary.port) as replication, standby(replication.url(primary.url)) as other:
        await site.publish_until_confirmed(half)
        await site.wait_until_settled(within=SETTLES_WITHIN)
        replication.pause()
        names = await site.publish_until_confirmed(half)
        await site.wait_until_settled(within=SETTLES_WITHIN)
        confirmed = set(site.published)
        await _kill_and_promote(site, primary, other)
        kept = await site.delivery_ids()
        site.published.clear()
        await site.publish_until_confirmed(half, names=names)
        again = site.published - kept
        site.published |= kept
        lost = confirmed - kept
        site.receiver.requests = [each for each in site.receiver.requests if each.delivery_id not in lost]
        found = await _report(site, 1)
        return replace(found, counts=found.counts | {"forgotten": len(lost), "published_again": len(again)})


async def set_clock(site: ProxiedSite, clock: WallClock, offset: timedelta) -> int:
    clock.step_to(offset)
    await site.wait_for_requests(20)
    await wait_for_checks(site.fleet.running[0], postgresql="ok", redis="ok", secrets="ok")
    return 1


async def disconnect(site: ProxiedSite, requests: Mapping[str, bytes], moments: Sequence[Moment]) -> int:
    """Disconnect the worker at each of these moments of each of these commands or statements."""
    [worker] = site.fleet.running
    for name, text in requests.items():
        for moment in moments:
            site.disconnector.next = planned = Disconnect(text=text, moment=moment)

            async def done(planned: Disconnect = planned) -> bool:
                await worker.get("/readyz")
                return planned.is_done

            try:
                await eventually(done)
            except AssertionError:
                raise AssertionError(f"never disconnected {moment}: {name}") from None
    return len(requests) * len(moments)


async def refuse_connections(site: ProxiedSite, check: str) -> int:
    """Close the port, then open it again."""
    site.proxy.close()
    await wait_for_checks(site.fleet.running[0], **{check: "unavailable"})
    await site.proxy.open()
    await wait_for_checks(site.fleet.running[0], **{check: "ok"})
    return 1


async def stop_forwarding(site: ProxiedSite, check: str) -> int:
    """Forward nothing for a while, in either direction, and keep every connection."""
    site.proxy.pause()
    await wait_for_checks(site.fleet.running[0], **{check: "timeout"})
    site.proxy.resume()
    await wait_for_checks(site.fleet.running[0], **{check: "ok"})
    return 1


async def stall_connections(site: ProxiedSite, check: str) -> int:
    """Forward nothing more on existing connections, like a firewall that forgot them; new ones work."""
    database_url = site.server.server.url if check == "postgresql" else site.database_url
    site.proxy.stall_connections()
    connection = await asyncpg.connect(database_url)  # a producer with a working connection
    try:
        await site.publish(EVENTS_MEANWHILE, connection=connection)
        await site.wait_for_requests(EVENTS_MEANWHILE)
    finally:
        await connection.close()
    await wait_for_checks(site.fleet.running[0], **{check: "ok"})
    site.proxy.disconnect()  # ends the connections of the test itself, which would wait for longer
    return 1


async def freeze_server(site: ProxiedSite, check: str) -> int:
    site.server.server.freeze()
    try:
        await wait_for_checks(site.fleet.running[0], **{check: "timeout"})
    finally:
        site.server.server.thaw()
    await wait_for_checks(site.fleet.running[0], **{check: "ok"})
    return 1


async def restart_server(site: ProxiedSite, check: str, number: signal.Signals, *, durable: bool = True) -> int:
    """End the server with this signal and start it on the same port; unless `durable`, without its data."""
    await site.server.end(number)
    await wait_for_checks(site.fleet.running[0], **{check: "unavailable"})
    await site.server.start(durable=durable)
    await wait_for_checks(site.fleet.running[0], **{check: "ok"})
    return 1


async def fill_memory_of_redis(site: ProxiedSite) -> int:
    """Leave Redis no memory for a while, so that it refuses every write and answers all else."""
    async with Redis.from_url(site.redis_url) as client:
        await client.config_set("maxmemory", "1")
        await wait_for_checks(site.fleet.running[0], redis="unavailable")
        await client.config_set("maxmemory", "0")
    await wait_for_checks(site.fleet.running[0], redis="ok")
    return 1


async def fail_over_redis(site: ProxiedSite) -> int:
    """Kill Redis under load, promote its replica, and later go back to the old server with its old data."""
    async with standby_of_redis(site.redis_url) as other:
        await site.server.end(signal.SIGKILL)
        await wait_for_checks(site.fleet.running[0], redis="unavailable")
        site.proxy.redirect(other.port)
        await wait_for_checks(site.fleet.running[0], redis="unavailable")  # it is read-only
        await promote_redis(other.url)
        await wait_for_checks(site.fleet.running[0], redis="ok")
        await site.wait_for_requests(20)
        await site.server.start(durable=True)
        site.proxy.redirect(site.server.server.port)
        await wait_for_checks(site.fleet.running[0], redis="ok")
        await site.wait_for_requests(20)
    return 1


async def kill_backend(site: ProxiedSite) -> int:
    """Kill -9 one process of PostgreSQL, which then ends all others and recovers."""

    async def done() -> bool:
        with suppress(*OUTAGES):
            os.kill(await site.pool.fetchval(_ANOTHER_BACKEND), signal.SIGKILL)
            return True
        return False

    await eventually(done)
    await site.publish_until_confirmed(1)
    await wait_for_checks(site.fleet.running[0], postgresql="ok")
    return 1


async def _kill_and_promote(site: ProxiedSite, primary: Server, other: Server) -> None:
    os.kill(primary.pid, IMMEDIATE_SHUTDOWN)
    await wait_for_checks(site.fleet.running[0], postgresql="unavailable")
    site.proxy.redirect(other.port)
    await wait_for_checks(site.fleet.running[0], postgresql="unavailable", secrets="ok")  # it is read-only
    await promote(other)


async def _report(site: ProxiedSite, faults: int) -> Report:
    await site.wait_until_settled(within=SETTLES_WITHIN)
    await site.fleet.stop_all()
    found = await site.report()
    return replace(found, counts=found.counts | {"faults": faults})


def clock_steps(clock: WallClock) -> list[Outage]:
    """Return every step of the wall clock of a worker: by hours and years, in both directions, and back."""
    steps = (-HOURS, HOURS, -HOURS, YEARS, -YEARS, timedelta(0))
    return [partial(set_clock, clock=clock, offset=offset) for offset in steps]


def redis_outages(moments: Sequence[Moment]) -> list[Outage]:
    return [
        partial(disconnect, requests=REDIS_COMMANDS, moments=moments),
        partial(refuse_connections, check="redis"),
        partial(stop_forwarding, check="redis"),
        partial(stall_connections, check="redis"),
        partial(freeze_server, check="redis"),
        partial(restart_server, check="redis", number=signal.SIGKILL),
        fill_memory_of_redis,
        fail_over_redis,
        partial(restart_server, check="redis", number=signal.SIGKILL, durable=False),
        partial(restart_server, check="redis", number=signal.SIGTERM),
    ]


def postgresql_outages(requests: Mapping[str, bytes]) -> list[Outage]:
    return [
        partial(disconnect, requests=requests, moments=list(Moment)),
        partial(refuse_connections, check="postgresql"),
        partial(stop_forwarding, check="postgresql"),
        partial(stall_connections, check="postgresql"),
        partial(freeze_server, check="postgresql"),
        partial(restart_server, check="postgresql", number=signal.SIGINT),  # fast shutdown
        partial(restart_server, check="postgresql", number=IMMEDIATE_SHUTDOWN),
        kill_backend,
    ]
