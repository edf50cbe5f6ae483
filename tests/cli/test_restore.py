"""`hookseal restore` lists stale rows and accepts them; `audit verify --head` compares with stored heads."""

from pathlib import Path

import pytest

from tests import rows
from tests.cli.installation import Begun

pytestmark = [pytest.mark.req("SEC-24", part="accept"), pytest.mark.timeout(300)]

_RESTORED = """
ALTER TABLE hookseal.audit_log DISABLE TRIGGER USER;
DELETE FROM hookseal.audit_log WHERE tenant_id = 'acme' AND sequence > 1;
UPDATE hookseal.audit_heads AS h SET sequence = 1, mac = (SELECT mac FROM hookseal.audit_log WHERE tenant_id = 'acme')
 WHERE tenant_id = 'acme';
ALTER TABLE hookseal.audit_log ENABLE TRIGGER USER
"""


async def rotated(begun: Begun) -> str:
    """Add an endpoint, copy its row, rotate its secret with an overlap; return its id."""
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await begun.stored.pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints")
    ended = await begun.run("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint, "--json")
    assert 0 == ended.code
    return endpoint


async def put_back(begun: Begun) -> None:
    """Replace the row with its copy from before the rotation."""
    await begun.stored.pool.execute(
        "UPDATE hookseal.endpoints AS e SET secret_ref = k.secret_ref, generation = k.generation, mac = k.mac,"
        " previous_secret_ref = NULL, previous_secret_expires_at = NULL, previous_scheme = NULL,"
        " previous_algorithm = NULL FROM kept AS k"
    )


async def test_without_stale_rows_check_exits_0(begun: Begun) -> None:
    """If nothing is stale, `restore check` exits 0 and lists nothing, as text and JSON."""
    await rotated(begun)

    checked = await begun.run("restore", "check")
    assert 0 == checked.code
    assert checked.out.startswith(
        "rows and audit log agree; they cannot show whether all of the database is stale: compare it with a head "
    )
    assert {"items": [], "next_cursor": None} == (await begun.run("restore", "check", "--json")).json


async def test_a_stale_endpoint_works_once_accepted(begun: Begun, tmp_path: Path) -> None:
    """A stale row is listed (1) and cannot be changed until it is accepted; then it works as before."""
    endpoint = await rotated(begun)
    heads = tmp_path / "heads.json"
    heads.write_text((await begun.run("audit", "verify", "--json")).out)
    await put_back(begun)
    of = ("--tenant", "acme", "--endpoint", endpoint)

    found = await begun.run("restore", "check", "--json")
    assert (1, "endpoint", 1, 2) == (
        found.code,
        *(found.json["items"][0][name] for name in ("kind", "generation", "audited_generation")),
    )
    out = (await begun.run("restore", "check")).out
    assert "\nif you restored a backup, run `hookseal restore accept --head FILE`" in out
    assert "cannot be accepted" not in out
    assert 0 == (await begun.run("restore", "check", "--tenant", "bmce")).code
    refused = await begun.run("endpoint", "rotate", *of, "--json")
    assert (5, "stale_row") == (refused.code, refused.json["error"]["code"])
    assert "hookseal restore accept" in refused.json["error"]["message"]

    accepted = await begun.run("restore", "accept", "--head", str(heads), "--json")
    assert (0, [], []) == (accepted.code, *(accepted.json[name] for name in ("refused", "contradicted")))
    assert accepted.json["epoch"] == await begun.stored.pool.fetchval(
        "SELECT epoch FROM hookseal.control WHERE name = 'restore'"
    )
    assert [endpoint] == [one["endpoint_id"] for one in accepted.json["accepted"]]
    assert 0 == (await begun.run("restore", "check")).code
    assert 0 == (await begun.run("audit", "verify", "--head", str(heads))).code
    again = await begun.run("endpoint", "rotate", *of, "--json")
    assert (0, 4, 3) == (again.code, again.json["generation"], int(again.json["secret_ref"].rpartition(":")[2]))
    listed = (await begun.run("audit", "list", "--action", "restore.accepted", "--json")).json["items"]
    assert ["_system", "acme"] == sorted(item["tenant_id"] for item in listed)


@pytest.mark.req("SEC-24", part="whole-database")
async def test_a_stored_head_shows_a_stale_log(begun: Begun, tmp_path: Path) -> None:
    """A stored head shows that the log is older (1) until that is accepted, or that its history differs."""
    await rotated(begun)
    heads = tmp_path / "heads.json"
    heads.write_text((await begun.run("audit", "verify", "--json")).out)
    await begun.stored.pool.execute(_RESTORED)

    alone = await begun.run("audit", "verify", "--json")  # the row is newer than the restored log
    assert (1, [(2, 1)]) == (
        alone.code,
        [(one["generation"], one["audited_generation"]) for one in alone.json["unaudited"]],
    )
    await put_back(begun)
    assert 0 == (await begun.run("audit", "verify")).code
    older = await begun.run("audit", "verify", "--head", str(heads), "--json")
    assert (1, False) == (older.code, older.json["intact"])
    assert [("acme", 2, "older")] == [
        (one["tenant_id"], one["head_sequence"], one["is"]) for one in older.json["contradicted"]
    ]
    assert "STALE" in (await begun.run("audit", "verify", "--head", str(heads))).out
    assert 0 == (await begun.run("audit", "verify", "--head", str(heads), "--tenant", "bmce")).code - 3

    await begun.run("endpoint", "add", "--tenant", "acme", "--url", "https://b.example/", "--event-type", "*")
    forked = await begun.run("audit", "verify", "--head", str(heads), "--json")
    assert (1, ["forked"]) == (forked.code, [one["is"] for one in forked.json["contradicted"]])

    accepted = await begun.run("restore", "accept", "--head", str(heads), "--json")
    assert ["forked"] == [one["is"] for one in accepted.json["contradicted"]]
    assert 0 == (await begun.run("audit", "verify", "--head", str(heads))).code


async def test_another_file_than_heads_is_refused(begun: Begun, tmp_path: Path) -> None:
    """An absent file, one of another form and one without a head are refused (2); so is `--endpoint` alone."""
    other = tmp_path / "other"
    for content in (None, b"\xff", b"{}", b'{"tenants": []}'):
        if content is not None:
            other.write_bytes(content)
        for command in (("restore", "accept"), ("audit", "verify")):
            ended = await begun.run(*command, "--head", str(other), "--json")
            assert (2, "head") == (ended.code, ended.json["error"]["field"]), content
    await begun.stored.endpoint()
    printed = (await begun.run("audit", "verify", "--json")).out.encode()
    accept = ("restore", "accept", "--head", "-", "--json")
    alone = await begun.fed(printed, *accept, "--endpoint", "0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
    assert (2, "endpoint") == (alone.code, alone.json["error"]["field"])
    fed = await begun.fed(printed, *accept)
    assert (0, True) == (fed.code, fed.json["epoch"] > 0)


@pytest.mark.req("SEC-24", part="integrity-key")
async def test_the_integrity_key_is_rotated(begun: Begun) -> None:
    """JSON and text name the new version of the integrity key and those that only verify; the log still verifies."""
    await rotated(begun)
    made = await begun.run("key", "rotate-integrity", "--json")
    assert {"key_id": "2", "integrity_ref": "db:_system:integrity:2", "older": ["1"]} == made.json
    text = (await begun.run("key", "rotate-integrity")).out
    assert "integrity key 3 makes the MACs from now on; 1, 2 only verify\n" == text
    assert 0 == (await begun.run("audit", "verify")).code


async def test_endpoint_accepts_one_endpoint_only(begun: Begun) -> None:
    """With `--endpoint` only that endpoint is accepted, and the restore epoch stays."""
    urls = ("https://one.example/", "https://other.example/")
    one, other = [(await begun.stored.endpoint(url=url)).pointer.endpoint_id for url in urls]
    await rows.change(begun.stored.pool, "secret_records", where="tenant_id = 'acme'", state="retired")
    heads = (await begun.run("audit", "verify", "--json")).out.encode()
    accept = ("restore", "accept", "--head", "-", "--tenant", "acme", "--endpoint", other, "--json")
    accepted = await begun.fed(heads, *accept)
    assert (0, None, [other]) == (
        accepted.code, accepted.json["epoch"], [each["endpoint_id"] for each in accepted.json["accepted"]]
    )  # fmt: skip
    left = (await begun.run("restore", "check", "--json")).json["items"]
    assert [(one, "record")] == [(each["endpoint_id"], each["kind"]) for each in left]


async def test_an_altered_row_is_listed_once(begun: Begun, tmp_path: Path) -> None:
    """A row that does not match its MAC is listed once (1); commands that show a stale row say so."""
    endpoint = await rotated(begun)
    of = ("--tenant", "acme", "--endpoint", endpoint)
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET lead = 'current'")
    (tmp_path / "heads.json").write_text((await begun.run("audit", "verify", "--json")).out)
    refused = await begun.run("restore", "accept", "--head", str(tmp_path / "heads.json"))
    assert (1, True) == (refused.code, "NOT accepted" in refused.out)
    altered = await begun.run("restore", "check", "--json")
    assert (1, [(endpoint, "altered")]) == (
        altered.code,
        [(one["endpoint_id"], one["kind"]) for one in altered.json["items"]],
    )
    out = (await begun.run("restore", "check")).out
    assert "\nan altered row cannot be accepted: restore what it was" in out
    assert "restore accept" not in out
    await begun.stored.pool.execute("UPDATE hookseal.endpoints SET lead = 'previous'")
    assert not (await begun.run("endpoint", "show", *of, "--json")).json["stale"]

    await put_back(begun)
    for shown in ("show", "rotation-status"):
        assert (await begun.run("endpoint", shown, *of, "--json")).json["stale"]
    assert (await begun.run("endpoint", "rotation-status", *of)).out.startswith("STALE")
    versions = (await begun.run("secret", "versions", *of, "--json")).json["items"]
    assert [False, False] == [version["signs"] for version in versions]
    assert versions[0]["needed"]  # according to the stale row, which would sign again if it was accepted
