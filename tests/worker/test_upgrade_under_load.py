"""`db upgrade` to a later revision while producers publish and a worker delivers: nothing is refused or lost."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from hookseal.postgres.schema import revision
from hookseal.postgres.schema.upgrade import upgrade
from tests.schema.later import make_later
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

# What a migration may do to tables in use, and which locks it takes; the second statement rewrites its table.
STATEMENTS: Final = (
    "ALTER TABLE hookseal.deliveries ADD COLUMN note text",
    "ALTER TABLE hookseal.events ADD COLUMN size integer GENERATED ALWAYS AS (octet_length(body)) STORED",
    "CREATE INDEX deliveries_noted ON hookseal.deliveries (note) WHERE note IS NOT NULL",
    "ALTER TABLE hookseal.endpoints ALTER COLUMN timeout_ms SET DEFAULT 6000",
    "CREATE TABLE hookseal.notes (tenant_id text PRIMARY KEY)",
    "GRANT SELECT ON hookseal.notes TO hookseal_worker",
)
AROUND: Final = 40  # events of each producer before and after the upgrade
DELIVERED: Final = "SELECT DISTINCT delivery_id::text AS id FROM hookseal.attempts WHERE outcome = 'delivered'"


class Load:
    """Publishes without a pause until the upgrade is over, and a fixed number of events more."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.published: list[str] = []
        self.has_begun, self.upgrade_is_over = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Publish, as one of several producers. Raises what publishing raises."""
        made, left = 0, AROUND
        while left:
            [ring] = await self._world.publish()
            self.published.append(ring.delivery_id)
            made += 1
            if made == AROUND:
                self.has_begun.set()
            left -= self.upgrade_is_over.is_set()


@pytest.mark.req("OPS-09", part="under-load")
async def test_an_upgrade_under_load_loses_no_delivery(
    world: World, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an upgrade producers wait for a moment and are not refused, and every event is delivered."""
    await world.endpoint(f"{receiver.base_url}/hook")
    load = Load(world)

    async def all_delivered() -> bool:
        return {row["id"] for row in await world.pool.fetch(DELIVERED)} == set(load.published)

    async with world.worker() as worker:
        producers = asyncio.gather(load.run(), load.run())
        await load.has_begun.wait()
        later = make_later(tmp_path, monkeypatch, *STATEMENTS)
        assert revision.EXPECTED == later == await upgrade(world.database_url)
        load.upgrade_is_over.set()
        await producers
        await eventually(all_delivered)
        ready, _ = await worker.get("/readyz")

    assert 200 == ready
    assert later == await revision.current(world.pool)
    assert len(load.published) == await world.pool.fetchval("SELECT count(*) FROM hookseal.events WHERE size > 0")
