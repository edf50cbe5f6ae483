"""Heads that are stored elsewhere, and exports that are verified without their table, by real commands."""

from pathlib import Path

import pytest

from tests.cli.command import hookseal
from tests.cli.installation import Begun
from tests.cli.test_audit import changed, quoted, tamper

DEEP = '{"a":' + "[" * 900 + "]" * 900 + "}"


@pytest.mark.req("SEC-14", part="verify")
@pytest.mark.req("OPS-04", part="json")
async def test_heads_need_no_key(begun: Begun) -> None:
    """`audit heads` prints each chain's last number and MAC, like `verify`, without a key and with read-only rights."""
    await changed(begun, 1, 2)
    await changed(begun, 1, tenant="globex")
    verified = (await begun.run("audit", "verify", "--json")).json["tenants"]
    expected = [{name: each[name] for name in ("tenant_id", "head_sequence", "head_mac")} for each in verified]
    await begun.stored.pool.execute(
        "ALTER ROLE CURRENT_USER IN DATABASE " + await quoted(begun) + " SET role = hookseal_readonly"
    )
    settings = {"HOOKSEAL_ENV": "development", "DATABASE_URL": begun.settings["DATABASE_URL"]}
    heads = await hookseal("audit", "heads", "--json", **settings)
    assert (0, "", {"tenants": expected}) == (heads.code, heads.err, heads.json)
    one = await hookseal("audit", "heads", "--tenant", "acme", **settings)
    assert (0, f"acme: row 2, MAC {expected[0]['head_mac']}\n") == (one.code, one.out)
    nobody = await hookseal("audit", "heads", "--tenant", "never-seen", "--json", **settings)
    assert (3, "tenant") == (nobody.code, nobody.json["error"]["field"])


async def test_an_empty_log_has_no_heads(begun: Begun) -> None:
    """A log without rows has no heads."""
    assert {"tenants": []} == (await begun.run("audit", "heads", "--json")).json
    assert "no audit rows\n" == (await begun.run("audit", "heads")).out


@pytest.mark.req("SEC-14", part="verify")
async def test_other_commands_read_the_output_of_heads(begun: Begun, tmp_path: Path) -> None:
    """`audit verify --head` and `restore accept --head` read its output, from a file or standard input."""
    await changed(begun, 1, 2)
    heads = await begun.run("audit", "heads", "--json")
    (tmp_path / "heads.json").write_text(heads.out, encoding="utf-8")
    await changed(begun, 3)
    for source, given in ((str(tmp_path / "heads.json"), b""), ("-", heads.out.encode())):
        whole = await begun.fed(given, "audit", "verify", "--head", source, "--json")
        assert (0, True, []) == (whole.code, whole.json["intact"], whole.json["contradicted"])
    accepted = await begun.fed(heads.out.encode(), "restore", "accept", "--head", "-", "--json")
    assert (0, []) == (accepted.code, accepted.json["contradicted"])


@pytest.mark.req("SEC-14", part="verify")
async def test_an_altered_head_is_reported(begun: Begun, tmp_path: Path) -> None:
    """`audit heads` and comparisons report an altered head; all other heads are compared as usual."""
    await changed(begun, 1, 2)
    await changed(begun, 1, tenant="globex")
    await begun.stored.pool.execute(
        "INSERT INTO hookseal.audit_heads VALUES ('Not a tenant', 7, decode(repeat('ab', 32), 'hex'));"
        " UPDATE hookseal.audit_heads SET mac = '\\x00' WHERE tenant_id = 'globex'"
    )
    heads = await begun.run("audit", "heads", "--json")
    assert (0, 3) == (heads.code, len(heads.json["tenants"]))
    assert ["Not a tenant", "globex"] == sorted(line.split(": ")[1] for line in heads.err.splitlines())
    file = tmp_path / "heads.json"
    file.write_text(heads.out, encoding="utf-8")
    await begun.stored.pool.execute(
        "DELETE FROM hookseal.audit_heads WHERE tenant_id = 'Not a tenant'; UPDATE hookseal.audit_heads AS h"
        " SET mac = l.mac FROM hookseal.audit_log AS l WHERE l.tenant_id = 'globex' AND h.tenant_id = 'globex'"
    )
    expected = {"Not a tenant": "older", "globex": "forked"}
    for more in ([], ["--tenant", "acme"]):
        ended = await begun.run("audit", "verify", "--head", str(file), "--json", *more)
        assert (int(not more), {} if more else expected) == (
            ended.code,
            {one["tenant_id"]: one["is"] for one in ended.json["contradicted"]},
        )
    accepted = await begun.run("restore", "accept", "--head", str(file), "--json")
    assert (0, expected) == (accepted.code, {one["tenant_id"]: one["is"] for one in accepted.json["contradicted"]})
    assert 0 == (await begun.run("audit", "verify", "--head", str(file))).code
    await tamper(begun, "DELETE FROM hookseal.audit_log WHERE tenant_id = 'acme' AND sequence = 2")
    again = await begun.run("audit", "verify", "--head", str(file), "--json")
    assert (1, ["acme"]) == (again.code, [one["tenant_id"] for one in again.json["contradicted"]])


