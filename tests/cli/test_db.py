"""`hookseal db` creates the tables, and says whether they are those of this version."""

import asyncpg
import pytest

from hookseal.postgres.schema import revision
from tests.cli.command import hookseal, python
from tests.cli.listeners import closed_port

_WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None
from hookseal.cli.main import main
main()
"""


@pytest.mark.req("OPS-04", part="db")
async def test_upgrade_may_be_repeated(empty_database_url: str) -> None:
    """`status` exits 1 on an empty database and 0 after `upgrade`, which may be repeated."""
    before = await hookseal("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert 1 == before.code
    assert {
        "revision": None,
        "expected": revision.EXPECTED,
        "runs_from": None,
        "runs": False,
        "up_to_date": False,
        "plaintext_column": None,
        "fingerprint": None,
        "expected_fingerprint": None,
        "differences": [],
    } == before.json

    first = await hookseal("db", "upgrade", "--json", DATABASE_URL=empty_database_url)
    assert (0, "") == (first.code, first.err)
    compared = {name: first.json[name] for name in ("fingerprint", "expected_fingerprint", "differences")}
    assert (compared["expected_fingerprint"], []) == (compared["fingerprint"], compared["differences"])
    made = {"revision": revision.EXPECTED, "previous_revision": None, "plaintext_column": "there"}
    assert made | compared == first.json
    again = await hookseal("db", "upgrade", DATABASE_URL=empty_database_url)
    assert (0, f"already at revision {revision.EXPECTED}\n") == (again.code, again.out)

    after = await hookseal("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert 0 == after.code
    fits = {"runs_from": "0001", "runs": True, "up_to_date": True, "plaintext_column": "there"}
    assert {"revision": revision.EXPECTED, "expected": revision.EXPECTED} | fits | compared == after.json


@pytest.mark.req("OPS-10")
async def test_roles_names_what_is_above_or_missing(database_url: str) -> None:
    """`roles` prints the smallest sets, with no database; `--strict` exits 1 and names each right above or missing."""
    printed = await hookseal("db", "roles", DATABASE_URL=f"postgresql://nobody@127.0.0.1:{closed_port()}/x")
    assert (0, "") == (printed.code, printed.err)
    assert "hookseal_worker, to remove (worker)\n  EXECUTE on function hookseal.remove_deliveries(" in printed.out
    sound = await hookseal("db", "roles", "--strict", DATABASE_URL=database_url)
    assert (0, "each role has the smallest set\n") == (sound.code, sound.out)

    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "GRANT UPDATE (url) ON hookseal.endpoints TO hookseal_worker;"
        "REVOKE EXECUTE ON FUNCTION hookseal.remove_tokens() FROM hookseal_worker"
    )
    await connection.close()
    strict = await hookseal("db", "roles", "--strict", DATABASE_URL=database_url)
    assert 1 == strict.code
    assert (
        "above    hookseal_worker: UPDATE (url) on table hookseal.endpoints\n"
        "missing  hookseal_worker: EXECUTE on function hookseal.remove_tokens(), for: remove\n"
    ) == strict.out
    as_json = await hookseal("db", "roles", "--strict", "--json", DATABASE_URL=database_url)
    above = {"role": "hookseal_worker", "object": "table hookseal.endpoints", "privilege": "UPDATE"}
    assert (1, [above | {"columns": ["url"], "step": None}]) == (as_json.code, as_json.json["above"])
    assert ["remove"] == [each["step"] for each in as_json.json["missing"]]
    assert "worker" == as_json.json["processes"]["hookseal_worker"]


@pytest.mark.req("OPS-09", part="compared")
async def test_what_differs_is_named(database_url: str) -> None:
    """`status` and `upgrade` exit 1 and name what is missing; a further index is named, and both exit 0."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE INDEX mine ON hookseal.events (event_type)")
    added = await hookseal("db", "status", "--json", DATABASE_URL=database_url)
    mine = {"object": "index mine on events", "how": "unknown", "is_allowed": True}
    assert (0, True, [mine]) == (added.code, added.json["up_to_date"], added.json["differences"])
    assert added.json["fingerprint"] != added.json["expected_fingerprint"]

    await connection.execute("DROP TRIGGER deliveries_date_end ON hookseal.deliveries")
    await connection.close()
    gone = {"object": "trigger deliveries_date_end on deliveries", "how": "missing", "is_allowed": False}
    for command in ("status", "upgrade"):
        ended = await hookseal("db", command, "--json", DATABASE_URL=database_url)
        assert (1, [mine, gone]) == (ended.code, ended.json["differences"])
        text = (await hookseal("db", command, DATABASE_URL=database_url)).out
        assert "trigger deliveries_date_end on deliveries is missing" in text
    assert not (await hookseal("db", "status", "--json", DATABASE_URL=database_url)).json["up_to_date"]


