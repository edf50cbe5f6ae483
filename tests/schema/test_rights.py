"""What each SQL role may do, read from PostgreSQL itself: all that its work needs is proven by who uses it."""

from collections import defaultdict

import asyncpg
import pytest

Pool = asyncpg.Pool
ROLES = ("hookseal_producer", "hookseal_publisher", "hookseal_readonly", "hookseal_worker", "hookseal_operator")
# S may read every column, s some of them, I and i insert, U and u update, D delete.
EXPECTED = {
    "hookseal_producer": {"alembic_version": "S"},
    "hookseal_publisher": {
        "control": "s", "deliveries": "is", "endpoints": "s", "events": "Is", "producers": "S",
    },
    "hookseal_readonly": {
        "alembic_version": "S", "attempts": "S", "audit_heads": "S", "audit_log": "S", "control": "S",
        "deliveries": "S", "endpoints": "s", "events": "s", "producers": "S", "secret_keys": "s", "secret_records": "s",
        "secret_rotations": "S", "workers": "S",
    },
    "hookseal_worker": {
        "alembic_version": "S", "attempts": "IS", "control": "Su", "deliveries": "Su", "endpoints": "su", "events": "S",
        "secret_keys": "S", "secret_records": "S", "workers": "DISU",
    },
    "hookseal_operator": {
        "alembic_version": "S", "attempts": "S", "audit_heads": "ISU", "audit_log": "IS", "control": "Su",
        "deliveries": "ISU", "endpoints": "DISU", "events": "S", "producers": "DIS", "secret_keys": "ISU",
        "secret_records": "ISU", "secret_rotations": "ISU", "workers": "S",
    },
}  # fmt: skip
_RIGHTS = """
SELECT r.rolname AS role, c.relname AS name, p.letter,
       has_table_privilege(r.oid, c.oid, p.word) AS whole,
       p.word <> 'DELETE' AND has_any_column_privilege(r.oid, c.oid, p.word) AS part
FROM pg_roles AS r, pg_class AS c,
     (VALUES ('SELECT', 'S'), ('INSERT', 'I'), ('UPDATE', 'U'), ('DELETE', 'D')) AS p (word, letter)
WHERE r.rolname = ANY ($1) AND c.relnamespace = 'hookseal'::regnamespace AND c.relkind = 'r'
"""
_SECRET = ["endpoints.secret", "secret_records.sealed", "secret_keys.check_value", "events.body"]
_READS = "SELECT has_column_privilege($1, 'hookseal.' || split_part($2, '.', 1), split_part($2, '.', 2), 'SELECT')"


@pytest.mark.req("OPS-10")
async def test_tables(pool: "Pool[asyncpg.Record]") -> None:
    """Each role has the rights that are listed here and no other."""
    found: dict[str, dict[str, str]] = {role: defaultdict(str) for role in ROLES}
    for row in await pool.fetch(_RIGHTS, list(ROLES)):
        letter = row["letter"] if row["whole"] else row["letter"].lower() if row["part"] else ""
        found[row["role"]][row["name"]] += letter

    assert EXPECTED == {
        role: {name: "".join(sorted(letters)) for name, letters in tables.items() if letters}
        for role, tables in found.items()
    }


@pytest.mark.req("OPS-10")
@pytest.mark.parametrize(
    ("role", "reads"),
    [
        ("hookseal_producer", []),
        ("hookseal_publisher", []),
        ("hookseal_readonly", []),
        ("hookseal_worker", ["secret_records.sealed", "secret_keys.check_value", "events.body"]),
        ("hookseal_operator", _SECRET),
    ],
)
async def test_what_is_secret(pool: "Pool[asyncpg.Record]", role: str, reads: list[str]) -> None:
    """Only the operator reads plaintext of an older system; producers and readers see no sealed secret and no body."""
    assert reads == [column for column in _SECRET if await pool.fetchval(_READS, role, column)]


@pytest.mark.req("OPS-10")
async def test_functions(pool: "Pool[asyncpg.Record]") -> None:
    """Nobody but a producer and the owner of the schema may call what publishes."""
    rows = await pool.fetch(
        "SELECT r.rolname FROM pg_roles AS r, pg_proc AS f WHERE r.rolname = ANY ($1) AND f.proname = 'publish'"
        " AND has_function_privilege(r.oid, f.oid, 'EXECUTE') ORDER BY 1",
        list(ROLES),
    )

    assert ["hookseal_operator", "hookseal_producer", "hookseal_publisher"] == [row[0] for row in rows]


@pytest.mark.req("OPS-10")
async def test_no_role_logs_in(pool: "Pool[asyncpg.Record]") -> None:
    """They are groups: none has a login, and none may create anything in the schema."""
    assert 0 == await pool.fetchval(
        "SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1) AND (rolcanlogin OR rolsuper OR rolcreaterole"
        " OR has_schema_privilege(oid, 'hookseal', 'CREATE'))",
        list(ROLES),
    )
