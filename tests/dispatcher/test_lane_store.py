"""Crowded lanes and open breakers in PostgreSQL."""

from datetime import datetime

import pytest

from hookseal.dispatcher.core.model import NO_PACE, Attempt, Outcome, Pace, Ring, State, Verdict, WaitingFor
from hookseal.dispatcher.core.why import explain
from hookseal.dispatcher.lanes.crowded import Asked
from hookseal.dispatcher.lanes.lane import Opened, Parked
from hookseal.dispatcher.store import delivery_queries
from hookseal.dispatcher.store.delivery_queries import Filter
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.lanes import FIRST_PROBE_SECONDS, MOST_LEFT_WAITING, PostgresLanes
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint, disable_endpoint
from tests import rows
from tests.dispatcher.test_ledger import ledger
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-09")


AGAIN = Verdict(state=State.PENDING, retry_in_seconds=60)
REFUSED = "OpenBao at https://bao.internal is sealed: unseal it"
DONE = Verdict(state=State.DELIVERED)


def attempt(outcome: Outcome) -> Attempt:
    return Attempt(outcome=outcome, status=None, duration_ms=5, snippet=None, signed_by=("db:acme:n:1",))


async def published(stored: Installation, number: int) -> list[Ring]:
    """Publish that many events, and return their deliveries in the order of their ids.

    Those of the same millisecond have ids in any order.
    """
    return sorted([(await stored.deliveries())[0] for _ in range(number)], key=lambda each: each.delivery_id)


async def waiting(stored: Installation, rings: list[Ring]) -> list[str | None]:
    """Return what each of these deliveries waits for."""
    return [(await stored.delivery(ring))["waiting_for"] for ring in rings]


def parked(rings: list[Ring], reason: WaitingFor = WaitingFor.CONCURRENCY) -> list[Parked]:
    return [Parked(ring, reason) for ring in rings]


async def unrung(stored: Installation) -> list[Ring]:
    """Return what the outbox rings now."""
    token = await stored.pool.fetchval(
        "UPDATE hookseal.control SET token = gen_random_uuid(), until = now() + interval '1 h'"
        " WHERE name = 'outbox' RETURNING token::text"
    )
    return (await ledger(stored.pool).ring_unrung(token, waited_seconds=0)).rings


async def open_breaker(stored: Installation, ring: Ring) -> None:
    """Open the breaker of an endpoint, as a worker does."""
    opened = Opened((ring.tenant_id, ring.endpoint_id), Outcome.TIMEOUT)
    await PostgresLanes(stored.pool).open_breakers([opened, opened], spread=1.0)


async def probe(stored: Installation) -> int:
    """Make every probe due now, release the probes, and return how many there were."""
    await rows.change(stored.pool, "held_endpoints", probe_at=rows.NOW)
    return await PostgresHeldEndpoints(stored.pool).probe()


@pytest.mark.req("SEC-07")
async def test_what_waits_in_a_lane_of_a_held_endpoint_waits_for_what_holds_it(stored: Installation) -> None:
    """While a secret is refused, everything of the endpoint says so, whatever it waited for before; then as before."""
    rings, lanes = await published(stored, 3), PostgresLanes(stored.pool)
    await lanes.park([Parked(rings[0], WaitingFor.RATE), *parked(rings[1:])])
    lane: list[tuple[str | None, str | None]] = [("rate", None), ("concurrency", None), ("concurrency", None)]
    assert lane == await shown(stored, rings)

    await rows.hold(stored.pool, rings[0].endpoint_id, reason=REFUSED, since=rows.ahead(seconds=1))
    await rows.change(stored.pool, "held_endpoints", probe_at=rows.ahead(seconds=15))
    assert [("secret", REFUSED)] * 3 == await shown(stored, rings)
    for ring in rings:
        found = await delivery_queries.facts(stored.pool, ring.delivery_id)
        explanation = explain(found)
        assert (WaitingFor.SECRET, await stored.pool.fetchval("SELECT since FROM hookseal.held_endpoints")) == (
            explanation.waiting_for,
            explanation.since,
        )
        assert f"A secret of its endpoint is refused (“{REFUSED}”)" in explanation.text
        assert "hookseal secret cache-clear" == explanation.command

    await rows.change(stored.pool, "held_endpoints", released_at=rows.NOW)
    assert lane == await shown(stored, rings)


