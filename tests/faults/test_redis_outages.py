"""Redis cut off, gone, frozen, killed and full: a worker survives it all, says so, resumes by itself, loses nothing."""

import signal
from pathlib import Path

import pytest

from tests.faults import outages
from tests.faults.cutting import Moment

pytestmark = [pytest.mark.timeout(180), pytest.mark.req("DUR-04")]


async def test_redis(database_url: str, tmp_path: Path) -> None:
    """One worker lives through every outage of Redis: nothing is lost, and none is a reason to send twice."""
    async with outages.way_to_redis(database_url, tmp_path) as way:
        await way.site.fleet.start()
        await outages.cut(way, outages.SAID_TO_REDIS, [Moment.HALF_SAID, Moment.UNANSWERED])
        await outages.gone(way, "redis")
        await outages.ended(way, "redis", signal.SIGKILL, durable=True)
        await outages.redis_full(way)
        await outages.ended(way, "redis", signal.SIGKILL, durable=False)
        await way.site.settled()
        assert [0] == await way.site.fleet.stop_all()
        found = await way.site.balance()
    found.require(lost=0, duplicates=0, unknown=0, requests=found.counts["deliveries"])