@pytest.mark.req("SEC-14", part="export")
async def test_an_export_verifies_without_its_table(begun: Begun, tmp_path: Path) -> None:
    """Without table and heads, an export is still verified with the installation's key, and compared with heads."""
    await changed(begun, 1, 2, 3)
    await changed(begun, 1, tenant="globex")
    (tmp_path / "audit.jsonl").write_text((await begun.run("audit", "export")).out, encoding="utf-8")
    (tmp_path / "heads.json").write_text((await begun.run("audit", "heads", "--json")).out, encoding="utf-8")
    expected = (await begun.run("audit", "verify", "--json")).json
    await tamper(begun, "TRUNCATE hookseal.audit_log, hookseal.audit_heads")
    of_file = (
        "audit",
        "verify",
        "--from-export",
        str(tmp_path / "audit.jsonl"),
        "--head",
        str(tmp_path / "heads.json"),
    )

    whole = await begun.run(*of_file, "--json")
    assert (0, "", expected) == (whole.code, whole.err, whole.json)
    one = await begun.run(*of_file, "--tenant", "globex", "--json")
    assert (0, ["globex"]) == (one.code, [each["tenant_id"] for each in one.json["tenants"]])
    unknown = await begun.run("audit", "verify", *of_file[2:4], "--tenant", "never-seen", "--json")
    assert (3, "tenant") == (unknown.code, unknown.json["error"]["field"])

    lines = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "audit.jsonl").write_text("".join(lines[:2] + lines[3:]), encoding="utf-8")
    short = await begun.run(*of_file, "--json")
    assert (1, False) == (short.code, short.json["intact"])
    assert [("acme", "older")] == [(head["tenant_id"], head["is"]) for head in short.json["contradicted"]]
    (tmp_path / "audit.jsonl").write_text("".join(lines).replace('"endpoint:2"', '"endpoint:9"'), encoding="utf-8")
    text = await begun.run(*of_file)
    assert (1, "acme: BROKEN at row 2: the row was altered") == (text.code, text.out[:42])


@pytest.mark.req("SEC-14", part="export")
async def test_an_export_verifies_from_standard_input(begun: Begun) -> None:
    """An export is verified while it is read from standard input; a forged row in it is found."""
    await changed(begun, 1, 2)
    exported = (await begun.run("audit", "export")).out
    whole = await begun.fed(exported.encode(), "audit", "verify", "--from-export", "-", "--json")
    assert (0, [2]) == (whole.code, [each["rows"] for each in whole.json["tenants"]])
    await tamper(begun, f"UPDATE hookseal.audit_log SET after = '{DEEP}' WHERE sequence = 2")  # noqa: S608 -- ours
    listed = await begun.run("audit", "list", "--json")
    assert (0, DEEP) == (listed.code, listed.json["items"][0]["after"])
    forged = (await begun.run("audit", "export")).out
    broken = await begun.fed(forged.encode(), "audit", "verify", "--from-export", "-", "--json")
    assert (1, {"sequence": 2, "reason": "altered"}) == (broken.code, broken.json["tenants"][0]["broken"])


@pytest.mark.req("OPS-04", part="errors")
async def test_another_file_than_an_export_is_refused(begun: Begun, tmp_path: Path) -> None:
    """An absent or empty file, a wrong or too long line, and two files on one input exit 2."""
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_text('{"tenant_id": "acme"}\n', encoding="utf-8")
    with (tmp_path / "long").open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    for name, message in (
        ("missing", "cannot be read"),
        ("empty", "has no row"),
        ("other", "line 1 was not printed by"),
        ("long", "more than 16777216 bytes"),
        (".", "cannot be read"),
    ):
        ended = await begun.run("audit", "verify", "--from-export", str(tmp_path / name), "--json")
        assert (2, "from_export") == (ended.code, ended.json["error"]["field"])
        assert message in ended.json["error"]["message"]
    both = await begun.run("audit", "verify", "--from-export", "-", "--head", "-", "--json")
    assert (2, "from_export") == (both.code, both.json["error"]["field"])