@pytest.mark.req("OPS-09", part="compared")
async def test_a_database_of_an_older_line_is_named(database_url: str) -> None:
    """A higher revision without the mark of this line is no newer one: `status` and `upgrade` say what it is."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("COMMENT ON SCHEMA hookseal IS NULL")
    await connection.execute("UPDATE hookseal.alembic_version SET version_num = '0006'")
    await connection.close()
    status = await hookseal("db", "status", DATABASE_URL=database_url)
    upgrade = await hookseal("db", "upgrade", DATABASE_URL=database_url)
    assert (1, 78) == (status.code, upgrade.code)
    for said in (status.out, upgrade.err):
        assert "from a build before the first release" in said
        assert "newer" not in said


async def test_the_text_says_what_to_do(empty_database_url: str) -> None:
    """The text says which revision exists, which is needed and what to do."""
    before = await hookseal("db", "status", DATABASE_URL=empty_database_url)
    expected = f"revision none, this version needs {revision.EXPECTED}: run `hookseal db upgrade`\n"
    assert (1, expected) == (before.code, before.out)
    upgraded = await hookseal("db", "upgrade", DATABASE_URL=empty_database_url)
    assert (0, f"upgraded from nothing to {revision.EXPECTED}\n") == (upgraded.code, upgraded.out)


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize("command", ["upgrade", "status"])
async def test_an_unreachable_database_is_named_without_its_password(command: str) -> None:
    """If the database does not answer it exits 69 with the address and without the password."""
    port = closed_port()
    ended = await hookseal("db", command, "--json", DATABASE_URL=f"postgresql://user:hunter2@127.0.0.1:{port}/db")
    assert (69, "") == (ended.code, ended.err)
    assert "unavailable" == ended.json["error"]["code"]
    assert f"PostgreSQL at 127.0.0.1:{port} does not answer" in ended.json["error"]["message"]
    assert "hunter2" not in ended.out


@pytest.mark.parametrize("module", ["alembic", "sqlalchemy"])
async def test_upgrade_names_the_missing_extra(module: str, empty_database_url: str) -> None:
    """Without the extra `migrate`, `upgrade` names the extra; `status` does not need it."""
    ended = await python("-c", _WITHOUT, module, "db", "upgrade", DATABASE_URL=empty_database_url)
    expected = f"hookseal: {module} is not installed: from the checkout, pip install '.[migrate]'\n"
    assert (69, expected) == (ended.code, ended.err)
    if module == "sqlalchemy":
        ended = await python("-c", _WITHOUT, module, "db", "status", DATABASE_URL=empty_database_url)
        assert (1, "") == (ended.code, ended.err)


async def test_only_database_url_is_required() -> None:
    """Only DATABASE_URL is required, but every setting that is present is checked."""
    ended = await hookseal("db", "status", SECRETS_PROVIDER="none")
    assert 78 == ended.code
    assert ["DATABASE_URL", "SECRETS_PROVIDER"] == [
        line.removeprefix("hookseal: ").split()[0] for line in ended.err.splitlines()
    ]
