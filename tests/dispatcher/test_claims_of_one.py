"""The statement that claims one delivery does what the one for many does, and leaves rare cases to it."""

from typing import Any, Final

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.ledger import _BATCHES, _ids
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.postgres.pool import Connection
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin

Pool = asyncpg.Pool
_TOKEN: Final = "01900000-0000-4000-8000-00000000000f"
_STRANGE: Final = "01900000-0000-7000-8000-0000000000ff"
_ACME: Final = TenantId("acme")
_HELD: Final = (
    "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id) SELECT tenant_id, id FROM hookseal.endpoints"
)
_RELEASED: Final = "UPDATE hookseal.held_endpoints SET released_at = now()"
_WAITS: Final = "UPDATE hookseal.deliveries SET waiting_for = "
_OVERLAPS: Final = "UPDATE hookseal.endpoints SET previous_secret_ref = 'r', previous_secret_expires_at = now()"
# Before a claim, and whether the statement for one claims then.
_BEFORE: Final = {
    "SELECT 1": True,
    "UPDATE hookseal.deliveries SET attempts = 5, budget_spent = 4, rung_at = now() - interval '1 minute'": True,
    "UPDATE hookseal.deliveries SET created_at = '-infinity'": True,
    "UPDATE hookseal.events SET correlation_id = 'c', traceparent = 't'": True,
    "UPDATE hookseal.endpoints SET enabled = false, first_failure_at = now(), retry_schedule = NULL": True,
    f"{_OVERLAPS} + interval '1 h'": True,
    _OVERLAPS: True,
    f"{_HELD}; {_RELEASED}": True,
    f"{_WAITS} 'concurrency'": True,
    f"{_WAITS} 'concurrency'; {_HELD}": False,
    f"{_WAITS} 'rate'": False,
    "UPDATE hookseal.deliveries SET next_attempt_at = now() + interval '1 h'": False,
    "UPDATE hookseal.deliveries SET state = 'delivered', next_attempt_at = NULL": False,
    _HELD: False,
    "DELETE FROM hookseal.endpoints": False,
}


@pytest.fixture
async def installation(begun_pool: "Pool[asyncpg.Record]") -> Installation:
    """Return an installation with an endpoint."""
    installation = await begin(begun_pool)
    await installation.endpoint()
    return installation


async def claims_of(connection: Connection, ring: Ring, *, most_bytes: int = 1_000) -> tuple[Any, Any]:
    """Return what the statement for one delivery, and the one for many, claim and leave in the row."""
    claims: list[Any] = []
    async with connection.transaction():  # so that it is the same time for both
        for name in ("claim_one", "claim_all"):
            claiming = connection.transaction()
            await claiming.start()
            rows = await connection.fetch(_BATCHES[name], *_ids([ring]), "w1", 45.0, _TOKEN, most_bytes)
            stored = await connection.fetch("SELECT * FROM hookseal.deliveries WHERE state = 'sending'")
            claims.append([dict(row) for row in (*rows, *stored) if row.get("left_for") is None])
            await claiming.rollback()
    return claims[0], claims[1]


@pytest.mark.req("DEL-03")
@pytest.mark.parametrize(("before", "claims"), _BEFORE.items())
async def test_one_is_claimed_as_by_the_statement_for_many(
    installation: Installation, before: str, *, claims: bool
) -> None:
    """It returns and writes the same, or nothing at all."""
    [ring] = await installation.deliveries()
    async with installation.pool.acquire() as connection:
        await connection.execute(before)
        one, many = await claims_of(connection, ring)

    assert one == (many if claims else [])
    assert bool(one) == claims


@pytest.mark.req("DEL-03")
async def test_one_that_a_worker_has_parked_is_claimed(installation: Installation) -> None:
    """What waits in its lane is claimed for a worker that has taken it from there."""
    [ring] = await installation.deliveries()
    async with installation.pool.acquire() as connection:
        await connection.execute(f"{_WAITS} 'rate'")
        one, many = await claims_of(connection, replace(ring, is_parked=True))

    assert one == many
    assert one


@pytest.mark.req("DEL-17")
async def test_only_the_head_of_a_line_is_claimed_alone(begun_pool: "Pool[asyncpg.Record]") -> None:
    """The head of a line is claimed as by the statement for many; what is behind it is left to that one."""
    installation = await begin(begun_pool)
    await installation.add(
        NewEndpoint(tenant_id=_ACME, url="https://receiver.example/1", event_types=("*",), ordered=True)
    )
    head, behind = [(await installation.deliveries())[0] for _ in range(2)]
    async with installation.pool.acquire() as connection:
        await connection.execute(f"{_WAITS} NULL")
        one, many = await claims_of(connection, head)
        nothing, neither = await claims_of(connection, behind)

    assert one == many
    assert one
    assert ([], []) == (nothing, neither)


@pytest.mark.req("SEC-08", "DEL-02")
async def test_a_ring_with_a_wrong_id_claims_no_one(installation: Installation) -> None:
    """All three ids must be those of the delivery."""
    [ring] = await installation.deliveries()
    other = await installation.endpoint(url="https://receiver.example/other")
    forged = (
        replace(ring, tenant_id=TenantId("globex")),
        replace(ring, endpoint_id=EndpointId(other.pointer.endpoint_id)),
        replace(ring, delivery_id=DeliveryId(_STRANGE)),
    )
    async with installation.pool.acquire() as connection:
        for each in forged:
            assert ([], []) == await claims_of(connection, each)


@pytest.mark.req("DUR-04")
@pytest.mark.parametrize("table", ["deliveries", "endpoints"])
async def test_one_that_is_locked_is_left_to_the_statement_for_many(installation: Installation, table: str) -> None:
    """It waits for no lock, of the delivery or of its endpoint."""
    [ring] = await installation.deliveries()
    async with installation.pool.acquire() as holder, holder.transaction(), installation.pool.acquire() as connection:
        await holder.execute(f"SELECT FROM hookseal.{table} FOR UPDATE")
        assert ([], []) == await claims_of(connection, ring)


async def test_one_whose_body_is_too_large_is_not_claimed(installation: Installation) -> None:
    """The limit of bytes holds for one delivery, too."""
    [ring] = await installation.deliveries()
    size: int = await installation.pool.fetchval("SELECT octet_length(body) FROM hookseal.events")
    async with installation.pool.acquire() as connection:
        assert ([], []) == await claims_of(connection, ring, most_bytes=size - 1)
        one, many = await claims_of(connection, ring, most_bytes=size)

    assert one == many
    assert one
