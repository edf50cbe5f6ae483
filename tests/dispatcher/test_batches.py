"""One statement for many claims, on a real PostgreSQL: a delivery that cannot be claimed does not affect the others."""

import json
from typing import Final

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Claimed, Ring
from hookseal.dispatcher.store.ledger import claim_all
from hookseal.dispatcher.store.publish import Event, publish_json
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.operations.audit_reports import Stale, audit_stale
from hookseal.operations.endpoint.endpoints import delete_endpoint
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin_with_two_tenants

Pool = asyncpg.Pool
TOKEN: Final = "01900000-0000-4000-8000-00000000000f"
ENOUGH: Final = 256 * MAX_BODY_BYTES
_UNCLAIM: Final = """
UPDATE hookseal.deliveries
SET state = 'pending', next_attempt_at = now(), lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
"""
STRANGE: Final = "01900000-0000-7000-8000-0000000000ff"


@pytest.fixture
async def installation(begun_pool: "Pool[asyncpg.Record]") -> Installation:
    """Return an installation with two endpoints, of two tenants."""
    return await begin_with_two_tenants(begun_pool)


async def claimed(installation: Installation, rings: list[Ring], *, most_bytes: int = ENOUGH) -> Claimed:
    """Claim the deliveries of these rings."""
    return await claim_all(installation.pool, rings, worker="w1", lease_seconds=45, token=TOKEN, most_bytes=most_bytes)


async def published(installation: Installation, number: int, tenant: str = "acme") -> list[Ring]:
    """Return the rings of that many new deliveries."""
    return [(await installation.deliveries(tenant))[0] for _ in range(number)]


def names(found: Claimed) -> set[str]:
    """Return the ids of the claimed deliveries."""
    return {claim.ring.delivery_id for claim in found.claims}


@pytest.mark.req("DEL-03", "DUR-02")
async def test_all_are_claimed_under_one_lease(installation: Installation) -> None:
    """Every due delivery is claimed for its own ring, all under one token; claims for one endpoint share a target."""
    rings = await published(installation, 3) + await published(installation, 2, "globex")
    found = await claimed(installation, rings)

    assert ({each.delivery_id for each in rings}, []) == (names(found), found.busy)
    assert set(rings) == {claim.ring for claim in found.claims}
    assert {TOKEN} == {claim.lease_token for claim in found.claims}
    assert {(each.endpoint_id, each.endpoint_id) for each in rings} == {
        (claim.ring.endpoint_id, claim.target and claim.target.pointer.endpoint_id) for claim in found.claims
    }
    assert 2 == len({id(claim.target) for claim in found.claims})
    assert Claimed(claims=[], busy=[]) == await claimed(installation, rings)


@pytest.mark.req("DUR-04")
async def test_a_locked_delivery_holds_up_no_other(installation: Installation) -> None:
    """If the row of the first delivery is locked, the others are claimed at once, and that one is reported as busy.

    The others get what was read of their endpoint, which the statement returns only once.
    """
    rings = await published(installation, 5)
    async with installation.pool.acquire() as holder, holder.transaction():
        await holder.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", rings[0].delivery_id
        )
        found = await claimed(installation, rings)

    assert 1 == len({claim.target for claim in found.claims} - {None})
    assert ({each.delivery_id for each in rings} - {rings[0].delivery_id}, [rings[0]]) == (names(found), found.busy)
    assert {rings[0].delivery_id} == names(await claimed(installation, rings))


@pytest.mark.req("SEC-10", "DUR-04")
async def test_a_locked_endpoint_holds_up_no_other(installation: Installation) -> None:
    """While an endpoint's row is locked, the claim says so of its deliveries, and claims those of other endpoints."""
    mine, other = await published(installation, 3), await published(installation, 2, "globex")
    async with installation.pool.acquire() as holder, holder.transaction():
        await holder.execute("SELECT FROM hookseal.endpoints WHERE tenant_id = 'acme' FOR UPDATE")
        found = await claimed(installation, mine + other)
        alone = await claimed(installation, mine[:1])

    assert ({each.delivery_id for each in other}, set(mine), []) == (names(found), set(found.locked), found.busy)
    assert Claimed(claims=[], busy=[], locked=mine[:1]) == alone


