"""On which revisions a version runs, and which migrations wait for workers that are too old."""

from pathlib import Path

import pytest

from hookseal.dispatcher.core import endpoint_rules
from hookseal.errors import ConfigError, Refused
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import fingerprint, revision, upgrade
from tests.cli.command import hookseal
from tests.schema.later import later_program, make_later

pytestmark = pytest.mark.req("OPS-13")

OWN = revision.EXPECTED
WORKER = "INSERT INTO hookseal.workers (id, version, drain_seconds, lease_seconds, key_ids"
NOTE = "ALTER TABLE hookseal.deliveries ADD COLUMN note text"


async def set_revision(pool: Pool, at: str, runs_from: str | None) -> None:
    await pool.execute("UPDATE hookseal.alembic_version SET version_num = $1, runs_from = $2", at, runs_from)


@pytest.mark.parametrize("runs_from", [OWN, "0001"])
async def test_a_newer_schema_may_admit_this_version(pool: Pool, runs_from: str) -> None:
    """What the newer revision looks like is unknown here, so it is not compared."""
    await set_revision(pool, "9998", runs_from)
    await pool.execute(NOTE)
    await revision.require(pool)
    await fingerprint.require(pool)


@pytest.mark.parametrize(
    ("runs_from", "said"),
    [("9997", ", and the schema needs one that knows 9997"), (None, "")],
)
async def test_a_newer_schema_refuses_what_is_too_old(pool: Pool, runs_from: str | None, said: str) -> None:
    await set_revision(pool, "9998", runs_from)
    with pytest.raises(ConfigError, match=rf"at revision 9998, this version knows up to {OWN}{said}: install a newer"):
        await revision.require(pool)


async def test_a_version_runs_on_the_revisions_before_its_own(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs on them back to the oldest that it needs; the schema must be as that revision makes it."""
    monkeypatch.setattr(revision, "EXPECTED", "9998")
    await revision.require(pool)
    await fingerprint.require(pool)
    await pool.execute(NOTE)
    with pytest.raises(ConfigError, match=rf"says revision {OWN}, but .* column deliveries.note is unknown"):
        await fingerprint.require(pool)
    monkeypatch.setattr(revision, "OLDEST", "9997")
    with pytest.raises(ConfigError, match=rf"at revision {OWN}, this version needs 9997 to 9998") as caught:
        await revision.require(pool)
    assert "run `hookseal db upgrade`" == caught.value.advice


async def test_the_latest_migration_says_which_versions_run_on_it(pool: Pool) -> None:
    assert "0001" == await revision.runs_from(pool)


async def test_without_a_word_no_older_version_runs(
    pool: Pool, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that says nothing admits its own version alone."""
    later = make_later(tmp_path, monkeypatch, NOTE)
    script = tmp_path / "later/versions" / f"rev_{later}.py"
    script.write_text(script.read_text(encoding="utf-8").replace("runs_from", "ran_from"), encoding="utf-8")
    assert later == await upgrade.upgrade(database_url)
    assert later == await revision.runs_from(pool)


async def test_a_later_migration_does_not_admit_what_an_earlier_one_excluded(
    pool: Pool, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older version cannot run on what the earlier one has changed, whatever the later one adds."""
    breaking = f"{int(OWN) + 1:04}"
    assert breaking == make_later(tmp_path / "breaking", monkeypatch, NOTE, runs_from=breaking)
    adding = make_later(tmp_path / "adding", monkeypatch, "CREATE TABLE hookseal.notes ()", runs_from=OWN)

    assert adding == await upgrade.upgrade(database_url)
    assert breaking == await revision.runs_from(pool)


async def test_a_migration_waits_for_workers_that_are_too_old(
    pool: Pool, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live worker that may not run on the new revision stops the migration, and is named; others do not."""
    later = f"{int(OWN) + 1:04}"
    await pool.execute(f"{WORKER}) VALUES ('of-0001', '0.0', 25, 45, '{{}}')")
    await pool.execute(f"{WORKER}, revision) VALUES ('w-old', '0.1', 25, 45, '{{}}', '{OWN}')")
    await pool.execute(f"{WORKER}, revision) VALUES ('w-new', '0.2', 25, 45, '{{}}', '{later}')")
    await pool.execute(f"{WORKER}, beaten_at) VALUES ('w-dead', '0.0', 25, 45, '{{}}', now() - interval '31 seconds')")
    assert later == make_later(tmp_path, monkeypatch, NOTE, runs_from=later)

    refusal = rf"only versions that know revision {later} run on {later}, and 2 live workers are older: "
    named = r"of-0001 \(version 0.0, knows 0001\), w-old "
    with pytest.raises(Refused, match=rf"{refusal}{named}.*stays at {OWN}") as caught:
        await upgrade.upgrade(database_url)
    assert 5 == caught.value.exit_code
    assert (OWN, "0001") == (await revision.current(pool), await revision.runs_from(pool))

    await pool.execute("DELETE FROM hookseal.workers WHERE revision < $1 AND id <> 'w-dead'", later)
    assert later == await upgrade.upgrade(database_url)
    assert later == await revision.runs_from(pool)


async def test_a_migration_that_admits_them_does_not_wait(
    pool: Pool, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute(f"{WORKER}, revision) VALUES ('w-old', '0.1', 25, 45, '{{}}', '{OWN}')")
    later = make_later(tmp_path, monkeypatch, NOTE)
    assert later == await upgrade.upgrade(database_url)
    assert OWN == await revision.runs_from(pool)


async def test_the_commands_of_both_versions_say_how_the_schema_fits(database_url: str, tmp_path: Path) -> None:
    """`db status` and `db upgrade` of a version and of the one before it, before the upgrade and after it."""
    later = f"{int(OWN) + 1:04}"
    new = {"PYTHONPATH": str(later_program(tmp_path, NOTE)), "DATABASE_URL": database_url}
    old = {"DATABASE_URL": database_url}

    before = await hookseal("db", "status", **new)
    assert (1, "") == (before.code, before.err)
    own = f"revision {OWN}, this version needs {later}, and also runs on this one: run `hookseal db upgrade`"
    assert before.out.startswith(f"{own}\n")
    assert f": the schema is as revision {OWN} makes it" in before.out
    found = (await hookseal("db", "status", "--json", **new)).json
    assert (True, False, "0001") == (found["runs"], found["up_to_date"], found["runs_from"])
    upgraded = await hookseal("db", "upgrade", **new)
    assert (0, f"upgraded from {OWN} to {later}\n") == (upgraded.code, upgraded.out)

    after = await hookseal("db", "status", **old)
    assert (0, "") == (after.code, after.err)
    newer = f"the schema is newer, and versions that know {OWN} or newer run on it"
    assert after.out.startswith(f"revision {later}, this version needs {OWN}: {newer}\n")
    assert f": this version does not know what revision {later} makes" in after.out
    again = await hookseal("db", "upgrade", **old)
    kept = f"already at revision {later}, newer than this version's {OWN}, which runs on it: nothing was changed\n"
    assert (0, kept) == (again.code, again.out)


@pytest.mark.pure
def test_the_upgrade_takes_the_same_workers_for_live() -> None:
    """The number stands twice, because the schema is a room below that of endpoints."""
    assert endpoint_rules.LIVE_SECONDS == upgrade.LIVE_SECONDS
