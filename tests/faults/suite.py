"""The long forms: the scenarios, their sizes, and the servers on which they run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from random import Random
from typing import Final, assert_never

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.valkey import valkey
from hookseal.errors import Unavailable
from hookseal.postgres.schema.upgrade import upgrade
from tests.faults import faults_at_steps, outages, scenarios, unrecorded
from tests.faults.comparison import Report
from tests.faults.faulty_worker import POINTS
from tests.faults.outages import WallClock, library
from tests.faults.scenarios import Size
from tests.faults.site import ProxiedSite, Site, open_site, site_with_postgres_proxy, site_with_redis_proxy
from tests.faults.tcp_proxy import Moment


class Servers(Enum):
    """The servers of a scenario: reached directly, or one of them through a proxy."""

    DIRECT = auto()
    PROXY_TO_REDIS = auto()
    PROXY_TO_POSTGRESQL = auto()
    PROXY_TO_POSTGRESQL_WITH_SHORT_LEASES = auto()
    UNRECORDED = auto()
    SMALL_DISK = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Faults of one kind that are caused again and again: the function and its size."""

    run: Callable[[Site, Size, Random], Awaitable[Report]]
    size: Size
    endpoints: int = 2
    calm: bool = False
    servers: Servers = Servers.DIRECT


async def _kill_at_each_step(site: Site, _size: Size, _chance: Random) -> Report:
    return await faults_at_steps.kill_at(site, POINTS)


async def _pause_at_each_step(site: Site, _size: Size, _chance: Random) -> Report:
    return await faults_at_steps.pause_at(site, POINTS)


async def _without_redis(site: Site, size: Size, _chance: Random) -> Report:
    return await outages.survive_outages(_proxied(site), outages.redis_outages(list(Moment)), size)


async def _without_postgresql(site: Site, size: Size, _chance: Random) -> Report:
    return await outages.survive_outages(
        _proxied(site), outages.postgresql_outages(outages.POSTGRESQL_STATEMENTS), size
    )


async def _fail_over(site: Site, size: Size, _chance: Random) -> Report:
    return await outages.fail_over(_proxied(site), size)


async def _fail_over_to_lagging_standby(site: Site, size: Size, _chance: Random) -> Report:
    return await outages.fail_over_to_lagging_standby(_proxied(site), size)


async def _lock_attempts(site: Site, size: Size, _chance: Random) -> Report:
    return await unrecorded.survive(site, size, unrecorded.ATTEMPTS_LOCKED, every_worker=True)


async def _lock_deliveries(site: Site, size: Size, _chance: Random) -> Report:
    return await unrecorded.survive(site, size, unrecorded.DELIVERIES_LOCKED, every_worker=False)


async def _fill_disk(site: Site, size: Size, _chance: Random) -> Report:
    return await unrecorded.survive(site, size, unrecorded.DISK_FULL, every_worker=False)


async def _set_clock(site: Site, size: Size, _chance: Random) -> Report:
    preloaded = library()
    if preloaded is None:
        raise Unavailable("there is no wheel of libfaketime for this machine")
    with scratch(None) as folder:
        clock = WallClock(preloaded, folder, offset=-outages.HOURS)
        try:
            return await outages.survive_outages(_proxied(site), outages.clock_steps(clock), size, clock.settings)
        finally:
            for worker in site.fleet.workers:
                clock.forget(worker.pid)


def _proxied(site: Site) -> ProxiedSite:
    assert isinstance(site, ProxiedSite), "the scenario needs a proxy to one of its servers"
    return site


