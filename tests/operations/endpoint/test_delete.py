"""Deleting an endpoint cancels pending deliveries, preserves its history, and is ordered with concurrent claims."""

import asyncio
from typing import Any

import pytest

from hookseal.dispatcher.core.model import Attempt, Outcome, State, Verdict
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Busy, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

TENANT = TenantId("acme")
UNKNOWN = EndpointId("0197c1f0-5e6a-7c3b-9d2e-4f5061728394")
DELIVERED = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=1, snippet=None, signed_by=("r",))


async def deleted(installation: Installation, endpoint: EndpointId, *, tenant: TenantId = TENANT) -> int:
    return await installation.act(delete_endpoint, tenant, endpoint)


def ledger(source: Any) -> PostgresLedger:
    return PostgresLedger(source, worker="w-1", lease_seconds=45)


async def states(installation: Installation) -> list[str]:
    """Return the states of all deliveries, oldest first."""
    return [row[0] for row in await installation.pool.fetch("SELECT state FROM hookseal.deliveries ORDER BY id")]


@pytest.mark.req("OPS-10")
async def test_a_deletion_cancels_and_retires(installation: Installation) -> None:
    added = await installation.endpoint()
    other = await installation.endpoint("globex")
    done, waiting = [(await installation.deliveries())[0] for _ in range(2)]
    (others,) = await installation.deliveries("globex")
    claim = await ledger(installation.pool).claim(done)
    assert claim is not None
    await ledger(installation.pool).record(claim, DELIVERED, Verdict(state=State.DELIVERED), None)

    assert 1 == await deleted(installation, added.pointer.endpoint_id)

    assert ["delivered", "cancelled", "pending"] == await states(installation)
    row = await installation.delivery(waiting)
    assert ("the endpoint was deleted", None) == (row["last_error"], row["next_attempt_at"])
    assert 1 == len(await installation.attempts(done))
    left = await installation.pool.fetch("SELECT id::text FROM hookseal.endpoints")
    assert [other.pointer.endpoint_id] == [row["id"] for row in left]
    secrets = await installation.pool.fetch(
        "SELECT tenant_id, state FROM hookseal.secret_records WHERE tenant_id <> '_system' ORDER BY 1"
    )
    assert [("acme", "retired"), ("globex", "active")] == [tuple(row) for row in secrets]
    assert "pending" == (await installation.delivery(others))["state"]
    *_, entry = await audited(installation.pool)
    assert {
        "action": "endpoint.deleted",
        "subject": f"endpoint:{added.pointer.endpoint_id}",
        "who": "ada@desk",
        "before": {
            "host": "receiver.example",
            "generation": 1,
            "secret_ref": added.pointer.secret_ref,
            "previous_secret_ref": None,
            "headers_ref": None,
            "tls_ref": None,
            "enabled": True,
        },
        "after": {"cancelled_deliveries": 1, "generation": 2},
    } == entry
    await installation.endpoint()


@pytest.mark.req("SEC-08")
async def test_an_absent_endpoint_is_not_found(installation: Installation) -> None:
    endpoint = (await installation.endpoint("globex")).pointer.endpoint_id
    for wanted in (UNKNOWN, endpoint):
        with pytest.raises(NotFound):
            await deleted(installation, wanted)
    assert ["endpoint.added"] == [row["action"] for row in await audited(installation.pool, "globex")]
    await deleted(installation, endpoint, tenant=TenantId("globex"))
    with pytest.raises(NotFound):
        await deleted(installation, endpoint, tenant=TenantId("globex"))


@pytest.mark.parametrize(
    "alteration",
    [
        "mac = NULL",
        "secret_ref = 'no ref at all'",
        "url = 'https://['",
        "previous_secret_ref = 'x', previous_secret_expires_at = 'infinity'",
        "scheme = 'unheard-of'",
    ],
)
async def test_an_altered_row_is_deleted(installation: Installation, alteration: str) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute(
        "ALTER TABLE hookseal.endpoints DROP CONSTRAINT endpoints_previous_secret_expires_at_check"
    )
    await installation.pool.execute(f"UPDATE hookseal.endpoints SET {alteration}")  # noqa: S608 -- ours

    await deleted(installation, endpoint)

    assert "retired" == await installation.pool.fetchval(
        "SELECT state FROM hookseal.secret_records WHERE tenant_id = 'acme'"
    )


async def test_a_delivery_in_flight_is_recorded(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    first, second = [(await installation.deliveries())[0] for _ in range(2)]
    books = ledger(installation.pool)
    one, two = await books.claim(first), await books.claim(second)
    assert one is not None
    assert two is not None

    assert 0 == await deleted(installation, endpoint)

    assert await books.record(one, DELIVERED, Verdict(state=State.DELIVERED), None)
    assert await books.record(two, DELIVERED, Verdict(state=State.PENDING), "timeout")
    again = await books.claim(second)
    assert again is not None
    assert again.target is None
    assert await books.end(again, State.CANCELLED, "the endpoint is gone")
    assert ["delivered", "cancelled"] == await states(installation)


@pytest.mark.req("SEC-10")
async def test_a_claim_during_the_deletion_takes_nothing(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    (ring,) = await installation.deliveries()
    async with installation.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
        with pytest.raises(Busy, match="being changed"):
            await ledger(installation.pool).claim(ring)
        assert 1 == await delete_endpoint(installation.operator(connection), TENANT, endpoint)
        await transaction.commit()

    assert ["cancelled"] == await states(installation)
    assert await ledger(installation.pool).claim(ring) is None


async def test_of_concurrent_deletions_one_succeeds(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    ended = await asyncio.gather(*(deleted(installation, endpoint) for _ in range(5)), return_exceptions=True)

    assert 4 == len([each for each in ended if isinstance(each, NotFound)])
    assert ["endpoint.added", "endpoint.deleted"] == [row["action"] for row in await audited(installation.pool)]
