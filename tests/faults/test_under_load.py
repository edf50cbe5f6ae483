"""The short forms of the faults under load: the books balance after each."""

from random import Random

import pytest

from tests.faults import scenarios
from tests.faults.scenarios import Size
from tests.faults.site import Site

pytestmark = pytest.mark.timeout(180)  # on loaded cores every start of a worker takes a while


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Return the chance of this run; pytest-randomly prints the seed."""
    return Random(request.config.getoption("randomly_seed", 0))


async def test_kill_at_any_moment(site: Site, chance: Random) -> None:
    """kill -9 loses nothing; sent again is only what was sent and not recorded, which is on record as unknown."""
    (await scenarios.killed(site, Size(events=150, per_second=40), chance)).require(lost=0, unexplained=0)


async def test_rolling_restart(site: Site) -> None:
    """A rolling restart of three workers under load loses nothing and sends nothing twice."""
    found = await scenarios.restarted(site, Size(events=150, per_second=40))
    found.require(lost=0, duplicates=0, unknown=0, requests=300)


async def test_sigterm_storm(site: Site, chance: Random) -> None:
    """Any number of SIGTERMs at any moment is one SIGTERM: nothing is lost or sent twice, and the exit code is 0."""
    found = await scenarios.stormed(site, Size(events=150, per_second=40), chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=300)


async def test_paused_for_longer_than_the_lease(site: Site, chance: Random) -> None:
    """What a process held that stood still is done by another; when it goes on it writes nothing."""
    (await scenarios.paused(site, Size(events=150, per_second=40), chance)).require(lost=0, unexplained=0)


async def test_stalled_for_longer_than_the_lease(site: Site, chance: Random) -> None:
    """What a worker held whose loop stood still is done by another; when it goes on it writes nothing."""
    (await scenarios.stalled(site, Size(events=150, per_second=40), chance)).require(lost=0, unexplained=0)


async def test_redis_emptied(own_site: Site, chance: Random) -> None:
    """FLUSHALL at any moment loses nothing, and is no reason to send anything twice."""
    found = await scenarios.flushed(own_site, Size(events=150, per_second=40), chance)
    found.require(lost=0, duplicates=0, unknown=0, requests=300)
