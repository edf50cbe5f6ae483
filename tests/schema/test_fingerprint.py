"""The fingerprint of a schema: what it notices and names, and what it does not depend on."""

import json
from pathlib import Path

import asyncpg
import pytest

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import Server, postgres_tree
from hookseal.errors import ConfigError
from hookseal.postgres.pool import Pool
from hookseal.postgres.schema import fingerprint, revision
from hookseal.postgres.schema.fingerprint import Difference
from hookseal.postgres.schema.upgrade import upgrade
from tools.governance.fingerprint import PATH, in_each_state

pytestmark = pytest.mark.req("OPS-09", part="compared")

# What is changed, and what is named; what begins with + may be added.
CHANGES = {
    "DROP TRIGGER deliveries_leave_line ON hookseal.deliveries":
        ["trigger deliveries_leave_line on deliveries is missing"],
    "ALTER TABLE hookseal.deliveries DISABLE TRIGGER deliveries_leave_line":
        ["trigger deliveries_leave_line on deliveries differs"],
    "DROP INDEX hookseal.deliveries_leased": ["index deliveries_leased on deliveries is missing"],
    "CREATE INDEX mine ON hookseal.deliveries (attempts)": ["+index mine on deliveries is unknown"],
    "CREATE UNIQUE INDEX mine ON hookseal.deliveries (attempts)": ["unique index mine on deliveries is unknown"],
    "ALTER TABLE hookseal.endpoints ADD COLUMN foo text": ["column endpoints.foo is unknown"],
    "ALTER TABLE hookseal.endpoints DROP COLUMN tls_shown": [
        "column endpoints.tls_shown is missing",
        # the rights to the column go with it
        "rights of hookseal_api to table hookseal.endpoints differs",
        "rights of hookseal_api_publisher to table hookseal.endpoints differs",
        "rights of hookseal_operator to table hookseal.endpoints differs",
        "rights of hookseal_readonly to table hookseal.endpoints differs",
        "rights of hookseal_worker to table hookseal.endpoints differs",
    ],
    "ALTER TABLE hookseal.endpoints ALTER timeout_ms SET DEFAULT 6000": ["column endpoints.timeout_ms differs"],
    "ALTER TABLE hookseal.endpoints ALTER event_types DROP NOT NULL": ["column endpoints.event_types differs"],
    "ALTER TABLE hookseal.endpoints ALTER last_disabled_at TYPE timestamp":
        ["column endpoints.last_disabled_at differs"],
    "ALTER TABLE hookseal.endpoints ALTER url SET STORAGE EXTERNAL": ["column endpoints.url differs"],
    "ALTER TABLE hookseal.endpoints DROP CONSTRAINT endpoints_rate_check":
        ["constraint endpoints_rate_check on endpoints is missing"],
    "ALTER TABLE hookseal.endpoints ADD CONSTRAINT mine CHECK (rate > 0) NOT VALID":
        ["constraint mine on endpoints is unknown"],
    "ALTER DOMAIN hookseal.budget DROP CONSTRAINT budget_check": ["constraint budget_check on budget is missing"],
    "ALTER DOMAIN hookseal.budget SET NOT NULL": ["type hookseal.budget differs"],
    "ALTER FUNCTION hookseal.uuid7() SECURITY DEFINER": ["function hookseal.uuid7() differs"],
    "ALTER FUNCTION hookseal.uuid7() RESET search_path": ["function hookseal.uuid7() differs"],
    "CREATE OR REPLACE FUNCTION hookseal.refuse_change() RETURNS trigger LANGUAGE plpgsql"
    " SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END'": ["function hookseal.refuse_change() differs"],
    "CREATE FUNCTION hookseal.mine(text) RETURNS int LANGUAGE sql AS 'SELECT 1'":
        ["function hookseal.mine(text) is unknown", "rights of PUBLIC to function hookseal.mine(text) is unknown"],
    "ALTER FUNCTION hookseal.publish(text, text, json, text, text, text, boolean) OWNER TO CURRENT_USER":
        ["function hookseal.publish(text, text, json, text, text, text, boolean) differs"],
    "ALTER VIEW hookseal.audience SET (security_barrier = true)": ["view hookseal.audience differs"],
    "DROP TABLE hookseal.replays": ["table hookseal.replays is missing"],
    "CREATE TABLE hookseal.mine (id int PRIMARY KEY)": ["+table hookseal.mine is unknown"],
    "CREATE VIEW hookseal.mine AS SELECT 1 AS one": ["+view hookseal.mine is unknown"],
    "ALTER TABLE hookseal.events ENABLE ROW LEVEL SECURITY": ["table hookseal.events differs"],
    "CREATE POLICY mine ON hookseal.events USING (true)": ["policy mine on events is unknown"],
    "CREATE RULE mine AS ON DELETE TO hookseal.events DO INSTEAD NOTHING": ["rule mine on events is unknown"],
    "GRANT UPDATE (url) ON hookseal.endpoints TO hookseal_worker":
        ["rights of hookseal_worker to table hookseal.endpoints differs"],
    "REVOKE SELECT ON hookseal.events FROM hookseal_worker":
        ["rights of hookseal_worker to table hookseal.events is missing"],
    # What no delivery needs may be taken from a role. A right that is added, or may be handed on, is never accepted.
    "REVOKE UPDATE (url) ON hookseal.endpoints FROM hookseal_api":
        ["+rights of hookseal_api to table hookseal.endpoints differs"],
    "REVOKE EXECUTE ON FUNCTION hookseal.remove_events(integer, timestamptz) FROM hookseal_worker":
        ["+rights of hookseal_worker to function hookseal.remove_events(integer, timestamp with time zone) is missing"],
    "REVOKE UPDATE (mac) ON hookseal.endpoints FROM hookseal_worker;"
    "GRANT UPDATE (url) ON hookseal.endpoints TO hookseal_worker":
        ["rights of hookseal_worker to table hookseal.endpoints differs"],
    "REVOKE UPDATE (manual_attempts) ON hookseal.deliveries FROM hookseal_worker;"
    "GRANT UPDATE (state) ON hookseal.deliveries TO hookseal_worker WITH GRANT OPTION":
        ["rights of hookseal_worker to table hookseal.deliveries differs"],
    "REVOKE UPDATE (state) ON hookseal.deliveries FROM hookseal_worker":
        ["rights of hookseal_worker to table hookseal.deliveries differs"],
    "GRANT SELECT ON hookseal.events TO PUBLIC": ["rights of PUBLIC to table hookseal.events is unknown"],
    "GRANT SELECT ON hookseal.events TO pg_monitor":
        ["+rights of another role, pg_monitor, to table hookseal.events is unknown"],
    # What an operator may tune.
    "ALTER TABLE hookseal.deliveries SET (autovacuum_vacuum_scale_factor = 0.01)": [],
    "ALTER TABLE hookseal.deliveries ALTER state SET STATISTICS 500": [],
    "ALTER INDEX hookseal.deliveries_pkey SET (fillfactor = 80)": [],
    # What REINDEX CONCURRENTLY has beside the index that it rebuilds, and leaves behind if it fails.
    "CREATE UNIQUE INDEX deliveries_pkey_ccnew ON hookseal.deliveries (tenant_id, id);"
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'hookseal.deliveries_pkey_ccnew'::regclass":
        ["+index deliveries_pkey_ccnew on deliveries is unknown"],
    "COMMENT ON TABLE hookseal.deliveries IS 'x'": [],
}  # fmt: skip
_OTHER_SETTINGS = """
SET TimeZone = 'America/New_York'; SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601';
SET bytea_output = 'escape'; SET quote_all_identifiers = on; SET search_path = hookseal, public
"""
# That of the wheel with the embedded one, and those of Debian.
OLDER = {postgres_tree().with_name("pginstall"): "16"} | {
    Path("/usr/lib/postgresql") / version: f"debian-{version}" for version in ("14", "15", "17")
}


