"""Two changes that lock the same rows lock them in one order, so that neither ends with a deadlock.

Each test stops one change in the middle, where the other already waits, and then lets it go on.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import Attempt, Outcome, State, Verdict
from hookseal.dispatcher.lanes.lane import Opened
from hookseal.dispatcher.store import held as held_deliveries
from hookseal.dispatcher.store.lanes import PostgresLanes
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import NotFound
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.replay import replay_delivery
from hookseal.operations.restore import accept_restore
from hookseal.operations.secret import purge_batch
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.resolve import epoch
from hookseal.secrets.store import retention
from tests import rows
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked
from tests.worker.waiting import eventually

ACME = TenantId("acme")
_LOCKED = "SELECT FROM hookseal.held_endpoints WHERE endpoint_id = $1::text::uuid FOR UPDATE"
_WAITING = """
SELECT count(*), bool_or($1 = ANY (pg_blocking_pids(pid))) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_a_replay_during_a_deletion_finds_no_endpoint(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [ring] = await installation.deliveries()
    ledger = PostgresLedger(installation.pool, worker="w", lease_seconds=45)
    claim = await ledger.claim(ring)
    assert claim is not None
    failed = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
    await ledger.record(claim, failed, Verdict(state=State.PENDING, retry_in_seconds=3_600), "server_error")

    async with installation.pool.acquire() as deleting, installation.pool.acquire() as replaying:
        async with deleting.transaction():
            await pointer.lock(deleting, tenant=ACME, endpoint_id=endpoint)
            operator = installation.operator(replaying)
            replay = asyncio.create_task(replay_delivery(operator, ring.delivery_id, new_id=False))
            await blocked(installation)
            assert 1 == await delete_endpoint(installation.operator(deleting), ACME, endpoint)
        with pytest.raises(NotFound, match="the endpoint is gone"):
            await replay

    assert "cancelled" == (await installation.delivery(ring))["state"]


async def test_a_purge_and_an_acceptance_do_not_deadlock(installation: Installation) -> None:
    pool = installation.pool
    gone = (await installation.endpoint()).pointer.endpoint_id
    await pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    async with pool.acquire() as accepting, pool.acquire() as purging:
        operator, other = installation.operator(accepting), installation.operator(purging)
        await delete_endpoint(operator, ACME, gone)
        assert 1 == await purge_batch(operator, ACME, days=0)
        await pool.execute(
            "UPDATE hookseal.secret_records AS r SET state = 'retired', sealed = k.sealed FROM kept AS k"
            " WHERE k.tenant_id = r.tenant_id AND k.name = r.name AND k.version = r.version"
        )
        async with purging.transaction():
            expired = await retention.lock_expired(purging, ACME, days=0)
            assert 1 == len(expired)
            accept = asyncio.create_task(accept_restore(operator, ()))
            await blocked(installation)
            await epoch.move_cache(purging)
            await other.audit(
                Action.SECRET_DESTROYED, of=f"secret:{expired[0].ref}", tenant=ACME, after={"state": "kept"}
            )
        assert [gone] == [found.endpoint_id for found in (await accept).endpoints]

    assert "destroyed" == await pool.fetchval("SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'")
    assert "endpoint.deleted" == (await audited(pool))[-1]["action"]


async def test_cache_clear_and_opening_breakers_do_not_deadlock(installation: Installation) -> None:
    pool = installation.pool
    urls = ("https://a.example/", "https://b.example/")
    first, second = sorted([(await installation.endpoint(url=url)).pointer.endpoint_id for url in urls])
    for endpoint in (second, first):
        await rows.hold(pool, endpoint)

    async def both_are_blocked() -> bool:
        return (2, False) == tuple(await pool.fetchrow(_WAITING, waited_for) or ())

    async with AsyncExitStack() as stack:
        clearing, *holding = [await stack.enter_async_context(pool.acquire()) for _ in range(3)]
        held = [connection.transaction() for connection in holding]
        for transaction, connection, endpoint in zip(held, holding, (first, second), strict=True):
            await transaction.start()
            await connection.execute(_LOCKED, endpoint)
        probing = asyncio.create_task(held_deliveries.probe_all(clearing))
        await blocked(installation)
        opened = [Opened((ACME, endpoint), Outcome.TIMEOUT) for endpoint in (first, second)]
        opening = asyncio.create_task(PostgresLanes(pool).open_breakers(opened, spread=1.0))
        waited_for = 0
        await eventually(both_are_blocked)
        waited_for = await holding[0].fetchval("SELECT pg_backend_pid()")
        await held[0].commit()
        await eventually(both_are_blocked)
        await held[1].commit()
        assert 0 == await probing
        assert set() == await opening
