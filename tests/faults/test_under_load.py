"""The short forms of the faults under load: no law is broken after each."""

from pathlib import Path
from random import Random

import pytest

from hookseal.embedded.server import Server
from tests.faults import scenarios
from tests.faults.scenarios import Size
from tests.faults.site import Site, open_site

SIZE = Size(events=100, per_second=40)

pytestmark = pytest.mark.timeout(300)  # on loaded cores every start of a worker takes long


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Return the random source of this run; pytest-randomly prints the seed."""
    return Random(request.config.getoption("randomly_seed", 0))


@pytest.mark.req("DUR-03")
async def test_kills_under_load_lose_nothing(site: Site, chance: Random) -> None:
    """Kill -9 loses nothing; only what was sent and not recorded is sent again, after an attempt that is unknown."""
    (await scenarios.kill_workers(site, SIZE, chance)).require(lost=0, unexplained=0)


@pytest.mark.req("DUR-05")
async def test_a_rolling_restart_loses_nothing(calm_site: Site, chance: Random) -> None:
    """A rolling restart of three workers under load loses nothing and sends nothing twice."""
    found = await scenarios.restart_workers(calm_site, SIZE, chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=200)


@pytest.mark.req("DUR-05")
async def test_repeated_sigterms_are_like_one(calm_site: Site, chance: Random) -> None:
    """Any number of SIGTERMs at any time is like one: nothing is lost or sent twice, and the exit code is 0."""
    found = await scenarios.send_sigterms(calm_site, SIZE, chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=200)


@pytest.mark.req("DUR-02")
@pytest.mark.req("DUR-07", part="pauses")
async def test_a_pause_longer_than_the_lease_loses_nothing(site: Site, chance: Random) -> None:
    """Others finish the deliveries of a paused process; when it continues it records nothing."""
    (await scenarios.pause_workers(site, SIZE, chance)).require(lost=0, unexplained=0)


@pytest.mark.req("DUR-02")
@pytest.mark.req("DUR-07", part="stalls")
async def test_a_stall_longer_than_the_lease_loses_nothing(site: Site, chance: Random) -> None:
    """Others finish the deliveries of a worker with a blocked loop; when it continues it records nothing."""
    (await scenarios.stall_workers(site, SIZE, chance)).require(lost=0, unexplained=0)


@pytest.mark.req("DUR-01")
async def test_flushing_redis_loses_nothing(
    own_valkey: Server, database_url: str, tmp_path: Path, chance: Random
) -> None:
    """FLUSHALL at any time loses nothing and causes no second request."""
    async with open_site(database_url, own_valkey.url, tmp_path, calm=True) as site:
        found = await scenarios.flush_redis(site, SIZE, chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=200)
