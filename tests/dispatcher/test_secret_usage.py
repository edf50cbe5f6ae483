"""The deliveries that a version of a secret signed, read from a real PostgreSQL: complete pages and exact counts."""

from itertools import product
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Attempt, Outcome, Ring, State, Verdict
from hookseal.dispatcher.store import delivery_queries
from hookseal.dispatcher.store.delivery_queries import Use
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.statements import statements
from tests.doubles.stored import Installation, begin

Pool = asyncpg.Pool
TENANT = TenantId("acme")
ONE, TWO, NONE = "db:acme:webhook-endpoint-x:1", "db:acme:webhook-endpoint-x:2", "db:acme:webhook-endpoint-x:3"


@pytest.fixture
async def installation(begun_pool: "Pool[asyncpg.Record]") -> Installation:
    """Return an installation with one endpoint."""
    installation = await begin(begun_pool)
    await installation.endpoint()
    return installation


def ledger(installation: Installation) -> PostgresLedger:
    """Return the ledger of a worker."""
    return PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)


async def sent(installation: Installation, *signed_by: tuple[str, ...]) -> Ring:
    """Publish, and record an attempt with each of these sets of signers; the last one delivers."""
    [ring] = await installation.deliveries()
    for number, refs in enumerate(signed_by, 1):
        claim = await ledger(installation).claim(ring)
        assert claim is not None
        attempt = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=1, snippet=None, signed_by=refs)
        over = number == len(signed_by)
        verdict = Verdict(state=State.DELIVERED) if over else Verdict(state=State.PENDING, retry_in_seconds=0)
        assert await ledger(installation).record(claim, attempt, verdict, None)
    return ring


def signed_by(endpoint: str, ref: str, **changes: Any) -> delivery_queries.Filter:
    """Return the filter for deliveries that this version signed."""
    return delivery_queries.Filter(tenant_id=TENANT, endpoint_id=EndpointId(endpoint), signed_by=ref, **changes)