async def test_the_stored_fingerprint_is_that_of_the_migrations(pool: Pool) -> None:
    """The stored file is what the migrations make, in each state of the plaintext column: else run `make docs`."""
    async with pool.acquire() as connection:
        made = fingerprint.contents_of_file(await in_each_state(connection))

    assert json.loads(PATH.read_text(encoding="utf-8"))[revision.EXPECTED] == made


@pytest.mark.parametrize("tree", OLDER, ids=OLDER.get)
async def test_an_older_postgresql_has_the_same_fingerprint(tree: Path) -> None:
    """A worker starts on each version of PostgreSQL: none writes the definition of an object in another way."""
    if not (tree / "bin" / "initdb").is_file():
        pytest.skip(f"there is no PostgreSQL in {tree}")
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False, tree=tree) as server:
            await upgrade(server.url)
            connection = await asyncpg.connect(server.url)
            try:
                await fingerprint.require(connection)
            finally:
                await connection.close()


async def test_each_change_is_named(pool: Pool) -> None:
    """What somebody changes, removes or adds is named, and nothing else is."""
    found = {}
    async with pool.acquire() as connection:
        for change in CHANGES:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(change)
            compared = await fingerprint.compare(connection)
            await transaction.rollback()
            assert compared is not None
            found[change] = [f"{'+' * each.is_allowed}{each}" for each in compared.differences]

    assert CHANGES == found


