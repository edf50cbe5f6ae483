"""Clearing the caches raises the epoch that every claim reads, and releases deliveries held for a secret."""

import pytest

from hookseal.dispatcher.core.model import WaitingFor
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.operations.secret import Cleared, clear_caches
from hookseal.secrets.resolve import epoch
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("OPS-10")
async def test_clearing_raises_the_epoch_and_releases(installation: Installation) -> None:
    """Later claims read a newer epoch; deliveries held for a secret are released, and no others."""
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(3)]
    ledger = PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)
    paused = (await installation.endpoint("globex")).pointer.endpoint_id
    [ring] = await installation.deliveries("globex")
    await installation.pool.execute("UPDATE hookseal.endpoints SET enabled = false WHERE id = $1::text::uuid", paused)
    rings[1] = ring
    for ring, why in zip(rings, (None, WaitingFor.ENDPOINT_DISABLED, WaitingFor.SECRET), strict=True):
        claim = await ledger.claim(ring)
        assert claim is not None
        assert claim.target is not None
        assert 0 == claim.target.pointer.cache_epoch
        await ledger.release(claim, None if why is None else Wait(waiting_for=why, seconds=200.0, reason="no secret"))
    assert [None, "endpoint_disabled", "secret"] == [
        (await installation.delivery(ring))["waiting_for"] for ring in rings
    ]

    async with installation.pool.acquire() as connection:
        assert Cleared(epoch=1, woken=1) == await clear_caches(installation.operator(connection))

    assert await ledger.claim(rings[2]) is None, "only the leader releases it"
    await installation.settle()
    claim = await ledger.claim(rings[2])
    assert claim is not None
    assert claim.target is not None
    assert 1 == claim.target.pointer.cache_epoch
    assert await ledger.claim(rings[1]) is None
    assert [
        {
            "action": "cache.cleared",
            "subject": "cache",
            "who": "ada@desk",
            "before": {"epoch": 0},
            "after": {"epoch": 1, "woken_deliveries": 1},
        }
    ] == await audited(installation.pool, "_system")


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_the_maximal_epoch_still_changes(installation: Installation) -> None:
    """If a writer has set the epoch to its maximum, each command of an incident still changes it."""
    pool = installation.pool
    await pool.execute("UPDATE hookseal.control SET epoch = $1", 10**15)
    async with pool.acquire() as connection:
        operator = installation.operator(connection)
        assert 1 == (await clear_caches(operator)).epoch
        await pool.execute("UPDATE hookseal.control SET epoch = $1", 10**15)
        async with connection.transaction():
            assert 10**12 < await epoch.begin_restore(connection) < 10**13
        await connection.execute("UPDATE hookseal.secret_keys SET state = 'retired'")

    assert 1 == await pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
    assert [({"epoch": 10**15}, {"epoch": 1, "woken_deliveries": 0})] == [
        (entry["before"], entry["after"]) for entry in await audited(pool, "_system")
    ]
