"""`hookseal audit` lists the log, verifies that it is complete and unaltered, and exports it."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from hookseal.audit import log
from hookseal.audit.chain import Action, Change
from hookseal.ground.ids import TenantId
from tests.cli.command import hookseal, on_a_terminal
from tests.cli.installation import Begun

STEERING = "a\x1b[2J\x9b31m\r\u202eb"
SHOWN = [
    "tenant_id",
    "sequence",
    "at",
    "actor",
    "action",
    "subject",
    "before",
    "after",
    "correlation_id",
]


async def changed(begun: Begun, *numbers: int, tenant: str = "acme", action: Action = Action.ENDPOINT_UPDATED) -> None:
    """Append a row for each of the numbers."""
    async with begun.stored.pool.acquire() as connection, connection.transaction():
        for number in numbers:
            change = Change(
                tenant_id=TenantId(tenant),
                action=action,
                subject=f"endpoint:{number}",
                before={"generation": number},
                after={"generation": number + 1, "name": STEERING},
            )
            await log.append(connection, begun.stored.unlocked.integrity, "ada@example", change)


async def tamper(begun: Begun, statement: str) -> None:
    """Run the statement as the owner of the log, with the trigger that would refuse it disabled."""
    async with begun.stored.pool.acquire() as connection, connection.transaction():
        await connection.execute("ALTER TABLE hookseal.audit_log DISABLE TRIGGER USER")
        await connection.execute(statement)


@pytest.mark.req("OPS-04", part="json")
@pytest.mark.req("SEC-14", part="append")
async def test_the_newest_change_is_listed_first(begun: Begun) -> None:
    """The newest change is first, with its actor, its facts and its time to the microsecond."""
    await changed(begun, 1, 2)
    ended = await begun.run("audit", "list", "--tenant", "acme", "--json")
    second, first = ended.json["items"]

    assert (0, "", None) == (ended.code, ended.err, ended.json["next_cursor"])
    assert [SHOWN, SHOWN] == [list(first), list(second)]
    role = await begun.stored.pool.fetchval("SELECT session_user")
    at = await begun.stored.pool.fetchval("SELECT at FROM hookseal.audit_log WHERE tenant_id = 'acme' AND sequence = 2")
    assert {
        "tenant_id": "acme",
        "sequence": 2,
        "at": second["at"],
        "actor": f"{role}/ada@example",
        "action": "endpoint.updated",
        "subject": "endpoint:2",
        "before": {"generation": 2},
        "after": {"generation": 3, "name": STEERING},
        "correlation_id": None,
    } == second
    assert at == datetime.fromisoformat(second["at"])


async def test_list_has_filters_and_pages(begun: Begun) -> None:
    """Tenant, action and page size filter the rows, and the cursor continues after the page."""
    await changed(begun, 1, 2, 3)
    await changed(begun, 4, action=Action.CACHE_CLEARED)
    await changed(begun, 5, tenant="_system", action=Action.CACHE_CLEARED)
    for options, expected in (
        (("--tenant", "acme"), [4, 3, 2, 1]),
        (("--action", "cache.cleared"), [5, 4]),
        (("--action", "cache.cleared", "--tenant", "_system"), [5]),
        (("--action", "endpoint.updated", "--tenant", "globex"), []),
    ):
        listed = (await begun.run("audit", "list", *options, "--json")).json["items"]
        assert [f"endpoint:{number}" for number in expected] == [item["subject"] for item in listed]
    page = (await begun.run("audit", "list", "--tenant", "acme", "--limit", "3", "--json")).json
    rest = (await begun.run("audit", "list", "--tenant", "acme", "--cursor", page["next_cursor"], "--json")).json
    assert ([4, 3, 2], [1]) == tuple([item["sequence"] for item in each["items"]] for each in (page, rest))
    assert None is rest["next_cursor"]


async def test_the_text_cannot_control_the_terminal(begun: Begun) -> None:
    """The text is a table with a note on further pages; values cannot control the terminal."""
    assert "no audit rows\n" == (await begun.run("audit", "list", "--tenant", "acme")).out
    await changed(begun, 1, 2)
    await tamper(begun, "UPDATE hookseal.audit_log SET actor = E'a\\x1b[2Jb' WHERE tenant_id = 'acme'")
    table = (await begun.run("audit", "list", "--tenant", "acme", "--limit", "1")).out.splitlines()

    assert ["sequence", "age", "action", "actor", "subject"] == table[0].split()
    assert ["2", "endpoint.updated", "a\\x1b[2Jb", "endpoint:2"] == [*table[1].split()[:1], *table[1].split()[2:]]
    assert table[2].startswith("more: --cursor ")


@pytest.mark.req("SEC-14", part="verify")
@pytest.mark.req("OPS-04", part="json")
async def test_a_broken_log_exits_1_with_its_first_broken_row(begun: Begun) -> None:
    """An intact log exits 0 with each chain's rows and head; a broken one exits 1 and names the first broken row."""
    await changed(begun, 1, 2, 3)
    await changed(begun, 1, tenant="globex")
    whole = await begun.run("audit", "verify", "--json")
    tenants = {each.pop("tenant_id"): each for each in whole.json["tenants"]}
    mac = await begun.stored.pool.fetchval("SELECT mac FROM hookseal.audit_heads WHERE tenant_id = 'acme'")
    assert (0, "", True) == (whole.code, whole.err, whole.json["intact"])
    assert {"rows": 3, "head_sequence": 3, "head_mac": mac.hex(), "broken": None} == tenants["acme"]
    assert 1 == tenants["globex"]["rows"]

    await tamper(begun, "UPDATE hookseal.audit_log SET actor = 'eve' WHERE tenant_id = 'acme' AND sequence = 2")
    broken = await begun.run("audit", "verify", "--json")
    tenants = {each.pop("tenant_id"): each for each in broken.json["tenants"]}
    assert (1, "", False) == (broken.code, broken.err, broken.json["intact"])
    assert {"sequence": 2, "reason": "altered"} == tenants["acme"]["broken"]
    assert [1, None] == [tenants["acme"]["rows"], tenants["globex"]["broken"]]
    assert 0 == (await begun.run("audit", "verify", "--tenant", "globex", "--json")).code


