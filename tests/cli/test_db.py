"""`hookseal db` creates the tables, and says whether they are those of this version."""

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
        "up_to_date": False,
        "plaintext_column": None,
    } == before.json

    first = await hookseal("db", "upgrade", "--json", DATABASE_URL=empty_database_url)
    assert (0, "") == (first.code, first.err)
    assert {"revision": revision.EXPECTED, "previous_revision": None, "plaintext_column": "there"} == first.json
    again = await hookseal("db", "upgrade", DATABASE_URL=empty_database_url)
    assert (0, f"already at revision {revision.EXPECTED}\n") == (again.code, again.out)

    after = await hookseal("db", "status", "--json", DATABASE_URL=empty_database_url)
    assert 0 == after.code
    expected = {"revision": revision.EXPECTED, "expected": revision.EXPECTED, "up_to_date": True}
    assert expected | {"plaintext_column": "there"} == after.json


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
    ended = await python("-c", _WITHOUT, module, "db", "status", DATABASE_URL=empty_database_url)
    assert (1, "") == (ended.code, ended.err)


async def test_only_database_url_is_required() -> None:
    """Only DATABASE_URL is required, but every setting that is present is checked."""
    ended = await hookseal("db", "status", SECRETS_PROVIDER="none")
    assert 78 == ended.code
    assert ["DATABASE_URL", "SECRETS_PROVIDER"] == [
        line.removeprefix("hookseal: ").split()[0] for line in ended.err.splitlines()
    ]