async def shown(stored: Installation, rings: list[Ring]) -> list[tuple[str | None, str | None]]:
    """Return what each of these deliveries waits for and why, which is the same in `show` and `list`."""
    pages = []
    for conditions in (Filter(), Filter(states=(State.PENDING,)), Filter(tenant_id=TenantId(rings[0].tenant_id))):
        page, _ = await delivery_queries.page(stored.pool, conditions, limit=100, cursor=None)
        pages.append({row["delivery_id"]: (row["waiting_for"], row["last_error"]) for row in page})
    listed = pages[0]
    assert [listed] * 3 == pages
    for ring in rings:
        row = await delivery_queries.show(stored.pool, ring.delivery_id)
        assert (row["waiting_for"], row["last_error"]) == listed[ring.delivery_id]
    return [listed[ring.delivery_id] for ring in rings]


async def test_parked_deliveries_are_claimed_from_their_lane(stored: Installation) -> None:
    """Parked deliveries spend no attempt, are in no queue, and are claimed from their lane, the oldest first."""
    rings, lanes = await published(stored, 4), PostgresLanes(stored.pool)
    ids = [each.delivery_id for each in rings]
    assert dict.fromkeys(ids, WaitingFor.CONCURRENCY) == await lanes.park(parked(rings))
    assert dict.fromkeys(ids) == await lanes.park(parked(rings))
    rings += await published(stored, 2)
    rings.sort(key=lambda each: each.delivery_id)  # ids of the same millisecond are in any order
    assert ["concurrency"] * 6 == await waiting(stored, rings)
    assert [] == await unrung(stored)

    [lane] = await lanes.page()
    assert (("acme", rings[0].endpoint_id), None, True) == (lane.key, lane.reopened_at, lane.is_open)
    found = await lanes.next([Asked(lane.key, 5)])
    assert [replace(each, is_parked=True) for each in rings[:5]] == found
    assert found[3:4] == await lanes.next([Asked(lane.key, 1, after=found[2].delivery_id)])
    claimed = await ledger(stored.pool).claim_all(found, None, most_bytes=1_000_000)
    assert [1] * 5 == [each.number for each in claimed.claims]
    assert [None] * 5 == await waiting(stored, rings[:5])
    assert rings[5].delivery_id == (await lanes.next([Asked(lane.key, 5)]))[0].delivery_id
    again = await ledger(stored.pool).claim_all(found, None, most_bytes=1_000_000)
    assert ([], []) == (again.claims, again.busy)


async def test_a_page_has_the_limits_of_each_endpoint(stored: Installation) -> None:
    """A look at the crowded lanes reads the limits of their endpoints; of one whose row is missing it reads none."""
    rings, lanes = await published(stored, 1), PostgresLanes(stored.pool)
    await lanes.park(parked(rings))
    assert [NO_PACE] == [lane.pace for lane in await lanes.page()]
    await rows.change(stored.pool, "endpoints", concurrency=3, rate=5)
    assert [Pace(concurrency=3, rate=5)] == [lane.pace for lane in await lanes.page()]
    await rows.change(stored.pool, "lanes", endpoint_id=rows.Sql("gen_random_uuid()"))

    assert [(None, True)] == [(lane.pace, lane.is_open) for lane in await lanes.page()]


async def test_a_ring_begins_what_waits_for_room_and_nothing_else(stored: Installation) -> None:
    """A worker handles a ring while the lane has room. The ring begins nothing of a rate, or of a held endpoint."""
    rings, lanes = await published(stored, 3), PostgresLanes(stored.pool)
    await lanes.park([Parked(rings[0], WaitingFor.RATE), *parked(rings[1:])])
    claimed = await ledger(stored.pool).claim_all(rings[:2], None, most_bytes=1_000)
    assert [rings[1]] == [each.ring for each in claimed.claims]

    await open_breaker(stored, rings[0])
    assert "concurrency" == (await stored.delivery(rings[2]))["waiting_for"]
    assert await ledger(stored.pool).claim(rings[2]) is None


async def test_what_is_due_is_found_beside_probes(stored: Installation) -> None:
    """A delivery that is due, waiting or not, is returned, and one for later is not; the probe is named."""
    rings, lanes = await published(stored, 4), PostgresLanes(stored.pool)
    await lanes.park(parked(rings[1:2]))
    await rows.change(stored.pool, "deliveries", rings[2].delivery_id, next_attempt_at=rows.ahead(hours=1))
    due = {rings[0].delivery_id, rings[1].delivery_id, rings[3].delivery_id}
    assert dict.fromkeys(due, False) == await lanes.due(rings)
    await open_breaker(stored, rings[0])
    assert 1 == await probe(stored)

    probed = await stored.pool.fetchval("SELECT probe_id::text FROM hookseal.held_endpoints")
    assert probed in due
    assert dict.fromkeys(due, False) | {probed: True} == await lanes.due(rings)


