"""kill -9 and SIGSTOP before and after each of the ten steps of a delivery (docs/architecture.md)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults import exact
from tests.faults.points import FIRST_AND_LATER
from tests.faults.site import Site, opened

pytestmark = pytest.mark.timeout(300)  # many workers start at once


@pytest.fixture
async def lone_site(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Yield a site with one endpoint, so that every event is one delivery."""
    async with opened(database_url, redis_url, tmp_path, endpoints=1) as made:
        yield made


@pytest.mark.req("DUR-03")
async def test_a_kill_at_any_step_loses_nothing(lone_site: Site) -> None:
    """After a kill at any point nothing is lost, and only what was sent and not recorded is sent again."""
    await exact.killed(lone_site, FIRST_AND_LATER)


@pytest.mark.req("DUR-02")
@pytest.mark.req("DUR-07", part="pauses")
async def test_a_pause_at_any_step_loses_nothing(lone_site: Site) -> None:
    """After a pause at any point another worker has finished the delivery; the paused one sends and records nothing."""
    await exact.paused(lone_site, FIRST_AND_LATER)
