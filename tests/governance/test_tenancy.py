"""Every statement restricts the tenant, except those for the installation as a whole."""

import re
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from hookseal.postgres.statements import statements

HOUSE = Path(str(files("hookseal")))
# Every file of statements but the migrations, and the pointer that others include.
FILES = sorted(
    (".".join(file.relative_to(HOUSE.parent).parent.parts), file.name)
    for file in HOUSE.rglob("*.sql")
    if file.parent.name != "versions" and file != HOUSE / "ground" / "pointer.sql"
)
TABLE = re.compile(r"hookseal\.([a-z_]+)\b(?!\()")
OWNED = {
    *("endpoints", "events", "deliveries", "attempts", "secret_records", "secret_rotations", "secret_leftovers"),
    *("audit_log", "audit_heads", "producers", "rotation_canaries", "held_endpoints", "lanes", "replays"),
    *("attempt_counts", "delivery_links", "api_tokens", "tenants", "endpoint_urls"),
}
# Statements for the installation as a whole, and an operator's lookup by an id that is unique in it.
FOR_ALL = {
    *("overview.sql: overview", "overview.sql: oldest_due_seconds", "overview.sql: due", "overview.sql: not_due"),
    "status.sql: rest",
    "event_queries.sql: count_tenants",
    "ledger.sql: standing",  # how many rings of all tenants may be in Redis
    "ledger.sql: tables_locked",  # a lock concerns the records of all tenants
    *("ledger.sql: longest_timeout_ms", "delivery_queries.sql: show", "delivery_queries.sql: has_endpoint"),
    "delivery_queries.sql: count_unfinished",  # only decides how a page is read
    *("producers.sql: one_at_a_time", "producers.sql: has_other"),
    "tokens.sql: free_name",  # the name of a token is unique in the installation
    "tokens.sql: use",  # of tokens that were found by their text
    *("tokens.sql: lock_code", "tokens.sql: lock_name"),  # a code and a name are unique in the installation
    *("tokens.sql: newest", "tokens.sql: sign_again", "tokens.sql: revoke"),  # of tokens that one of these has locked
    *("migrate_secrets.sql: may_read", "migrate_secrets.sql: count_unmigrated", "migrate_secrets.sql: count_plaintext"),
    *("keys.sql: is_empty", "keys.sql: counted", "keys.sql: needed", "records.sql: in_use"),
    *("compromise.sql: count", "restore.sql: reopen_drained_keys"),
    *("held_deliveries.sql: probe_all", "held_deliveries.sql: count_all"),
    # The receiver of `hookseal up` gets the requests of every tenant.
    *("up.sql: refs_at", "up.sql: is_replay"),
    *("replay_jobs.sql: lock", "replay_jobs.sql: show"),
}
WHOLE_FILES = {"database.sql"}  # counts of the whole installation, for the metrics


THE_INSTALLATIONS = {"alembic_version", "event_types", "secret_keys", "workers", "control", "token_keys"}
BY_ID = {"deliveries"}  # each update writes every index of it: that of its tenant and id is on `delivery_links`


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(("package", "file"), FILES)
def test_every_statement_names_the_tenant(package: str, file: str) -> None:
    """A statement on a tenant's table names its tenant column, or is listed with its reason."""
    for name, text in statements(package, file).items():
        is_about_a_tenant = bool(OWNED & set(TABLE.findall(text))) and file not in WHOLE_FILES
        assert not is_about_a_tenant or "tenant_id" in text or f"{file}: {name}" in FOR_ALL, f"{file}: {name}"


@pytest.mark.req("SEC-08")
async def test_every_key_begins_with_the_tenant(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """The tenant comes first in the primary key of each table, except for deliveries and the installation's tables."""
    keys = await pool.fetch(
        "SELECT c.relname AS name, a.attname AS first FROM pg_class AS c"
        " JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary"
        " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
        " WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind = 'r'"
    )

    assert THE_INSTALLATIONS | BY_ID == {key["name"] for key in keys if key["first"] != "tenant_id"}
    assert {"endpoints", "events", "delivery_links", "attempts", "secret_records", "secret_rotations", "audit_log"} <= {
        key["name"] for key in keys
    }