async def test_a_lane_is_deleted_unless_many_wait(stored: Installation) -> None:
    """A lane with many waiting deliveries stays. Once it is deleted, new ones are due at once; others can be read."""
    rings, lanes = await published(stored, MOST_LEFT_WAITING + 1), PostgresLanes(stored.pool)
    await lanes.park([Parked(rings[0], WaitingFor.RATE), *parked(rings[1:])])
    [lane] = await lanes.page()
    assert {lane.key: True} == await lanes.delete([lane.key])
    assert [lane] == await lanes.page()

    await ledger(stored.pool).claim_all((await lanes.next([Asked(lane.key, 2)]))[1:], None, most_bytes=1_000)
    assert {lane.key: True} == await lanes.delete([lane.key]), "something waits"
    assert [] == await lanes.page()
    assert [None] == await waiting(stored, await published(stored, 1))
    assert rings[0] == replace((await lanes.next([Asked(lane.key, 9)]))[0], is_parked=False)
    assert {lane.key: True} == await lanes.delete([lane.key]), "something waits still"


async def test_a_lane_that_was_stored_is_looked_after_further(stored: Installation) -> None:
    """A lane in which nothing waits is returned while it is stored, since a transaction may have read it before."""
    rings, lanes = await published(stored, 1), PostgresLanes(stored.pool)
    await lanes.park(parked(rings))
    [lane] = await lanes.page()
    await ledger(stored.pool).claim_all(await lanes.next([Asked(lane.key, 1)]), None, most_bytes=1_000)
    async with stored.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.lanes FOR UPDATE")
        assert {lane.key: False} == await lanes.delete([lane.key])
    assert [lane] == await lanes.page()

    assert {lane.key: False} == await lanes.delete([lane.key])
    assert [] == await lanes.page()
    assert {} == await lanes.delete([lane.key])


async def test_the_lane_of_a_held_endpoint_is_left_alone(stored: Installation) -> None:
    """What waits for a probe is not looked after, and its lane stays. So does a lane whose breaker has just closed."""
    rings, lanes = await published(stored, 2), PostgresLanes(stored.pool)
    await lanes.park(parked(rings[:1]))
    [lane] = await lanes.page()
    await open_breaker(stored, rings[1])
    await lanes.park(parked(rings[1:]))
    assert ["concurrency", "breaker"] == await waiting(stored, rings)
    assert {} == await lanes.delete([lane.key])

    await rows.remove(stored.pool, "held_endpoints")
    await rows.change(stored.pool, "lanes", reopened_at=rows.NOW)
    assert {lane.key: True} == await lanes.delete([lane.key])
    assert 1 == len(await lanes.page())
    await rows.change(stored.pool, "lanes", reopened_at=rows.ago(seconds=11))
    await lanes.delete([lane.key])
    assert [] == await lanes.page()


async def test_the_outbox_parks_deliveries_of_a_crowded_lane(stored: Installation) -> None:
    """The outbox parks due, unrung deliveries of a crowded lane, and rings those of other endpoints."""
    rings = await published(stored, 3)
    await PostgresLanes(stored.pool).park(parked(rings[:1], WaitingFor.RATE))
    await stored.endpoint("globex")
    [other] = await stored.deliveries("globex")

    assert [other] == await unrung(stored)
    assert ["rate"] * 3 == await waiting(stored, rings)


async def test_an_open_breaker_holds_due_and_published_deliveries(stored: Installation) -> None:
    """Due and newly published deliveries wait for the breaker; a request in flight is recorded as always."""
    rings = await published(stored, 3)
    real = ledger(stored.pool)
    flying = await real.claim(rings[0])
    assert flying is not None
    await open_breaker(stored, rings[0])
    assert await stored.pool.fetchval(
        "SELECT probe_at - since = make_interval(secs => $1) FROM hookseal.held_endpoints", FIRST_PROBE_SECONDS
    )
    rings += await published(stored, 1)
    assert [] == await unrung(stored)
    assert [None, "breaker", "breaker", "breaker"] == await waiting(stored, rings)
    assert "10 times in a row, the last time with timeout" in (await stored.delivery(rings[3]))["last_error"]
    assert AGAIN == await real.record(flying, attempt(Outcome.TIMEOUT), AGAIN, "timeout")