async def listed(
    installation: Installation, wanted: delivery_queries.Filter, *, limit: int, walked: int
) -> list[list[str]]:
    """Return the delivery ids of each page, following the cursor to the end."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        items, cursor = await delivery_queries.page(
            installation.pool, wanted, limit=limit, cursor=cursor, walked=walked
        )
        pages.append([item["delivery_id"] for item in items])
        if cursor is None:
            return pages


@pytest.mark.req("SEC-23")
async def test_each_signed_delivery_is_listed_once(installation: Installation) -> None:
    """A delivery that a version signed in any attempt is listed once, newest first; others are not listed."""
    rings = [await sent(installation, *refs) for refs in (((ONE,),), ((ONE,), (TWO, ONE)), ((TWO,), (TWO,)))]
    endpoint = rings[0].endpoint_id
    first, second, third = (ring.delivery_id for ring in rings)
    for ref, expected in ((ONE, [second, first]), (TWO, [third, second]), (NONE, [])):
        assert [expected] == await listed(installation, signed_by(endpoint, ref), limit=50, walked=100), ref
    everything, _ = await delivery_queries.page(installation.pool, delivery_queries.Filter(), limit=50, cursor=None)
    kept, _ = await delivery_queries.page(installation.pool, signed_by(endpoint, ONE), limit=50, cursor=None)
    assert everything[1:] == kept


@pytest.mark.req("SEC-23")
async def test_all_conditions_must_hold(installation: Installation) -> None:
    """The other conditions restrict the list further: all of them must hold."""
    ring = await sent(installation, (ONE,))
    row = await installation.delivery(ring)
    for changes, expected in (
        ({"state": State.DELIVERED, "event_type": "invoice.paid", "since": row["created_at"]}, [ring.delivery_id]),
        ({"state": State.FAILED}, []),
        ({"event_type": "user.created"}, []),
        ({"since": row["created_at"].replace(year=2999)}, []),
    ):
        wanted = signed_by(ring.endpoint_id, ONE, **changes)
        assert [expected] == await listed(installation, wanted, limit=50, walked=100), changes


@pytest.mark.req("SEC-23")
async def test_the_cursor_ends_with_the_last_page(installation: Installation) -> None:
    """For any page size and search limit, following the cursor returns each delivery once, in no extra page."""
    rings = [await sent(installation, (ref,)) for ref in (ONE, TWO, TWO, ONE, ONE, TWO, ONE)]
    ones = [ring.delivery_id for ring, at in zip(rings, range(7), strict=True) if at in {0, 3, 4, 6}]
    for limit, walked in product((1, 2, 3, 50), (1, 2, 3, 4, 7, 8, 50)):
        pages = await listed(installation, signed_by(rings[0].endpoint_id, ONE), limit=limit, walked=walked)
        assert ones[::-1] == [delivery for page in pages for delivery in page], (limit, walked)
        assert all(len(page) <= min(limit, walked) for page in pages), (limit, walked)
        nothing = await listed(installation, signed_by(rings[0].endpoint_id, NONE), limit=limit, walked=walked)
        assert [[]] * (7 // walked + 1) == nothing, (limit, walked)


@pytest.mark.req("SEC-23")
@pytest.mark.req("SEC-08")
async def test_other_endpoints_are_not_counted(installation: Installation) -> None:
    """Deliveries of another endpoint or tenant are neither listed nor counted, whatever their rows contain."""
    ring = await sent(installation, (ONE,))
    await installation.pool.execute("DELETE FROM hookseal.endpoints")
    other = (await installation.endpoint(url="https://other.example/")).pointer
    await sent(installation, (ONE,))
    assert [[ring.delivery_id]] == await listed(installation, signed_by(ring.endpoint_id, ONE), limit=9, walked=9)
    globex = delivery_queries.Filter(
        tenant_id=TenantId("globex"), endpoint_id=EndpointId(ring.endpoint_id), signed_by=ONE
    )
    assert [[]] == await listed(installation, globex, limit=9, walked=9)
    owner = EndpointId(other.endpoint_id)
    assert {} == await delivery_queries.of_endpoint(installation.pool, TenantId("globex"), owner)
    assert 1 == (await delivery_queries.of_endpoint(installation.pool, TENANT, owner))[ONE].attempts


@pytest.mark.req("SEC-23")
async def test_a_claim_counts_until_its_lease_ends(installation: Installation) -> None:
    """A claim in flight counts until its lease ends, and its delivery is listed; after it is given back, neither."""
    [ring] = await installation.deliveries()
    owner = EndpointId(ring.endpoint_id)
    ref = await installation.pool.fetchval("SELECT secret_ref FROM hookseal.endpoints")
    wanted = signed_by(owner, ref)
    assert {} == await delivery_queries.of_endpoint(installation.pool, TENANT, owner)
    assert [[]] == await listed(installation, wanted, limit=9, walked=9)
    claim = await ledger(installation).claim(ring)
    assert claim is not None
    assert {ref: Use(claims_in_flight=1)} == await delivery_queries.of_endpoint(installation.pool, TENANT, owner)
    assert [[ring.delivery_id]] == await listed(installation, wanted, limit=9, walked=9)

    await installation.pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")
    assert {} == await delivery_queries.of_endpoint(installation.pool, TENANT, owner)
    assert [[ring.delivery_id]] == await listed(installation, wanted, limit=9, walked=9)
    assert await ledger(installation).release(claim, None)
    assert [[]] == await listed(installation, wanted, limit=9, walked=9)


@pytest.mark.req("SEC-23")
async def test_each_attempt_counts_for_its_signers(installation: Installation) -> None:
    """Every attempt counts for each version that signed it, and the newest one gives the time."""
    rings = [await sent(installation, *refs) for refs in (((ONE,),), ((ONE,), (TWO, ONE)), ((TWO,), (TWO,)))]
    owner = EndpointId(rings[0].endpoint_id)
    started = [[row["started_at"] for row in await installation.attempts(ring)] for ring in rings]
    expected = {
        ONE: Use(attempts=3, last_signed_at=started[1][1]),
        TWO: Use(attempts=3, last_signed_at=started[2][1]),
    }
    assert expected == await delivery_queries.of_endpoint(installation.pool, TENANT, owner)


@pytest.mark.req("SEC-23")
async def test_a_page_reads_by_indexes(pool: "Pool[asyncpg.Record]") -> None:
    """A page reads the endpoint's own deliveries by an index and their attempts by key."""
    await pool.execute(
        "INSERT INTO hookseal.events (tenant_id, id, event_type, occurred_at, body, fingerprint)"
        " SELECT 'acme', 'e' || n, 'invoice.paid', now(), '', '' FROM generate_series(1, 5000) AS n;"
        "INSERT INTO hookseal.deliveries (tenant_id, id, endpoint_id, event_id, state, next_attempt_at)"
        " SELECT 'acme', hookseal.uuid7(), md5((n % 3)::text)::uuid, 'e' || n, 'delivered', NULL"
        " FROM generate_series(1, 5000) AS n;"
        "INSERT INTO hookseal.attempts (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
        " SELECT 'acme', id, 1, now(), 'delivered', ARRAY['r'], 'w' FROM hookseal.deliveries;"
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id)"
        " SELECT 'acme', md5('held' || n)::uuid FROM generate_series(1, 5000) AS n; ANALYZE;"
    )
    statement = statements("hookseal.dispatcher.store", "delivery_queries.sql")["page_of_endpoint"]
    endpoint = await pool.fetchval("SELECT md5('1')::uuid::text")
    newest, oldest = "ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000000"
    for event_type, cursor in ((None, newest), ("invoice.paid", "0197c1f0-5e6a-7c3b-9d2e-4f5061728394")):
        arguments = ("acme", endpoint, event_type, None, cursor, 51, "r", 1000, oldest)
        plan = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {statement}", *arguments))
        assert "delivery_links_of_endpoint" in plan, plan
        assert "attempts_pkey" in plan, plan
        for other in ("Seq Scan", "delivery_links_pkey", "Sort", "Hash"):
            assert other not in plan, plan