async def test_the_settings_of_the_session_do_not_matter(pool: Pool) -> None:
    async with pool.acquire() as connection:
        before = await fingerprint.read(connection)
        await connection.execute(_OTHER_SETTINGS)
        assert before == await fingerprint.read(connection)
        assert "America/New_York" == await connection.fetchval("SHOW TimeZone")


async def test_only_what_matters_is_refused(pool: Pool) -> None:
    """A schema with a further index is accepted; one without parts of ours is refused, naming the first five."""
    await pool.execute("CREATE INDEX mine ON hookseal.deliveries (attempts)")
    await fingerprint.require(pool)
    for number in range(7):
        await pool.execute(f"ALTER TABLE hookseal.endpoints ADD CONSTRAINT c{number} CHECK (rate > 0)")
    with pytest.raises(
        ConfigError, match=r"constraint c4 on endpoints is unknown and 2 more differences \(`hookseal db"
    ):
        await fingerprint.require(pool)


async def test_an_empty_database_has_none(empty_database_url: str) -> None:
    """Where hookseal was never installed there is nothing to compare."""
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await fingerprint.compare(connection) is None
    finally:
        await connection.close()


def test_differences_are_found_by_name() -> None:
    expected = {
        "table hookseal.a": "1",
        "table hookseal.c": "1",
        "column a.x": "1",
        "column c.y": "1",
        "column c.z": "1",
    }
    found = {
        "table hookseal.c": "2",
        "column c.z": "1",
        "index b on c": "1",
        "rights of PUBLIC to table hookseal.a": "1",
    }
    assert (
        Difference(object="table hookseal.a", how="missing", is_allowed=False),
        Difference(object="table hookseal.c", how="differs", is_allowed=False),
        Difference(object="column c.y", how="missing", is_allowed=False),
        Difference(object="index b on c", how="unknown", is_allowed=True),
    ) == fingerprint.find_differences(expected, found)


async def test_a_superuser_may_upgrade_the_schema_of_the_database_owner(bare_postgres: Server) -> None:
    """The names of the owners do not matter: here one role owns the database and the schema, and another upgrades."""
    connection = await asyncpg.connect(bare_postgres.url)
    try:
        await connection.execute("CREATE ROLE dba")
        await connection.execute("ALTER DATABASE hookseal OWNER TO dba")
        await connection.execute("CREATE SCHEMA hookseal AUTHORIZATION dba")
        await upgrade(bare_postgres.url)
        await fingerprint.require(connection)
        await connection.execute("CREATE ROLE stranger; ALTER TABLE hookseal.events OWNER TO stranger")
        with pytest.raises(ConfigError, match=r"table hookseal.events differs"):
            await fingerprint.require(connection)
    finally:
        await connection.close()
