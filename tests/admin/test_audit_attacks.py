"""Attacks on the log by someone who may write every table and change the schema, but lacks the integrity key.

Each attack has its own tenant; the Admin must name each of these, with the row and the flaw, and no other tenant.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from hookseal import Admin
from hookseal.audit import log
from hookseal.audit.chain import Action, Change
from hookseal.errors import Refused, StaleRow, with_advice
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.trust import IntegrityKey
from tests.audit.logs import FORGERS_KEY
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("SEC-14", part="verify")

ROWS = 4
# LOG and HEADS are the tables, OF is the tenant of the attack, ROW all columns except tenant, number and generation.
WORDS = {
    "LOG": "hookseal.audit_log",
    "HEADS": "hookseal.audit_heads",
    "OF": "tenant_id = 'TENANT'",
    "ROW": "at, actor, action, subject, before, after, correlation_id, previous_mac, mac, mac_key_id",
}
GONE = "DELETE FROM LOG WHERE OF"
HEAD_GONE = "DELETE FROM HEADS WHERE OF"
HEAD_BACK = """
UPDATE HEADS SET (sequence, mac) = (SELECT l.sequence, l.mac FROM LOG AS l WHERE OF ORDER BY l.sequence DESC LIMIT 1)
WHERE OF
"""
PUT_BACK = "INSERT INTO LOG (tenant_id, sequence, ROW) SELECT tenant_id, sequence, ROW FROM kept WHERE OF"
NO_KEYS = (
    "ALTER TABLE LOG DROP CONSTRAINT IF EXISTS audit_log_pkey",
    "ALTER TABLE LOG DROP CONSTRAINT IF EXISTS audit_log_sequence_check",
)
BY_HAND = "ALTER TABLE LOG ALTER COLUMN generation DROP EXPRESSION IF EXISTS"

# How each column of the log is altered, and the flaw that is then reported for the second row.
ALTERED_COLUMNS: Mapping[str, tuple[str, str]] = {
    "sequence": ("sequence = 9", "missing"),
    "at": ("at = at - interval '1 microsecond'", "altered"),
    "actor": ("actor = 'eve'", "altered"),
    "action": ("action = 'secret.revealed'", "altered"),
    "subject": ("subject = 'endpoint:9'", "altered"),
    "before": ("before = NULL", "altered"),
    "after": ("after = '{\"generation\":9}'", "altered"),
    "correlation_id": ("correlation_id = 'c'", "altered"),
    "previous_mac": ("previous_mac = mac", "altered"),
    "mac": ("mac = previous_mac", "altered"),
    "mac_key_id": ("mac_key_id = '2'", "unknown_key"),
}
# Columns that an UPDATE of the row alone does not attack, and the attack that does.
ATTACKED_OTHERWISE = {
    "tenant_id": "moved to another tenant",
    "generation": "generation made by hand",  # generated from `after`, so its expression is dropped first
}


def second(sets: str) -> str:
    """Return the statement that alters the second row in this way."""
    return "UPDATE LOG SET " + sets + " WHERE OF AND sequence = 2"  # noqa: S608 -- a test's own text


def copied(number: int) -> str:
    """Return the statement that inserts a copy of the second row, with another number."""
    numbered = f"SELECT tenant_id, {number}, ROW FROM LOG WHERE OF AND sequence = 2"  # noqa: S608 -- the same
    return "INSERT INTO LOG (tenant_id, sequence, ROW) " + numbered


def spelled(statement: str, tenant: str = "") -> str:
    """Return the statement with the table names and the tenant filled in."""
    for word, meaning in WORDS.items():
        statement = re.sub(rf"\b{word}\b", meaning, statement)
    return statement.replace("TENANT", tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """An attack on the chain of a tenant: statements, rows written with a key, statements; and the reported flaw.

    `kept` is how the log contradicts a head that was stored elsewhere, if the verification alone reports nothing.
    """

    first: tuple[str, ...] = ()
    written: int = 0
    key: IntegrityKey | None = None
    then: tuple[str, ...] = ()
    found: tuple[int, str] | None = None
    kept: str | None = None


ATTACKS: Mapping[str, Attack] = {
    **{
        f"{column} altered": Attack(first=(second(sets),), found=(2, flaw))
        for column, (sets, flaw) in ALTERED_COLUMNS.items()
    },
    "moved to another tenant": Attack(
        first=("UPDATE LOG SET tenant_id = 'receives', sequence = 5 WHERE OF AND sequence = 4",), found=(4, "truncated")
    ),
    "first deleted": Attack(first=(f"{GONE} AND sequence = 1",), found=(1, "missing")),
    "middle deleted": Attack(first=(f"{GONE} AND sequence = 3",), found=(3, "missing")),
    "last deleted": Attack(first=(f"{GONE} AND sequence = 4",), found=(4, "truncated")),
    "all deleted": Attack(first=(GONE,), found=(1, "truncated")),
    "middle deleted, rest moved up": Attack(
        first=(
            f"{GONE} AND sequence = 2",
            "UPDATE LOG SET sequence = 2 WHERE OF AND sequence = 3",
            "UPDATE LOG SET sequence = 3 WHERE OF AND sequence = 4",
            HEAD_BACK,
        ),
        found=(2, "altered"),
    ),
    "two swapped": Attack(
        first=(
            "UPDATE LOG SET sequence = 9 WHERE OF AND sequence = 2",
            "UPDATE LOG SET sequence = 2 WHERE OF AND sequence = 3",
            "UPDATE LOG SET sequence = 3 WHERE OF AND sequence = 9",
        ),
        found=(2, "altered"),
    ),
    "inserted at the end": Attack(first=(copied(5), HEAD_BACK), found=(5, "altered")),
    "inserted far behind": Attack(first=(copied(9),), found=(5, "missing")),
    "inserted twice": Attack(first=(*NO_KEYS, copied(2)), found=(2, "out_of_place")),
    "inserted before all": Attack(first=(*NO_KEYS, copied(0)), found=(0, "out_of_place")),
    "written on without the key": Attack(written=1, key=FORGERS_KEY, found=(5, "altered")),
    "written anew without the key": Attack(first=(GONE, HEAD_GONE), written=4, key=FORGERS_KEY, found=(1, "altered")),
    "a row of another history": Attack(
        first=(f"{GONE} AND sequence > 2", HEAD_BACK),
        written=2,
        then=(f"{GONE} AND sequence = 3", f"{PUT_BACK} AND sequence = 3"),
        found=(4, "unchained"),
    ),
    "head removed": Attack(first=(HEAD_GONE,), found=(4, "head")),
    "head of another tenant": Attack(first=("UPDATE HEADS SET tenant_id = 'renamed' WHERE OF",), found=(4, "head")),
    "head set back": Attack(first=("UPDATE HEADS SET sequence = 3 WHERE OF",), found=(4, "head")),
    "head set forth": Attack(first=("UPDATE HEADS SET sequence = 5 WHERE OF",), found=(5, "truncated")),
    "head with another mac": Attack(first=("UPDATE HEADS SET mac = sha256(mac) WHERE OF",), found=(4, "head")),
    "last deleted, head set back": Attack(first=(f"{GONE} AND sequence = 4", HEAD_BACK), kept="older"),
    "all deleted with the head": Attack(first=(GONE, HEAD_GONE), kept="older"),
    "another history with the head": Attack(first=(f"{GONE} AND sequence > 2", HEAD_BACK), written=3, kept="forked"),
    "nothing": Attack(),
    # Must be last: rows that are appended afterwards have no generation, and would be reported as well.
    "generation made by hand": Attack(first=(BY_HAND, second("generation = 1")), found=(2, "altered")),
}
BESIDE = {"receives": (5, "altered"), "renamed": (1, "truncated")}  # tenants that two of the attacks also affect
# Its rows are valid and its head is stored; then they are replaced by an older end of the chain, with its head.
REPLAYED = "replayed"


def tenant_of(name: str) -> str:
    """Return the tenant of an attack."""
    return name.replace(" ", "-").replace(",", "").replace("_", "-")


async def written(installation: Installation, tenant: str, *, rows: int, key: IntegrityKey | None = None) -> None:
    """Append that many rows to the chain of the tenant, with the key of the installation or another."""
    async with installation.pool.acquire() as connection, connection.transaction():
        for number in range(rows):
            change = Change(
                tenant_id=TenantId(tenant),
                action=Action.ENDPOINT_UPDATED,
                subject=f"endpoint:{number}",
                before={"generation": number + 5},
                after={"generation": number + 6},
            )
            await log.append(connection, key or installation.unlocked.integrity, "ada@desk", change)


def head_to_the_last_row(tenant: str) -> str:
    """Return the statement of the runbook that sets the head to the last existing row."""
    text = (Path(__file__).parents[2] / "docs" / "runbook-keys.md").read_text(encoding="utf-8")
    [statement] = re.findall(r"`(UPDATE\s+hookseal\.audit_heads [^`]+)`", text)
    return str(statement).replace("TENANT", tenant)


async def attack(installation: Installation, name: str) -> None:
    """Make the attack on its tenant."""
    tenant, what = tenant_of(name), ATTACKS[name]
    for statement in what.first:
        await tamper(installation, spelled(statement, tenant))
    await written(installation, tenant, rows=what.written, key=what.key)
    for statement in what.then:
        await tamper(installation, spelled(statement, tenant))


async def tamper(installation: Installation, statement: str) -> None:
    """Run the statement as the owner of the log, with the trigger that would refuse it disabled."""
    async with installation.pool.acquire() as connection, connection.transaction():
        await connection.execute("ALTER TABLE hookseal.audit_log DISABLE TRIGGER USER")
        await connection.execute(statement)


async def verified(
    admin: Admin, tenant: str = "*", heads: str | None = None
) -> tuple[bool, dict[str, Any], dict[str, str]]:
    """Return whether the log is intact, the broken row by tenant, and how saved heads are contradicted."""
    found = await admin.audit.verify(tenant_id=tenant, heads=heads)
    return (
        found.intact,
        {each.tenant_id: (each.broken.sequence, each.broken.reason) for each in found.tenants if each.broken},
        {each.tenant_id: each.how for each in found.contradicted},
    )


async def test_every_attack_is_found(admin: Admin, installation: Installation) -> None:
    """Each attack is reported with tenant, row and flaw, or, where the log alone cannot show it, by stored heads."""
    for tenant in (*map(tenant_of, ATTACKS), "receives", REPLAYED):
        await written(installation, tenant, rows=ROWS)
    await installation.pool.execute(spelled("CREATE TABLE kept AS SELECT * FROM LOG"))
    await tamper(installation, spelled(f"{GONE} AND sequence > 2", REPLAYED))
    await tamper(installation, spelled(HEAD_BACK, REPLAYED))
    await written(installation, REPLAYED, rows=2)
    assert (True, {}, {}) == await verified(admin)
    heads = json.dumps({"tenants": [asdict(each) for each in (await admin.audit.heads(tenant_id="*")).tenants]})

    await tamper(installation, spelled(f"{GONE} AND sequence > 2", REPLAYED))
    await tamper(installation, spelled(f"{PUT_BACK} AND sequence > 2", REPLAYED))
    await tamper(installation, spelled(HEAD_BACK, REPLAYED))
    for name in ATTACKS:
        await attack(installation, name)

    found = {tenant_of(name): what.found for name, what in ATTACKS.items() if what.found is not None} | BESIDE
    assert (False, found, {}) == await verified(admin)
    contradicted = {tenant_of(name): what.kept for name, what in ATTACKS.items() if what.kept} | {REPLAYED: "forked"}
    intact, still_found, by_heads = await verified(admin, heads=heads)
    assert (False, found) == (intact, still_found)
    assert contradicted == {tenant: how for tenant, how in by_heads.items() if tenant not in found}
    for tenant in (*contradicted, tenant_of("nothing")):
        alone = await verified(admin, tenant, heads)
        assert (tenant not in contradicted, {}) == alone[:2], tenant


@pytest.mark.req("SEC-14", part="append")
async def test_a_shortened_log_stops_every_change(admin: Admin, installation: Installation) -> None:
    """Every change is refused with what to run, until the head names the last existing row (runbook).

    The endpoint whose change is missing is unaudited then, and changed again once it is accepted.
    """
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    named: dict[str, Any] = {"tenant_id": "acme", "endpoint_id": endpoint, "actor": "ada"}
    revoked = named | {"overlap_seconds": 0}
    await admin.secrets.rotate(**revoked)
    await tamper(installation, spelled(f"{GONE} AND sequence = 2", "acme"))
    generation = "SELECT generation FROM hookseal.endpoints"

    with pytest.raises(Refused) as refused:
        await admin.endpoints.disable(**named)
    assert "see what was changed with `hookseal audit verify`" in with_advice(refused.value)
    assert 2 == await installation.pool.fetchval(generation)
    assert (False, {"acme": (2, "truncated")}, {}) == await verified(admin, "acme")
    await installation.pool.execute(head_to_the_last_row("acme"))
    assert (False, {}, {}) == await verified(admin, "acme")
    with pytest.raises(StaleRow, match="it has generation 2, the audit log knows 1"):
        await admin.secrets.rotate(**revoked)
    heads = json.dumps({"tenants": [asdict(each) for each in (await admin.audit.heads(tenant_id="*")).tenants]})
    accepted = await admin.restores.accept(heads=heads, **named)
    assert ["unaudited"] == [each.kind for each in accepted.accepted]
    assert (True, {}, {}) == await verified(admin, "acme")
    await admin.secrets.rotate(**revoked)
    assert 4 == await installation.pool.fetchval(generation)


async def test_a_forged_acceptance_accepts_nothing(admin: Admin, installation: Installation) -> None:
    """An acceptance in the log counts only if its row is genuine, also if one tenant alone is verified."""
    await written(installation, "acme", rows=1)
    mac = "ab" * 32
    heads = json.dumps({"tenants": [{"tenant_id": "acme", "head_sequence": 9, "head_mac": mac}]})
    for printed in ([["acme", 9, mac]], [["acme"]]):
        await installation.pool.execute(
            "INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac,"
            " mac_key_id) VALUES"
            " ('_system', $2, now(), 'x/y', 'restore.accepted', 'restore', $1::text::json, '', '', '1')",
            json.dumps({"epoch": 1, "heads": printed}, separators=(",", ":")),
            90 + len(printed[0]),
        )
        assert (False, {}, {"acme": "older"}) == await verified(admin, "acme", heads)


async def test_every_column_is_attacked(installation: Installation) -> None:
    """Every column of both tables is attacked, so a new column must be covered by the MAC or have a reason."""
    columns = {
        table: {
            row["attname"]
            for row in await installation.pool.fetch(
                "SELECT attname FROM pg_attribute"
                " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
                WORDS[table],
            )
        }
        for table in ("LOG", "HEADS")
    }

    assert {*ALTERED_COLUMNS, *ATTACKED_OTHERWISE} == columns["LOG"]
    assert {*ATTACKED_OTHERWISE.values()} <= ATTACKS.keys()
    assert {"tenant_id", "sequence", "mac"} == columns["HEADS"]