_EACH_STEP: Final = Size(events=len(POINTS), per_second=1)
_OUTAGES: Final = Size(events=3_000, per_second=40)
_UNRECORDED: Final = Size(events=1_000, per_second=20)
# At a rate that two busy cores can handle, so that only the fault makes deliveries late or time out.
SUITE: Final[Mapping[str, Scenario]] = {
    "killed-at-each-step": Scenario(run=_kill_at_each_step, size=_EACH_STEP, endpoints=1),
    "killed": Scenario(run=scenarios.kill_workers, size=Size(events=20_500, per_second=150, pause=4)),
    "paused-at-each-step": Scenario(run=_pause_at_each_step, size=_EACH_STEP, endpoints=1),
    "paused": Scenario(run=scenarios.pause_workers, size=Size(events=5_000, per_second=100)),
    "stalled": Scenario(run=scenarios.stall_workers, size=Size(events=3_000, per_second=50)),
    "restarted": Scenario(run=scenarios.restart_workers, size=Size(events=10_000, per_second=150), calm=True),
    "stormed": Scenario(run=scenarios.send_sigterms, size=Size(events=6_000, per_second=100), calm=True),
    # The pause is sometimes shorter than a sweep, and sometimes long enough to see whether anything is late.
    "flushed": Scenario(run=scenarios.flush_redis, size=Size(events=10_100, per_second=50, pause=12), calm=True),
    "without-redis": Scenario(run=_without_redis, size=_OUTAGES, servers=Servers.PROXY_TO_REDIS),
    "without-postgresql": Scenario(run=_without_postgresql, size=_OUTAGES, servers=Servers.PROXY_TO_POSTGRESQL),
    "failed-over": Scenario(run=_fail_over, size=_OUTAGES, servers=Servers.PROXY_TO_POSTGRESQL),
    "failed-over-behind": Scenario(
        run=_fail_over_to_lagging_standby,
        size=Size(events=200, per_second=100),
        servers=Servers.PROXY_TO_POSTGRESQL_WITH_SHORT_LEASES,
    ),
    "attempts-locked": Scenario(run=_lock_attempts, size=_UNRECORDED, servers=Servers.UNRECORDED),
    "deliveries-locked": Scenario(run=_lock_deliveries, size=_UNRECORDED, servers=Servers.UNRECORDED),
    "disk-full": Scenario(run=_fill_disk, size=_UNRECORDED, servers=Servers.SMALL_DISK),
    "clock-set": Scenario(run=_set_clock, size=_OUTAGES, servers=Servers.PROXY_TO_REDIS),
}


@asynccontextmanager
async def site_for(scenario: Scenario) -> AsyncIterator[Site]:
    """Yield a site for the scenario, on servers of its own that are as durable as in production."""
    with scratch(for_servers()) as folder, scratch(None) as logs:
        async with _site_on_servers(scenario, folder, logs) as site:
            yield site


@asynccontextmanager
async def _site_on_servers(scenario: Scenario, folder: Path, logs: Path) -> AsyncIterator[Site]:
    match scenario.servers:
        case Servers.DIRECT:
            async with _direct_site(scenario, folder, logs) as site:
                yield site
        case Servers.PROXY_TO_REDIS:
            async with postgres(folder) as database:
                await upgrade(database.url)
                async with site_with_redis_proxy(database.url, logs) as site:
                    yield site
        case Servers.PROXY_TO_POSTGRESQL:
            async with valkey(folder) as redis, site_with_postgres_proxy(redis.url, logs) as site:
                yield site
        case Servers.PROXY_TO_POSTGRESQL_WITH_SHORT_LEASES:
            async with (
                valkey(folder) as redis,
                site_with_postgres_proxy(redis.url, logs, lease_seconds="12", drain_seconds="10") as site,
            ):
                yield site
        case Servers.UNRECORDED:
            async with postgres(folder) as database, valkey(folder) as redis:
                await upgrade(database.url)
                async with unrecorded.open_unrecorded_site(database.url, redis.url, logs) as site:
                    yield site
        case Servers.SMALL_DISK:
            async with (
                unrecorded.postgres_on_small_disk(folder) as database,
                valkey(folder) as redis,
                unrecorded.open_unrecorded_site(database.url, redis.url, logs) as site,
            ):
                yield site
        case _:
            assert_never(scenario.servers)


@asynccontextmanager
async def _direct_site(scenario: Scenario, folder: Path, logs: Path) -> AsyncIterator[Site]:
    async with postgres(folder) as database, valkey(folder) as redis:
        await upgrade(database.url)
        async with open_site(database.url, redis.url, logs, endpoints=scenario.endpoints, calm=scenario.calm) as site:
            yield site
