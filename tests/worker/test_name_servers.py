"""Names stop resolving while no connection is kept: deliveries fail as `dns`, breakers open, and nothing is lost."""

from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest

from hookseal.operations.secret import clear_caches
from tests import forked
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

EVENTS = 40
HELD = "SELECT count(*) FROM hookseal.deliveries WHERE waiting_for = 'breaker'"
FAILED = "SELECT outcome, count(*) FROM hookseal.attempts WHERE outcome <> 'delivered' GROUP BY outcome"
LEFT = "SELECT count(*) FROM hookseal.deliveries WHERE state <> 'delivered'"


async def nameless(environment: Mapping[str, str], log: IO[bytes]) -> Process:
    """Start a worker without name servers."""
    module = "tests.worker.nameless_worker"
    return await forked.start("worker", module=module, env=environment, stdout=PIPE, stderr=log, start_new_session=True)


@pytest.mark.req("DUR-04")
async def test_an_outage_of_the_name_servers_loses_nothing(world: World, receiver: Receiver, tmp_path: Path) -> None:
    """It costs an endpoint a few attempts, then its breaker opens; `cache-clear` sends all at once afterwards."""
    (outage := tmp_path / "outage").touch()
    await world.endpoint(f"{receiver.base_url.replace('127.0.0.1', 'localhost')}/hook")
    async with world.worker_by(nameless, NAMELESS=str(outage)):
        for _ in range(EVENTS):
            await world.publish()
        await eventually(lambda: world.pool.fetchval(HELD))
        [failures] = await world.pool.fetch(FAILED)
        assert [] == receiver.received
        outage.unlink()

        async def all_arrived() -> bool:
            async with world.pool.acquire() as connection:
                await clear_caches(world.installation.operator(connection))
            return not await world.pool.fetchval(LEFT)

        await eventually(all_arrived, within=60)

    assert "dns" == failures["outcome"]
    assert 10 <= failures["count"] < EVENTS
    assert EVENTS == len(receiver.received)