async def test_an_answered_probe_closes_the_breaker(stored: Installation) -> None:
    """A failed probe leaves the breaker open, and is then no longer the probe; an answered one makes a crowded lane."""
    rings, lanes = await published(stored, 3), PostgresLanes(stored.pool)
    real = ledger(stored.pool)
    await open_breaker(stored, rings[0])
    assert [] == await unrung(stored)
    assert 1 == await probe(stored)
    assert [rings[0]] == await unrung(stored), "the probe, and nothing else, is rung"
    claim = await real.claim(rings[0])
    assert claim is not None
    assert (True, WaitingFor.BREAKER) == (claim.is_probe, claim.held_for)
    await real.record(claim, attempt(Outcome.SERVER_ERROR), AGAIN, "503")
    await rows.change(stored.pool, "deliveries", where="waiting_for IS NULL", next_attempt_at=rows.NOW)
    assert [] == await unrung(stored), "the failed probe is no probe when it is due again"
    assert ["breaker"] * 3 == await waiting(stored, rings)
    assert [] == await lanes.page()

    assert 1 == await probe(stored)
    claim = await real.claim(rings[0])
    assert claim is not None
    await real.record(claim, attempt(Outcome.CLIENT_ERROR), AGAIN, "404")
    [lane] = await lanes.page()
    assert isinstance(lane.reopened_at, datetime)
    assert lane.is_open
    assert [each.delivery_id for each in rings[1:]] == [
        each.delivery_id for each in await lanes.next([Asked(lane.key, 9)])
    ]
    assert ["concurrency"] == await waiting(stored, await published(stored, 1))


async def test_rings_of_a_held_endpoint_are_parked_for_its_reason(stored: Installation) -> None:
    """Rings of a held endpoint are parked for its reason, except the probe and locked ones, and no lane is made."""
    rings, lanes = await published(stored, 4), PostgresLanes(stored.pool)
    await lanes.park(parked(rings[:1]))
    await open_breaker(stored, rings[0])
    assert 1 == await probe(stored), "what waited before the breaker opened may be the probe"
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", rings[3].delivery_id
        )
        assert dict.fromkeys((rings[1].delivery_id, rings[2].delivery_id), WaitingFor.BREAKER) == await lanes.park(
            parked(rings)
        )
    assert [None, "breaker", "breaker", None] == await waiting(stored, rings)
    [lane] = await lanes.page()
    assert not lane.is_open
    assert [] == await lanes.next([Asked(lane.key, 9)])


async def test_a_breaker_without_a_delivery_to_probe_closes(stored: Installation) -> None:
    """If nothing waits when the probe is due, the endpoint is released; it is opened again at the next failures."""
    [ring] = await published(stored, 1)
    await open_breaker(stored, ring)
    assert 0 == await probe(stored)
    await stored.settle()
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.held_endpoints")


async def test_disabling_closes_a_lane_and_deleting_removes_it(stored: Installation) -> None:
    rings, lanes = await published(stored, 2), PostgresLanes(stored.pool)
    await lanes.park(parked(rings))
    endpoint = EndpointId(rings[0].endpoint_id)
    async with stored.pool.acquire() as connection:
        await disable_endpoint(stored.operator(connection), TenantId("acme"), endpoint, reason="x")
    await stored.settle()
    assert ["endpoint_disabled"] * 2 == await waiting(stored, rings)
    [lane] = await lanes.page()
    assert not lane.is_open
    async with stored.pool.acquire() as connection:
        await delete_endpoint(stored.operator(connection), TenantId("acme"), endpoint)
    assert [] == await lanes.page()


async def test_a_breaker_does_not_replace_a_refused_secret(stored: Installation) -> None:
    """A breaker does not take the place of a refused secret, and takes that of an endpoint that is being released."""
    [ring] = await published(stored, 1)
    await rows.hold_all(stored.pool, reason="x")
    why = "SELECT waiting_for FROM hookseal.held_endpoints"
    await open_breaker(stored, ring)
    assert "secret" == await stored.pool.fetchval(why)
    await rows.change(stored.pool, "held_endpoints", released_at=rows.NOW)
    await open_breaker(stored, ring)
    assert "breaker" == await stored.pool.fetchval(why)
