"""The long forms: which scenarios there are, how large each is, and what it runs on."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from hookseal.embedded.account import for_servers
from hookseal.embedded.folders import scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.valkey import valkey
from hookseal.schema.upgrade import upgrade
from tests.faults import exact, scenarios
from tests.faults.books import Balance
from tests.faults.fault import POINTS
from tests.faults.scenarios import Size
from tests.faults.site import Site, opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One fault, done again and again: what it does on a site, and its size."""

    run: Callable[[Site, Size, Random], Awaitable[Balance]]
    size: Size
    endpoints: int = 2
    calm: bool = False


async def _killed_at_each_step(site: Site, _size: Size, _chance: Random) -> Balance:
    return await exact.killed(site, POINTS)


async def _paused_at_each_step(site: Site, _size: Size, _chance: Random) -> Balance:
    return await exact.paused(site, POINTS)


_EACH_STEP: Final = Size(events=len(POINTS), per_second=1)
# At a rate that two busy cores can bear: what is late, or timed out, shall be so by the fault alone.
SUITE: Final[Mapping[str, Scenario]] = {
    "killed-at-each-step": Scenario(run=_killed_at_each_step, size=_EACH_STEP, endpoints=1),
    "killed": Scenario(run=scenarios.killed, size=Size(events=20_500, per_second=150)),
    "paused-at-each-step": Scenario(run=_paused_at_each_step, size=_EACH_STEP, endpoints=1),
    "paused": Scenario(run=scenarios.paused, size=Size(events=5_000, per_second=100)),
    "stalled": Scenario(run=scenarios.stalled, size=Size(events=3_000, per_second=50)),
    "restarted": Scenario(run=scenarios.restarted, size=Size(events=10_000, per_second=150), calm=True),
    "stormed": Scenario(run=scenarios.stormed, size=Size(events=6_000, per_second=100), calm=True),
    "flushed": Scenario(run=scenarios.flushed, size=Size(events=10_500, per_second=150), calm=True),
}


@asynccontextmanager
async def founded(scenario: Scenario) -> AsyncIterator[Site]:
    """Yield a site for the scenario, on servers of its own that keep what they are told as in production."""
    with scratch(for_servers()) as folder, scratch(None) as logs:
        async with postgres(folder) as database, valkey(folder) as redis:
            await upgrade(database.url)
            async with opened(database.url, redis.url, logs, endpoints=scenario.endpoints, calm=scenario.calm) as site:
                yield site
