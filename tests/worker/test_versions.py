"""Workers beside another version: its schema, and its settings."""

import pytest

from hookseal.postgres.schema import revision
from tests.cli.command import hookseal
from tests.schema.later import later_program
from tests.worker.environment import environment
from tests.worker.fleet import fleet
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

pytestmark = pytest.mark.req("OPS-13")

_SVIX = "case Scheme.STANDARD | Scheme.SVIX:"
# A later version with one more scheme: what `svix` is, under another name.
SCHEME_OF_LATER = {
    "ground/wire.py": ('    X_WEBHOOK = "x-webhook"\n', '    X_WEBHOOK = "x-webhook"\n    LATER = "later"\n'),
    "dispatcher/core/prepare.py": (_SVIX, "case Scheme.STANDARD | Scheme.SVIX | Scheme.LATER:"),
    "secrets/core/signing.py": (_SVIX, "case Scheme.STANDARD | Scheme.SVIX | Scheme.LATER:"),
}
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


async def test_what_this_version_cannot_sign_waits_for_a_later_one(world: World, receiver: Receiver) -> None:
    """Its endpoint is held, so that it costs a claim from time to time, and no attempt; nothing ends."""
    later = str(later_program(world.folder / "later", edits=SCHEME_OF_LATER))
    settings = environment(world.database_url, world.redis_url)
    options = (
        "--tenant",
        "acme",
        "--url",
        f"{receiver.base_url}/hook",
        "--event-type",
        "*",
        "--scheme",
        "later",
        "--print-secret",
    )
    added = await hookseal("endpoint", "add", *options, PYTHONPATH=later, **settings)
    assert 0 == added.code, added.err

    async with world.worker():
        [first] = await world.publish()
        held = await world.state(first, "pending", waiting_for="secret")
        assert (0, 0) == (held["attempts"], held["budget_spent"])
        assert "this version does not sign in the scheme" in held["last_error"]
        assert "a worker of the version that set it sends what waits" in held["last_error"]
        assert "rotate the secret with `--overlap 0`, and give a `--scheme` and an `--algorithm`" in held["last_error"]
        [second] = await world.publish()
        await world.state(second, "pending", waiting_for="secret")
        assert 11 < await world.pool.fetchval("SELECT step_seconds FROM hookseal.held_endpoints") < 19  # until a probe
    assert [] == receiver.received

    async with world.worker(PYTHONPATH=later):
        await world.probe_held()
        await world.delivered(first, second)
    assert 2 == len([each for each in receiver.received if "svix-signature" in each.headers])
