"""An installation begins once, together with its audit log."""

import asyncio
import os

import asyncpg
import pytest

from hookseal.audit.log import verify
from hookseal.errors import Conflict
from hookseal.operations.key.keys import begin
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key.keys import KeyStatus
from tests.doubles.logbook import audited
from tests.doubles.stored import keyring

Pool = asyncpg.Pool


async def begun(pool: "Pool[asyncpg.Record]") -> KeyStatus:
    """Begin on its own connection."""
    async with pool.acquire() as connection:
        return await begin(connection, keyring(), "ada@desk", os.urandom)


@pytest.mark.req("OPS-10")
async def test_the_first_audit_row_names_the_master_key(pool: "Pool[asyncpg.Record]") -> None:
    """The first audit row names the master key, and its MAC is by the new integrity key."""
    made = await begun(pool)

    assert [
        {
            "action": "key.initialised",
            "subject": f"key:{made.key_id}",
            "who": "ada@desk",
            "before": None,
            "after": {
                "key_id": made.key_id,
                "state": "active",
                "integrity_ref": "db:_system:integrity:1",
                "sentinel_ref": "db:_system:sentinel:1",
            },
        }
    ] == await audited(pool, "_system")
    (result,) = await verify(pool, (await unlock(pool, Provider.DB, keyring())).integrity)
    assert (1, None) == (result.rows, result.broken)


async def test_of_concurrent_beginnings_one_succeeds(pool: "Pool[asyncpg.Record]") -> None:
    """Of many concurrent beginnings one succeeds, and one row records it."""
    ended = await asyncio.gather(*(begun(pool) for _ in range(4)), return_exceptions=True)

    assert 3 == len([each for each in ended if isinstance(each, Conflict)])
    assert 1 == len(await audited(pool, "_system"))


async def test_without_its_audit_row_nothing_begins(pool: "Pool[asyncpg.Record]") -> None:
    """If the audit row cannot be written, the installation is not begun."""
    await pool.execute("ALTER TABLE hookseal.audit_log ADD CHECK (tenant_id <> '_system')")
    with pytest.raises(asyncpg.CheckViolationError):
        await begun(pool)

    assert (0, 0) == (
        await pool.fetchval("SELECT count(*) FROM hookseal.secret_keys"),
        await pool.fetchval("SELECT count(*) FROM hookseal.secret_records"),
    )
