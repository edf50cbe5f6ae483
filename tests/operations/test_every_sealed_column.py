"""The columns that are sealed under a master key, found in the schema: a new one must be placed in a list."""

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import RecordMalformed
from hookseal.ground.ids import SYSTEM_TENANT, TenantId
from hookseal.operations.endpoint import rotation
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.envelope import key_id_of
from hookseal.secrets.core.ref import Purpose
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.master_keys import NEW, OLD, changed, holding, opened, replaced, under
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("SEC-05")

SEALED = {"secret_records.sealed"}
NOTHING_SEALED = {
    "endpoints.mac": "a MAC under the integrity key",
    "events.body": "what a producer published",
    "events.fingerprint": "a digest of what a producer published",
    "secret_leftovers.share": "a key, of what lies at a provider outside PostgreSQL",
    "secret_records.share": "a key, of what lies at a provider outside PostgreSQL",
    "secret_keys.check_value": "derived from a master key, to recognise it by",
    "audit_log.previous_mac": "a MAC under the integrity key",
    "audit_log.mac": "a MAC under the integrity key",
    "audit_heads.mac": "a MAC under the integrity key",
}
# Text or JSON could contain encoded sealed bytes; no column of hookseal does.
COLUMNS = """
SELECT c.relname || '.' || a.attname AS name,
       format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS type  -- that of a domain is its base type
  FROM pg_class AS c
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f')
 ORDER BY 1
"""


async def test_every_column_of_bytes_is_known(pool: Pool) -> None:
    """Each column of bytes is one that a re-wrap covers, or is listed with its content."""
    found = {row["name"] for row in await pool.fetch(COLUMNS) if row["type"].startswith("bytea")}

    assert SEALED | set(NOTHING_SEALED) == found
    assert set() == SEALED & set(NOTHING_SEALED)


async def test_a_re_wrap_leaves_no_column_under_the_older_key(installation: Installation) -> None:
    """With a row of every purpose and state, no column names the older key after a re-wrap."""
    new = NewEndpoint(tenant_id=TenantId("acme"), url="https://receiver.example/hook", event_types=("*",))
    added = await installation.add(new, headers={"x-token": b"bearer"}, tls=identity(Authority().client(), None))
    await installation.deliveries()
    request = RotationRequest(
        tenant_id=added.pointer.tenant_id,
        endpoint_id=added.pointer.endpoint_id,
        overlap_seconds=600,
        secret=generate_signing_secret(),
    )
    async with installation.pool.acquire() as connection:
        for _ in range(2):
            await rotation.rotate_secret(installation.operator(connection), replace(request, force=True))
    rows = await installation.pool.fetch("SELECT purpose, state FROM hookseal.secret_records")
    assert set(Purpose) == {row["purpose"] for row in rows}
    assert {"active", "previous", "retired"} == {row["state"] for row in rows}
    assert SYSTEM_TENANT in {
        row["tenant_id"] for row in await installation.pool.fetch("SELECT * FROM hookseal.secret_records")
    }

    process = await changed(installation, OLD, NEW)
    assert len(rows) == await replaced(process, OLD)

    older = bytes.fromhex(OLD.key_id)
    for row in await installation.pool.fetch(COLUMNS):
        table, column = row["name"].split(".")
        for (value,) in await installation.pool.fetch(f"SELECT {column} FROM hookseal.{table}"):  # noqa: S608 -- of the catalogue
            if isinstance(value, bytes):
                assert older not in value, row["name"]
                assert named(value) in {None, NEW.key_id}, row["name"]
    assert 0 == await under(installation, OLD)
    await opened(await holding(installation, NEW))


def named(value: bytes) -> str | None:
    """Return the key id in the value, if it has the form of a record."""
    try:
        return key_id_of(value)
    except RecordMalformed:
        return None
