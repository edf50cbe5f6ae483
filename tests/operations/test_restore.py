"""Accepting what was put back, on a real database: what moved meanwhile, and what the log may vouch for."""

import asyncio

import pytest

from hookseal.audit import log
from hookseal.dispatcher import waiting
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint_update import update_endpoint
from hookseal.operations.restore import accept_endpoint, accept_restore
from hookseal.secrets import put_back
from tests.dispatcher.test_ledger_race import somebody_waits
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("SEC-24", part="accept")
ACME = TenantId("acme")
_COLUMNS = """
SELECT string_agg(attname, ', ') FROM pg_attribute
WHERE attrelid = 'hookseal.endpoints'::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped
"""


async def test_a_row_that_came_back_meanwhile_stays(installation: Installation) -> None:
    """A row that was lost when it was looked for, and is there again when it would be let go, loses nothing."""
    pool = installation.pool
    await installation.endpoint("aaaa")
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints WHERE tenant_id = 'acme'")
    await pool.execute("DELETE FROM hookseal.endpoints")
    columns = await pool.fetchval(_COLUMNS)
    async with pool.acquire() as accepting, pool.acquire() as other:
        async with other.transaction():
            await log.hold(other, TenantId("aaaa"))  # who accepts has read both, and waits at the first
            accept = asyncio.create_task(accept_restore(installation.operator(accepting), ()))
            await somebody_waits(pool)
            await pool.execute(f"INSERT INTO hookseal.endpoints ({columns}) SELECT {columns} FROM kept")  # noqa: S608 -- ours
        await accept

    deleted = await pool.fetch("SELECT tenant_id FROM hookseal.audit_log WHERE action = 'endpoint.deleted'")
    assert ["aaaa"] == [row["tenant_id"] for row in deleted]
    assert "pending" == (await installation.delivery(ring))["state"]
    assert ["active"] == [
        row["state"] for row in await pool.fetch("SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    ]


async def test_many_accept_at_once(installation: Installation) -> None:
    """Of many who accept the same lost endpoint one lets it go."""
    added = await installation.endpoint()
    await installation.pool.execute("DELETE FROM hookseal.endpoints")

    async def accept() -> None:
        async with installation.pool.acquire() as connection:
            await accept_endpoint(installation.operator(connection), ACME, added.pointer.endpoint_id)

    await asyncio.gather(*(accept() for _ in range(3)))

    assert 1 == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.audit_log WHERE action = 'endpoint.deleted'"
    )


async def test_the_log_vouches_for_no_generation_that_nobody_verified(installation: Installation) -> None:
    """A change that leaves the pointer alone says nothing of its generation, which somebody may have forged."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    async with installation.pool.acquire() as connection:
        await connection.execute("UPDATE hookseal.endpoints SET generation = 1000000")
        operator = installation.operator(connection)
        await update_endpoint(operator, ACME, endpoint, {"max_attempts": 3}, own_drain_seconds=25)
        await connection.execute("UPDATE hookseal.endpoints SET generation = 1")

        assert [] == [one async for one in put_back.found(connection)]


async def test_who_wakes_waits_for_nobody_in_a_circle(installation: Installation) -> None:
    """Waking one endpoint's deliveries and waking all of them lock rows in one order: no deadlock, however often."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.deliveries()
    await installation.pool.execute(
        "INSERT INTO hookseal.deliveries"
        " (tenant_id, id, endpoint_id, event_id, replay_of, state, waiting_for, next_attempt_at)"
        " SELECT tenant_id, gen_random_uuid(), endpoint_id, event_id, id, 'pending', 'secret', now()"
        " FROM hookseal.deliveries, generate_series(1, 2000); ANALYZE hookseal.deliveries"
    )

    async def woken(*, one: bool) -> None:
        async with installation.pool.acquire() as connection:
            for _ in range(15):
                async with installation.operator(connection).changing():
                    await (waiting.wake(connection, ACME, endpoint) if one else waiting.wake_all(connection))

    await asyncio.gather(woken(one=True), woken(one=False))
