"""The long forms: the scenarios, their sizes, and the servers on which they run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from random import Random
from typing import Final, assert_never

from hookseal.embedded.account import for_servers
from hookseal.embedded.folders import scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.valkey import valkey
from hookseal.ground.errors import Unavailable
from hookseal.postgres.schema.upgrade import upgrade
from tests.faults import exact, outages, scenarios
from tests.faults.balance import Balance
from tests.faults.clocks import WallClock, library
from tests.faults.cutting import Moment
from tests.faults.fault import POINTS
from tests.faults.scenarios import Size
from tests.faults.site import Site, opened
from tests.faults.ways import Way, way_to_postgres, way_to_redis


class Ground(Enum):
    """The servers of a scenario: plain ones, or one of them at the end of a line."""

    PLAIN = auto()
    WAY_TO_REDIS = auto()
    WAY_TO_POSTGRESQL = auto()
    WAY_TO_POSTGRESQL_WITH_SHORT_LEASES = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fault that is caused again and again: its function and its size."""

    run: Callable[[Site, Size, Random], Awaitable[Balance]]
    size: Size
    endpoints: int = 2
    calm: bool = False
    ground: Ground = Ground.PLAIN


async def _killed_at_each_step(site: Site, _size: Size, _chance: Random) -> Balance:
    return await exact.killed(site, POINTS)


async def _paused_at_each_step(site: Site, _size: Size, _chance: Random) -> Balance:
    return await exact.paused(site, POINTS)


async def _without_redis(site: Site, size: Size, _chance: Random) -> Balance:
    return await outages.lived_through(_way(site), outages.of_redis(list(Moment)), size)


async def _without_postgresql(site: Site, size: Size, _chance: Random) -> Balance:
    return await outages.lived_through(_way(site), outages.of_postgresql(outages.SAID_TO_POSTGRESQL), size)


async def _failed_over(site: Site, size: Size, _chance: Random) -> Balance:
    return await outages.failed_over(_way(site), size)


async def _failed_over_behind(site: Site, size: Size, _chance: Random) -> Balance:
    return await outages.failed_over_behind(_way(site), size)


async def _clock_set(site: Site, size: Size, _chance: Random) -> Balance:
    preloaded = library()
    if preloaded is None:
        raise Unavailable("there is no wheel of libfaketime for this machine")
    with scratch(None) as folder:
        clock = WallClock(preloaded, folder, wrong_by=-outages.HOURS)
        try:
            return await outages.lived_through(_way(site), outages.of_the_clock(clock), size, clock.settings)
        finally:
            for member in site.fleet.members:
                clock.forget(member.pid)


def _way(site: Site) -> Way:
    assert isinstance(site, Way), "the scenario needs a line to one of its servers"
    return site


_EACH_STEP: Final = Size(events=len(POINTS), per_second=1)
_OUTAGES: Final = Size(events=3_000, per_second=40)
# At a rate that two busy cores can handle, so that only the fault makes deliveries late or time out.
SUITE: Final[Mapping[str, Scenario]] = {
    "killed-at-each-step": Scenario(run=_killed_at_each_step, size=_EACH_STEP, endpoints=1),
    "killed": Scenario(run=scenarios.killed, size=Size(events=20_500, per_second=150, pause=4)),
    "paused-at-each-step": Scenario(run=_paused_at_each_step, size=_EACH_STEP, endpoints=1),
    "paused": Scenario(run=scenarios.paused, size=Size(events=5_000, per_second=100)),
    "stalled": Scenario(run=scenarios.stalled, size=Size(events=3_000, per_second=50)),
    "restarted": Scenario(run=scenarios.restarted, size=Size(events=10_000, per_second=150), calm=True),
    "stormed": Scenario(run=scenarios.stormed, size=Size(events=6_000, per_second=100), calm=True),
    # The pause is sometimes shorter than a sweep, and sometimes long enough to see whether anything is late.
    "flushed": Scenario(run=scenarios.flushed, size=Size(events=10_100, per_second=50, pause=12), calm=True),
    "without-redis": Scenario(run=_without_redis, size=_OUTAGES, ground=Ground.WAY_TO_REDIS),
    "without-postgresql": Scenario(run=_without_postgresql, size=_OUTAGES, ground=Ground.WAY_TO_POSTGRESQL),
    "failed-over": Scenario(run=_failed_over, size=_OUTAGES, ground=Ground.WAY_TO_POSTGRESQL),
    "failed-over-behind": Scenario(
        run=_failed_over_behind,
        size=Size(events=200, per_second=100),
        ground=Ground.WAY_TO_POSTGRESQL_WITH_SHORT_LEASES,
    ),
    "clock-set": Scenario(run=_clock_set, size=_OUTAGES, ground=Ground.WAY_TO_REDIS),
}


@asynccontextmanager
async def founded(scenario: Scenario) -> AsyncIterator[Site]:
    """Yield a site for the scenario, on servers of its own that are as durable as in production."""
    with scratch(for_servers()) as folder, scratch(None) as logs:
        async with _grounds(scenario, folder, logs) as site:
            yield site


@asynccontextmanager
async def _grounds(scenario: Scenario, folder: Path, logs: Path) -> AsyncIterator[Site]:
    match scenario.ground:
        case Ground.PLAIN:
            async with _plain(scenario, folder, logs) as site:
                yield site
        case Ground.WAY_TO_REDIS:
            async with postgres(folder) as database:
                await upgrade(database.url)
                async with way_to_redis(database.url, logs) as way:
                    yield way
        case Ground.WAY_TO_POSTGRESQL:
            async with valkey(folder) as redis, way_to_postgres(redis.url, logs) as way:
                yield way
        case Ground.WAY_TO_POSTGRESQL_WITH_SHORT_LEASES:
            async with (
                valkey(folder) as redis,
                way_to_postgres(redis.url, logs, lease_seconds="12", drain_seconds="10") as way,
            ):
                yield way
        case _:
            assert_never(scenario.ground)


@asynccontextmanager
async def _plain(scenario: Scenario, folder: Path, logs: Path) -> AsyncIterator[Site]:
    async with postgres(folder) as database, valkey(folder) as redis:
        await upgrade(database.url)
        async with opened(database.url, redis.url, logs, endpoints=scenario.endpoints, calm=scenario.calm) as site:
            yield site
