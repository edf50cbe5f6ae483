"""Every statement carries the tenant, but for those that serve the installation as a whole."""

import re
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from hookseal.ground.sql import statements

FILES = sorted(
    (package, entry.name)
    for package in (
        "hookseal.audit",
        "hookseal.client",
        "hookseal.demo",
        "hookseal.dispatcher",
        "hookseal.secrets",
        "hookseal.secrets.stores",
        "hookseal.worker",
    )
    for entry in files(package).iterdir()
    if entry.name.endswith(".sql")
)
TABLE = re.compile(r"hookseal\.([a-z_]+)\b(?!\()")
OWNED = {
    *("endpoints", "events", "deliveries", "attempts", "secret_records", "secret_rotations"),
    *("audit_log", "audit_heads", "producers", "rotation_canaries", "held_endpoints"),
}
# What looks after the installation as a whole, and an operator's look by an id that is unique in it.
FOR_ALL = {
    *("ledger.sql: longest_timeout_ms", "history.sql: show", "history.sql: has_endpoint"),
    *("producers.sql: one_at_a_time", "producers.sql: has_other"),
    *("migration.sql: may_read", "migration.sql: unmigrated", "migration.sql: held"),
    *("keys.sql: is_empty", "keys.sql: counted", "keys.sql: needed"),
    *("compromise.sql: count", "put_back.sql: none_drained"),
    *("waiting.sql: probe_all", "waiting.sql: count_all"),
}
WHOLE_FILES = {"measure.sql"}  # numbers of the whole installation, for the metrics


THE_INSTALLATIONS = {"alembic_version", "secret_keys", "workers", "control"}


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(("package", "file"), FILES)
def test_every_statement_names_the_tenant(package: str, file: str) -> None:
    """A statement that reads or writes what a tenant owns names its tenant column, or is listed with its reason."""
    for name, text in statements(package, file).items():
        is_about_a_tenant = bool(OWNED & set(TABLE.findall(text))) and file not in WHOLE_FILES
        assert not is_about_a_tenant or "tenant_id" in text or f"{file}: {name}" in FOR_ALL, f"{file}: {name}"


def test_no_statement_file_is_left_out() -> None:
    """Every file of statements in the house is among those that are looked at."""
    house = Path(str(files("hookseal")))
    found = {(str(file.parent.relative_to(house)), file.name) for file in house.rglob("*.sql")}
    looked_at = {(package.removeprefix("hookseal.").replace(".", "/"), file) for package, file in FILES}

    assert looked_at == {(package, file) for package, file in found if package != "schema/versions"}


@pytest.mark.req("SEC-08")
async def test_every_key_begins_with_the_tenant(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Every table is a tenant's, and its primary key begins with the tenant, or it is listed as the installation's."""
    keys = await pool.fetch(
        "SELECT c.relname AS name, a.attname AS first FROM pg_class AS c"
        " JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary"
        " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
        " WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind = 'r'"
    )

    assert THE_INSTALLATIONS == {key["name"] for key in keys if key["first"] != "tenant_id"}
    assert {"endpoints", "events", "deliveries", "attempts", "secret_records", "secret_rotations", "audit_log"} <= {
        key["name"] for key in keys
    }
