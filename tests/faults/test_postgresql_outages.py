"""PostgreSQL cut off, restarted, crashed and frozen: a worker survives, says so, resumes by itself, loses nothing."""

import signal
from pathlib import Path

import pytest

from tests.faults import outages
from tests.faults.cutting import Moment

EVENTS = 10
pytestmark = [pytest.mark.timeout(180), pytest.mark.req("DUR-04")]


async def test_postgresql(redis_url: str, tmp_path: Path) -> None:
    """One worker lives through every outage of PostgreSQL: nothing is lost, and none is a reason to send twice."""
    async with outages.way_to_postgres(redis_url, tmp_path, **outages.PATIENT) as way:
        await way.site.fleet.start()
        await outages.cut(way, outages.CLAIM_AND_RECORD, list(Moment))
        await outages.gone(way, "postgresql")
        for number in (signal.SIGINT, signal.SIGQUIT):  # fast, and at once, as by a loss of power
            await outages.ended(way, "postgresql", number, durable=True)
        await outages.backend_killed(way)
        await way.site.settled()
        assert [0] == await way.site.fleet.stop_all()
        found = await way.site.balance()
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"])


async def test_failover(redis_url: str, tmp_path: Path) -> None:
    """A primary that dies is followed by its synchronous standby: nothing is lost, and nothing is sent twice."""
    async with outages.way_to_postgres(redis_url, tmp_path, **outages.PATIENT) as way:
        await way.site.fleet.start()
        found = await outages.failed_over(way)
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"])


async def test_failover_behind(redis_url: str, tmp_path: Path) -> None:
    """What an asynchronous standby had not heard of is gone with its primary, until its producer publishes it again."""
    async with outages.way_to_postgres(redis_url, tmp_path) as way:
        await way.site.fleet.start()
        assert (2 * EVENTS, 2 * EVENTS) == await outages.failed_over_behind(way, EVENTS)