async def test_verify_has_one_line_for_each_chain(begun: Begun) -> None:
    """The text has one line for each chain: its last row and MAC, or what is broken and where."""
    await changed(begun, 1, 2)
    await changed(begun, 1, tenant="globex")
    mac = await begun.stored.pool.fetchval("SELECT mac FROM hookseal.audit_heads WHERE tenant_id = 'acme'")
    whole = await begun.run("audit", "verify", "--tenant", "acme")
    assert (0, f"acme: intact up to row 2, MAC {mac.hex()}\n", "") == (whole.code, whole.out, whole.err)
    nothing = await begun.run("audit", "verify", "--tenant", "never-seen", "--json")
    assert (3, "tenant") == (nothing.code, nothing.json["error"]["field"])
    for statement, place in (
        ("UPDATE hookseal.audit_heads SET mac = ''", "row 2: the last row is not the one that the head"),
        ("UPDATE hookseal.audit_log SET mac_key_id = '9' WHERE sequence = 2", "row 2: the row names an unknown"),
        (
            "UPDATE hookseal.audit_log SET mac_key_id = '1', subject = '' WHERE sequence = 2",
            "row 2: the row was altered, or not written",
        ),
        ("DELETE FROM hookseal.audit_log WHERE sequence = 2", "row 2: this row and all after it are missing"),
        ("UPDATE hookseal.audit_log SET sequence = 2 WHERE tenant_id = 'acme'", "row 1: the row is missing"),
    ):
        await tamper(begun, statement)
        broken = await begun.run("audit", "verify", "--tenant", "acme")
        assert (1, "") == (broken.code, broken.err)
        assert broken.out.startswith(f"acme: BROKEN at {place}")


@pytest.mark.req("SEC-14", part="verify")
@pytest.mark.parametrize("source", [(), ("--from-export", "audit.jsonl")])
async def test_verify_shows_progress_on_a_terminal(begun: Begun, tmp_path: Path, source: tuple[str, ...]) -> None:
    """On a terminal, standard error counts the verified rows."""
    await changed(begun, 1, 2)
    (tmp_path / "audit.jsonl").write_text((await begun.run("audit", "export")).out, encoding="utf-8")
    verify = ("audit", "verify", *source, "--tenant", "acme", "--json")
    ended = await on_a_terminal(*verify, stream="stderr", **begun.settings, TERM="xterm")
    assert ended.json["intact"]
    assert "2/?" in ended.err


@pytest.mark.req("SEC-14", part="export")
async def test_export_writes_one_object_a_line(begun: Begun) -> None:
    """Every row is one JSON object on one line, oldest first, with its MACs in hex, with and without `--json`."""
    await changed(begun, 1, 2, 3)
    await changed(begun, 1, tenant="globex")
    ended = await begun.run("audit", "export", "--tenant", "acme")
    rows = [json.loads(line) for line in ended.out.splitlines()]

    assert (0, "") == (ended.code, ended.err)
    assert all(line.isprintable() for line in ended.out.splitlines())
    assert [1, 2, 3] == [row["sequence"] for row in rows]
    assert [*SHOWN, "previous_mac", "mac", "mac_key_id"] == list(rows[0])
    assert ["0" * 64, *(row["mac"] for row in rows[:2])] == [row["previous_mac"] for row in rows]
    assert {"generation": 2, "name": STEERING} == rows[0]["after"]
    assert ended.out == (await begun.run("audit", "export", "--tenant", "acme", "--json")).out
    everything = (await begun.run("audit", "export")).out
    assert ended.out in everything
    assert ["globex"] == [
        row["tenant_id"] for row in map(json.loads, everything.splitlines()) if row["tenant_id"] > "f"
    ]
    assert (0, "") == ((nothing := await begun.run("audit", "export", "--tenant", "never-seen")).code, nothing.out)


@pytest.mark.req("SEC-14", part="append")
async def test_list_and_export_need_no_key(begun: Begun) -> None:
    """`list` and `export` need no key, and only the right to read the log."""
    await changed(begun, 1)
    await begun.stored.pool.execute(
        "ALTER ROLE CURRENT_USER IN DATABASE " + await quoted(begun) + " SET role = hookseal_readonly"
    )
    settings = {"HOOKSEAL_ENV": "development", "DATABASE_URL": begun.settings["DATABASE_URL"]}
    for command in ("list", "export"):
        ended = await hookseal("audit", command, "--tenant", "acme", "--json", **settings)
        assert (0, "") == (ended.code, ended.err)
        assert "endpoint:1" in ended.out


async def quoted(begun: Begun) -> str:
    """Return the name of the database, quoted."""
    name: str = await begun.stored.pool.fetchval("SELECT quote_ident(current_database())")
    return name