@pytest.mark.req("DUR-04")
async def test_a_locked_delivery_of_a_locked_endpoint_is_busy(installation: Installation) -> None:
    """If the row of a delivery and that of its endpoint are locked, the claim says that the delivery is locked."""
    rings = await published(installation, 2)
    async with installation.pool.acquire() as holder, holder.transaction():
        await holder.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
        await holder.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", rings[1].delivery_id
        )
        found = await claimed(installation, rings)

    assert Claimed(claims=[], busy=rings[1:], locked=rings[:1]) == found


@pytest.mark.req("SEC-08", "DEL-02")
async def test_a_ring_with_a_wrong_id_claims_nothing(installation: Installation) -> None:
    """Rings with a wrong tenant, endpoint or delivery claim nothing and delay no other ring."""
    mine, other = await published(installation, 3), await published(installation, 1, "globex")
    forged = [
        replace(mine[0], tenant_id=TenantId("globex")),
        replace(mine[1], endpoint_id=other[0].endpoint_id),
        replace(mine[2], delivery_id=DeliveryId(STRANGE)),
    ]
    found = await claimed(installation, forged + other)

    assert ({other[0].delivery_id}, []) == (names(found), found.busy)
    assert {each.delivery_id for each in mine} == names(await claimed(installation, mine))


async def test_the_later_ring_of_one_delivery_counts(installation: Installation) -> None:
    """Of several rings for one delivery the last one counts, and it claims only if all three of its ids match."""
    [ring] = await published(installation, 1)
    forged = replace(ring, tenant_id=TenantId("globex"))

    assert Claimed(claims=[], busy=[]) == await claimed(installation, [ring, forged])
    found = await claimed(installation, [forged, ring])
    assert [ring] == [claim.ring for claim in found.claims]


async def test_bodies_beyond_the_limit_of_bytes_are_not_claimed(installation: Installation) -> None:
    """Deliveries are claimed in ring order while their bodies fit into the size limit; the rest are busy."""
    event = Event(tenant_id=TenantId("acme"), event_type="invoice.paid")
    large = (await publish_json(installation.pool, event, json.dumps("x" * 200_000))).deliveries[0]
    first, last = await published(installation, 1), await published(installation, 2)
    found = await claimed(installation, [*first, large, *last], most_bytes=200_200)

    assert ({first[0].delivery_id, large.delivery_id}, set(last)) == (names(found), set(found.busy))
    assert sum(len(claim.body) for claim in found.claims) <= 200_200
    assert {each.delivery_id for each in last} == names(await claimed(installation, [*first, large, *last]))


async def test_an_endpoint_of_which_nothing_fits_has_no_row(installation: Installation) -> None:
    """If no body of one endpoint fits any more, the deliveries of another are claimed, and its own are busy."""
    [fits], left = await published(installation, 1), await published(installation, 2, "globex")
    most = len((await claimed(installation, [fits])).claims[0].body)
    await installation.pool.execute(_UNCLAIM)
    found = await claimed(installation, [fits, *left], most_bytes=most)

    assert ({fits.delivery_id}, left) == (names(found), found.busy)


