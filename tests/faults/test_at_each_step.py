"""kill -9 and SIGSTOP before and after each of the ten steps of a delivery (docs/architecture.md)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults import faults_at_steps
from tests.faults.expected_outcomes import DISTINCT_POINTS
from tests.faults.site import Site, open_site

pytestmark = pytest.mark.timeout(300)  # many workers start at once


@pytest.fixture
async def site_with_one_endpoint(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Yield a site with one endpoint, so that every event is one delivery."""
    async with open_site(database_url, redis_url, tmp_path, endpoints=1) as made:
        yield made


@pytest.mark.req("DUR-03")
async def test_a_kill_at_any_step_loses_nothing(site_with_one_endpoint: Site) -> None:
    """After a kill at any point nothing is lost, and only what was sent and not recorded is sent again."""
    await faults_at_steps.kill_at(site_with_one_endpoint, DISTINCT_POINTS)


@pytest.mark.req("DUR-02")
@pytest.mark.req("DUR-07", part="pauses")
async def test_a_pause_at_any_step_loses_nothing(site_with_one_endpoint: Site) -> None:
    """After a pause at any point another worker has finished the delivery; the paused one sends and records nothing."""
    await faults_at_steps.pause_at(site_with_one_endpoint, DISTINCT_POINTS)
