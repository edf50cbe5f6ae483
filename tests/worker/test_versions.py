"""Workers beside another version: its schema, and its settings."""

import pytest

from hookseal.postgres.schema import revision
from tests.worker.environment import environment
from tests.worker.fleet import fleet
from tests.worker.waiting import eventually
from tests.worker.world import World

pytestmark = pytest.mark.req("OPS-13")

_WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock')
"""


async def test_a_worker_says_which_revision_it_knows(world: World) -> None:
    """A migration on which it may not run is refused by it."""
    async with world.worker() as worker:
        assert [(worker.worker_id, revision.EXPECTED)] == [
            tuple(row) for row in await world.pool.fetch("SELECT id, revision FROM hookseal.workers")
        ]


async def test_a_worker_that_starts_during_an_upgrade_asks_again(world: World) -> None:
    """It has read which revision there was before, then waits for the end of the upgrade, and may not run on that."""
    async with fleet(environment(world.database_url, world.redis_url), world.folder) as workers:
        async with world.pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE hookseal.workers IN ACCESS EXCLUSIVE MODE")
            await connection.execute("UPDATE hookseal.alembic_version SET version_num = '9999', runs_from = '9999'")
            worker = await workers.start(wait=False)
            await eventually(lambda: world.pool.fetchval(_WAITS))
        assert 78 == await worker.ended()
    said = worker.log_file.read_text(encoding="utf-8")
    assert "hookseal: the schema is at revision 9999, this version knows up to" in said


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_setting_of_another_version_is_logged_once(world: World, processes: str) -> None:
    """By its name; its value is in no line."""
    later = {"HOOKSEAL_LATER": "a-value-of-later", "HOOKSEAL_UNKNOWN_SETTINGS": "warn"}
    async with world.worker(HOOKSEAL_PROCESSES=processes, **later) as worker:
        pass
    assert ["HOOKSEAL_LATER"] == [line["setting"] for line in worker.logged("setting.unknown")]
    assert "a-value-of-later" not in worker.log_file.read_text(encoding="utf-8")