@pytest.mark.parametrize("is_reported", [False, True])
@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_delivery_of_a_missing_endpoint_has_no_target(
    installation: Installation, is_lost: bool, is_reported: bool
) -> None:
    """A delivery without its endpoint is claimed without a target, and reported as lost if no command deleted it.

    What a worker has reported since then, from a copy of the row that it had read before, changes nothing.
    """
    [ring], [other] = await published(installation, 1), await published(installation, 1, "globex")
    if is_lost:
        await installation.pool.execute("DELETE FROM hookseal.endpoints WHERE tenant_id = 'acme'")
    else:
        async with installation.pool.acquire() as connection:
            await delete_endpoint(installation.operator(connection), ring.tenant_id, ring.endpoint_id)
        await installation.pool.execute(
            "UPDATE hookseal.deliveries SET state = 'pending', next_attempt_at = now() WHERE state = 'cancelled'"
        )
    if is_reported:
        found_old = Stale(
            tenant_id=ring.tenant_id,
            endpoint_id=ring.endpoint_id,
            generation=0,
            reason="it is old",
            restore_epoch=0,
        )
        async with installation.pool.acquire() as connection:
            assert await audit_stale(installation.operator(connection), found_old)
    found = {claim.ring: claim for claim in (await claimed(installation, [ring, other])).claims}

    assert (None, is_lost) == (found[ring].target, found[ring].endpoint_lost)
    assert found[other].target is not None


async def test_a_ring_without_a_due_delivery_claims_nothing(installation: Installation) -> None:
    """A ring with an unknown endpoint id, and one for a delivery that is not due, claim nothing."""
    [ring] = await published(installation, 1)
    await installation.pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = now() + interval '1 hour'")

    assert Claimed(claims=[], busy=[]) == await claimed(
        installation, [ring, replace(ring, endpoint_id=EndpointId(STRANGE))]
    )


@pytest.mark.req("SEC-08", "DUR-04")
@pytest.mark.parametrize("year", ["20000-01-01Z", "4000-01-01Z BC", "infinity"])
async def test_a_time_outside_pythons_range_is_claimed(installation: Installation, year: str) -> None:
    """A delivery with a date outside Python's range is claimed, and so are all others."""
    mine, other = await published(installation, 1), await published(installation, 2, "globex")
    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET created_at = $2::text::timestamptz WHERE id = $1::text::uuid",
        *(mine[0].delivery_id, year),
    )

    assert {each.delivery_id for each in mine + other} == names(await claimed(installation, mine + other))


async def test_one_statement_says_what_it_did_not_claim(installation: Installation) -> None:
    """A claim runs one statement, also if it leaves out deliveries that are locked, and others that are not due."""
    free, locked, ended = await published(installation, 3)
    await installation.pool.execute(
        "UPDATE hookseal.deliveries SET state = 'delivered', next_attempt_at = NULL WHERE id = $1::text::uuid",
        ended.delivery_id,
    )
    asked: list[str] = []
    async with (
        installation.pool.acquire() as connection,
        installation.pool.acquire() as holder,
        holder.transaction(),
    ):
        connection.add_query_logger(lambda done: asked.append(done.query))
        await holder.execute("SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", locked.delivery_id)
        found = await claim_all(
            connection, [free, locked, ended], worker="w1", lease_seconds=45, token=TOKEN, most_bytes=ENOUGH
        )

    assert ({free.delivery_id}, [locked], []) == (names(found), found.busy, found.behind)
    assert 1 == len(asked)


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 5])
async def test_claims_of_a_few_deliveries_share_a_plan(
    installation: Installation, at_once: int, *, analyzed: bool
) -> None:
    """After the first five, PostgreSQL makes no new plan for a claim of a few deliveries."""
    # As if nothing had ever been in the tables, or analysed them.
    await installation.pool.execute("TRUNCATE hookseal.events, hookseal.deliveries CASCADE")
    rings = await published(installation, 20 * at_once)
    if analyzed:
        await installation.pool.execute("ANALYZE")
    async with installation.pool.acquire() as connection:
        for first in range(0, len(rings), at_once):
            some = rings[first : first + at_once]
            found = await claim_all(
                connection, some, worker="w1", lease_seconds=45, token=TOKEN, most_bytes=at_once * MAX_BODY_BYTES
            )
            assert {each.delivery_id for each in some} == names(found)
        row = await connection.fetchrow(
            "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement LIKE $1",
            "WITH asked%" if at_once > 1 else "WITH due%",
        )
    assert (5, 15) == tuple(row or ())
