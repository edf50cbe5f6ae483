"""Statements over many rows: batches of claims and records, and the rings of due deliveries."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from hookseal.dispatcher.core.looks import MOST_AFTER_FAILURE, MOST_PAUSE, LookStart, earlier
from hookseal.dispatcher.core.model import Claim, Claimed, FinishedAttempt, Ring, State, Verdict
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.ledger import BEGINNING, Chore, PostgresLedger, RungBefore, Unrung
from hookseal.dispatcher.store.publish import NewEvent, publish_json
from hookseal.errors import Unavailable
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.operations.audit_reports import Stale, audit_stale
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.postgres.pool import Pool
from hookseal.postgres.statements import statements
from tests import rows
from tests.dispatcher.test_ledger import ROW, WAIT, ledger
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation, begin_with_two_tenants

pytestmark = pytest.mark.usefixtures("begun_pool")

RETRY = Verdict(state=State.PENDING, retry_in_seconds=60)
NOBODY = "00000000-0000-4000-8000-000000000000"
TOKEN: Final = "01900000-0000-4000-8000-00000000000f"
ENOUGH: Final = 256 * MAX_BODY_BYTES
_UNCLAIM: Final = """
UPDATE hookseal.deliveries
SET state = 'pending', next_attempt_at = now(), lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL
"""
STRANGE: Final = "01900000-0000-7000-8000-0000000000ff"


async def lead(pool: Pool, seconds: float = 10) -> str:
    """Take the lease of the outbox for so long, and return its token."""
    token: str = await pool.fetchval(
        "UPDATE hookseal.control SET token = gen_random_uuid(), until = now() + make_interval(secs => $1)"
        " WHERE name = 'outbox' RETURNING token::text",
        seconds,
    )
    return token


async def unrung(real: PostgresLedger, token: str, *, waited_seconds: float = 0) -> list[Ring]:
    """Return the rings that the outbox gets now."""
    found = await real.ring_unrung(token, waited_seconds=waited_seconds)
    assert not found.has_more
    return found.rings


async def due(real: PostgresLedger) -> list[Ring]:
    """Return the unrung deliveries that one sweep gets now."""
    found = await real.ring_unrung(None, waited_seconds=0)
    assert not found.has_more
    return found.rings


async def test_a_look_says_what_else_there_is_to_do(pool: Pool, installation: Installation) -> None:
    """It says whether an endpoint is held, whether one is ordered, and whether a replay job runs."""
    added = await installation.endpoint()
    real, chores = ledger(pool), []
    replay = """
        INSERT INTO hookseal.replays (tenant_id, id, state, states, until, end_id, rate, cursor, matched, moved_at)
        VALUES ('acme', $1::uuid, 'running', '{failed}', now(), gen_random_uuid(), 1, gen_random_uuid(), 1, now())
    """
    for change in (
        "SELECT $1::uuid",
        "INSERT INTO hookseal.lines (tenant_id, endpoint_id) VALUES ('acme', $1::uuid)",
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id) VALUES ('acme', $1::uuid)",
        replay,
        "UPDATE hookseal.replays SET state = 'done', ended_at = now() WHERE id = $1::uuid",
    ):
        await pool.execute(change, added.pointer.endpoint_id)
        chores.append((await real.ring_unrung(None, waited_seconds=0)).chores)

    assert chores == [
        set(),
        {Chore.LINES},
        {Chore.LINES, Chore.HELD},
        {Chore.LINES, Chore.HELD, Chore.REPLAYS},
        {Chore.LINES, Chore.HELD},
    ]


async def test_each_due_delivery_is_rung_once(pool: Pool, stored: Installation) -> None:
    [ready] = await stored.deliveries()
    [waiting] = await stored.deliveries()
    await rows.change(pool, "deliveries", waiting.delivery_id, waiting_for="secret")

    assert [ready] == await due(ledger(pool))
    assert [] == await due(ledger(pool))
    claim = await stored.claim(ready)
    await ledger(pool).release(claim, None)
    assert [ready] == await due(ledger(pool))


async def test_the_longest_due_delivery_is_rung_first(pool: Pool, stored: Installation) -> None:
    """The sweep and the outbox ring deliveries in the order in which they came due, not in that of their creation."""
    rings = [(await stored.deliveries())[0] for _ in range(4)]
    for age, ring in enumerate(rings, start=1):
        await rows.change(pool, "deliveries", ring.delivery_id, next_attempt_at=rows.ago(hours=age))
    oldest_first = rings[::-1]

    assert oldest_first == await unrung(ledger(pool), await lead(pool))
    await rows.change(pool, "deliveries", rung_at=None)
    assert oldest_first == await due(ledger(pool))


@pytest.mark.parametrize("at_most", [59, 60, 200])
async def test_batches_return_every_due_delivery_once(pool: Pool, stored: Installation, at_most: int) -> None:
    """For any batch size, every due delivery is returned once and in order, even if many came due at the same time."""
    await pool.execute("SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, 600)")
    await pool.execute(
        "WITH numbered AS (SELECT id, row_number() OVER (ORDER BY md5(id::text)) AS n FROM hookseal.deliveries)"
        " UPDATE hookseal.deliveries AS d"
        " SET"
        " next_attempt_at = date_trunc('hour', now()) - make_interval(hours => n::integer / 140)"
        " FROM numbered WHERE numbered.id = d.id"
    )
    expected = await pool.fetch("SELECT id::text FROM hookseal.deliveries ORDER BY next_attempt_at, id")
    rung: list[str] = []
    sizes: list[int] = []
    more = True
    while more:
        found = await ledger(pool).ring_unrung(None, waited_seconds=0, at_most=at_most)
        rung += [ring.delivery_id for ring in found.rings]
        sizes.append(len(found.rings))
        more = found.has_more

    assert [row[0] for row in expected] == rung
    assert [at_most] * (600 // at_most) + [600 % at_most] == sizes


async def test_a_search_for_lost_rings_starts_at_its_index_position(pool: Pool) -> None:
    """A batch starts at its position in an index of what was rung, so earlier found cost nothing."""
    statement = statements("hookseal.dispatcher.store", "ledger.sql")["rung_before"]
    now = await ledger(pool).seconds_ago(0)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        place = (BEGINNING.due_at, BEGINNING.delivery_id)
        found = await connection.fetch(f"EXPLAIN {statement}", 10, now, *place, now, 100)
        plan = "\n".join(row[0] for row in found)

    assert "deliveries_rung" in plan
    condition = plan.split("Index Cond:")[1].split("\n")[0]
    assert "ROW((next_attempt_at)::timestamp with time zone, id) > ROW(" in condition


async def publish_for(pool: Pool, **backlogs: int) -> None:
    """Insert an endpoint for each of these tenants, and publish that many events for it, tenant after tenant."""
    for tenant, number in backlogs.items():
        await rows.endpoint(pool, tenant)
        await rows.publish(pool, number, tenant)


def tenants(found: Unrung) -> dict[str, int]:
    """Return how many rings of each tenant were returned."""
    return dict(Counter(ring.tenant_id for ring in found.rings))


@pytest.mark.req("DEL-09")
async def test_tenants_take_turns_in_a_backlog(pool: Pool) -> None:
    """In a backlog each tenant gets the same share of a batch, whatever is older; what one leaves goes to no other."""
    await publish_for(pool, ant=500, bee=1, cow=40)
    found = await ledger(pool).ring_unrung(None, waited_seconds=0, at_most=90)

    assert {"ant": 30, "bee": 1, "cow": 30} == tenants(found)
    assert (frozenset({"ant", "cow"}), True, True, "") == (
        found.backlogged,
        found.has_backlog,
        found.has_more,
        found.place,
    )
    assert {"ant": 45, "cow": 10} == tenants(await ledger(pool).ring_unrung(None, waited_seconds=0, at_most=90))


@pytest.mark.req("DEL-09")
async def test_the_next_batch_begins_after_the_last_tenant(pool: Pool) -> None:
    """A batch that is smaller than the number of tenants continues where the last one ended, then begins anew."""
    await publish_for(pool, ant=500, bee=500, cow=1)
    real, place = ledger(pool), ""
    order: list[str] = []
    while len(order) < 5:
        found = await real.ring_unrung(None, waited_seconds=0, at_most=1, after=place)
        order += list(tenants(found))
        place = found.place

    assert ["ant", "bee", "cow", "ant", "bee"] == order


@pytest.mark.req("DEL-09")
async def test_the_rings_of_each_tenant_are_limited(pool: Pool) -> None:
    await publish_for(pool, ant=5, bee=1, cow=2)
    found = await ledger(pool).ring_unrung(None, waited_seconds=0, each=1)

    assert {"ant": 1, "bee": 1, "cow": 1} == tenants(found)
    assert {"ant", "cow"} == set(found.backlogged), "nothing is left of the second tenant"
    assert [3, 2] == [(await ledger(pool).standing(at_most))[0] for at_most in (1_000, 2)]


@pytest.mark.req("DEL-09")
async def test_tenants_without_due_deliveries_are_passed(pool: Pool) -> None:
    """A look passes at most 500 tenants, also those that have only later retries; the next look continues there."""
    await publish_for(pool, zebra=20)
    await pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
        " SELECT 'later' || n, hookseal.uuid7(), 'https://receiver.example/hook', '{*}'"
        " FROM generate_series(1000, 1600) AS n"
    )
    await pool.execute(
        "SELECT hookseal.publish('later' || n, 'invoice.paid', '{}'::json) FROM generate_series(1000, 1600) AS n"
    )
    await rows.change(pool, "deliveries", where="tenant_id <> 'zebra'", next_attempt_at=rows.ahead(hours=1))
    real = ledger(pool)
    first = await real.ring_unrung(None, waited_seconds=0, at_most=10)
    second = await real.ring_unrung(None, waited_seconds=0, at_most=10, after=first.place)

    assert ([], True, "later1499") == (first.rings, first.has_more, first.place)
    assert ({"zebra": 10}, True, "") == (tenants(second), second.has_more, second.place)


@pytest.mark.req("DEL-09")
async def test_locked_deliveries_delay_no_other(pool: Pool) -> None:
    """If others have locked the oldest of a backlog, the rest is rung, and no look is repeated for nothing."""
    await publish_for(pool, ant=30)
    real = ledger(pool)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM hookseal.deliveries ORDER BY id LIMIT 20 FOR UPDATE")
        assert 10 == len((await real.ring_unrung(None, waited_seconds=0, at_most=10)).rings)
        found = await real.ring_unrung(None, waited_seconds=0, at_most=10)
        assert ([], True, False) == (found.rings, found.has_backlog, found.has_more)
    assert 10 == len((await real.ring_unrung(None, waited_seconds=0, at_most=10)).rings)


@pytest.mark.req("DEL-01")
async def test_the_outbox_rings_each_unrung_delivery_once(pool: Pool, stored: Installation) -> None:
    """The leader of the outbox gets every due unrung delivery exactly once, even with concurrent requests."""
    rings = {(await stored.deliveries())[0] for _ in range(5)}
    token = await lead(pool)
    answers = await asyncio.gather(*(ledger(pool).ring_unrung(token, waited_seconds=0) for _ in range(4)))
    rung = [ring for answer in answers for ring in answer.rings]

    assert (rings, len(rings)) == (set(rung), len(rung))
    assert [] == await unrung(ledger(pool), token)


@pytest.mark.req("DEL-01")
async def test_only_the_leader_rings(pool: Pool, stored: Installation) -> None:
    """Without the token of a valid lease, nothing is returned, and nothing counts as rung."""
    [ring] = await stored.deliveries()
    real = ledger(pool)

    assert [] == await unrung(real, NOBODY), "there is no leader yet"
    former = await lead(pool)
    over = await lead(pool, seconds=-1)
    assert [] == await unrung(real, former)
    assert [] == await unrung(real, over)
    assert [ring] == await unrung(real, await lead(pool))


@pytest.mark.req("DEL-01")
async def test_a_producer_has_time_to_ring_before_the_outbox(pool: Pool, stored: Installation) -> None:
    """The outbox gets a delivery only after it was due and unrung for `waited_seconds`: its producer rings first."""
    [ring] = await stored.deliveries()
    token, real = await lead(pool, seconds=600), ledger(pool)
    found = []
    for due_for in (-60, 30, 61):
        await rows.change(pool, "deliveries", next_attempt_at=rows.ago(seconds=due_for))
        found.append(await unrung(real, token, waited_seconds=60))

    assert [[], [], [ring]] == found


@pytest.mark.req("DEL-06")
@pytest.mark.parametrize(
    "write",
    [
        lambda real, claim: real.record(claim, ROW, RETRY, "why"),
        lambda real, claim: real.record_all([FinishedAttempt(claim=claim, attempt=ROW, verdict=RETRY, error="why")]),
        lambda real, claim: real.release(claim, None),
        lambda real, claim: real.release(claim, WAIT),
    ],
    ids=["retry", "retry in a batch", "given back", "wait"],
)
async def test_a_delivery_due_again_counts_as_unrung(
    pool: Pool, stored: Installation, write: Callable[[PostgresLedger, Claim], Awaitable[object]]
) -> None:
    """A delivery that is retried, given back or released counts as unrung, so the outbox rings it when it is due."""
    [ring] = await stored.deliveries()
    real, token = ledger(pool), await lead(pool)
    claim = await real.claim(ring)
    assert claim is not None
    assert (await stored.delivery(ring))["rung_at"] is not None, "a claim did not count as a ring"

    assert await write(real, claim)
    assert (await stored.delivery(ring))["rung_at"] is None
    await rows.change(pool, "held_endpoints", probe_at=rows.NOW)
    await PostgresHeldEndpoints(pool).probe()
    await rows.change(pool, "deliveries", next_attempt_at=rows.NOW)
    assert [ring] == await unrung(real, token)


@pytest.mark.req("DEL-22")
@pytest.mark.parametrize("waiting_for", ["endpoint_disabled", "secret"])
async def test_a_held_delivery_is_neither_rung_nor_changed(pool: Pool, stored: Installation, waiting_for: str) -> None:
    """Neither the outbox nor a sweep returns, claims or changes a delivery that waits, however long it was due."""
    [ring] = await stored.deliveries()
    await rows.change(pool, "deliveries", waiting_for=waiting_for, held_at=rows.NOW, next_attempt_at=rows.ago(hours=1))
    before = await stored.delivery(ring)
    real, now = ledger(pool), await ledger(pool).seconds_ago(0)

    assert [] == await unrung(real, await lead(pool, 3600))
    assert [] == await due(real)
    assert RungBefore([], place=None, oldest=None) == await real.rung_before(now, now)
    assert ([], 0) == await real.ring_again([ring], now)
    assert await real.claim(ring) is None
    assert before == await stored.delivery(ring)


async def test_a_sweep_rings_only_deliveries_due_at_its_start(pool: Pool, stored: Installation) -> None:
    """A delivery that comes due during a sweep is left to the next one, so that each sweep ends."""
    began = await ledger(pool).seconds_ago(0)
    [ring] = await stored.deliveries()
    found = await ledger(pool).ring_unrung(None, waited_seconds=0, now=began)

    assert [] == found.rings
    assert [ring] == await due(ledger(pool))


async def test_a_search_for_lost_rings_examines_a_limited_number(pool: Pool, stored: Installation) -> None:
    """The search for lost rings examines the first `walked` of those that were rung, behind any unrung backlog."""
    for _ in range(3):
        await stored.deliveries()
    [recent] = await stored.deliveries()
    [lost] = await stored.deliveries()
    await rows.change(pool, "deliveries", recent.delivery_id, rung_at=rows.ahead(seconds=60))
    await rows.change(pool, "deliveries", lost.delivery_id, rung_at=rows.NOW)
    real, now = ledger(pool), await ledger(pool).seconds_ago(0)

    assert [] == (await real.rung_before(now, now, walked=1)).rings
    assert [lost] == (await real.rung_before(now, now, walked=2)).rings


class SlowClock(FakeClock):
    """Every look takes a second by this clock, which is as long as `moves` is set."""

    moves = True

    def monotonic(self) -> float:
        self.elapsed += self.moves
        return super().monotonic()


async def test_a_look_begins_where_the_last_one_ended(pool: Pool, stored: Installation) -> None:
    """It finds what was committed up to five seconds late; a whole look, in its time, also what was committed later."""
    real, start = ledger(pool), LookStart(clock := SlowClock())
    found = []
    for due_seconds_ago in (60, 70, 4, 60):
        [late] = await stored.deliveries()
        await rows.change(pool, "deliveries", late.delivery_id, next_attempt_at=rows.ago(seconds=due_seconds_ago))
        found.append((await real.ring_unrung(None, waited_seconds=0, start=start)).rings == [late])
        clock.moves = False
    assert [True, False, True, False] == found

    clock.elapsed += MOST_PAUSE
    assert 2 == len((await real.ring_unrung(None, waited_seconds=0, start=start)).rings)


async def test_a_look_does_not_pass_what_it_could_not_ring(pool: Pool, stored: Installation) -> None:
    """A delivery that another transaction has locked is found by the next look, though it has long been due."""
    [locked] = await stored.deliveries()
    await rows.change(pool, "deliveries", next_attempt_at=rows.ago(hours=1))
    real, start = ledger(pool), LookStart(clock := SlowClock())
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries FOR UPDATE")
        assert [] == (await real.ring_unrung(None, waited_seconds=0, start=start)).rings
        clock.moves = False
        assert [] == (await real.ring_unrung(None, waited_seconds=0, start=start)).rings
    assert [locked] == (await real.ring_unrung(None, waited_seconds=0, start=start)).rings


@pytest.mark.pure
def test_a_look_that_failed_is_repeated() -> None:
    """After an error the place stays as it was. A whole look, also one that was requested, comes again, not at once."""
    start = LookStart(clock := SlowClock())
    start.since = since = datetime(2026, 1, 31, tzinfo=UTC)
    with start.look():
        pass
    start.look_at_all()
    assert [None, since, None] == [failed(start, clock, waited) for waited in (0.0, 0.0, MOST_AFTER_FAILURE)]
    start.look_at_all()
    with start.look() as place:
        assert place is None


def failed(start: LookStart, clock: FakeClock, waited_seconds: float) -> datetime | None:
    """Return where a look begins that comes so much later, and fails."""
    clock.elapsed += waited_seconds
    with suppress(Unavailable), start.look() as place:
        raise Unavailable("PostgreSQL does not answer")
    return place


@pytest.mark.pure
def test_a_whole_look_that_failed_is_followed_by_one_that_is_not_whole() -> None:
    """If every whole look is ended by the time-out, each other look succeeds, however rarely looks come."""
    start = LookStart(clock := SlowClock())
    start.since = since = datetime(2026, 1, 31, tzinfo=UTC)
    assert [None, since, None, since] == [failed(start, clock, 900.0) for _ in range(4)]


@pytest.mark.pure
@pytest.mark.parametrize(("took", "pause"), [(0.002, 0.04), (0.25, 5.0), (4.0, 10.0), (600.0, 10.0)])
def test_whole_looks_come_again_after_ten_seconds_at_most(took: float, pause: float) -> None:
    """A process that is paused within a look, or a locked table, does not end whole looks for long."""
    start = LookStart(clock := FakeClock())
    start.since = since = datetime(2026, 1, 31, tzinfo=UTC)
    with start.look():
        clock.elapsed += took
    places = []
    for waited_seconds in (0.9 * pause, 0.11 * pause):
        clock.elapsed += waited_seconds
        with start.look() as place:
            places.append(place)
    assert [since, None] == places


@pytest.mark.pure
def test_the_left_end_is_before_every_other_place() -> None:
    one = datetime(2026, 1, 31, tzinfo=UTC)
    later = one + timedelta(seconds=1)
    assert [one, None, None] == [earlier(later, one), earlier(None, one), earlier(one, None)]


@pytest.mark.pure
def test_a_whole_look_that_failed_comes_again_after_five_seconds_at_most() -> None:
    start = LookStart(clock := FakeClock())
    start.since = since = datetime(2026, 1, 31, tzinfo=UTC)
    with suppress(asyncio.CancelledError), start.look():
        clock.elapsed += 600.0
        raise asyncio.CancelledError
    assert [since, since, None] == [failed(start, clock, waited) for waited in (0.0, 4.9, 0.1)]


@pytest.fixture
async def two_tenants(begun_pool: Pool) -> Installation:
    """Return an installation with two endpoints, of two tenants."""
    return await begin_with_two_tenants(begun_pool)


async def claimed(installation: Installation, rings: list[Ring], *, most_bytes: int = ENOUGH) -> Claimed:
    """Claim the deliveries of these rings."""
    ledger = PostgresLedger(installation.pool, worker="w1", lease_seconds=45)
    return await ledger.claim_all(rings, TOKEN, most_bytes=most_bytes)


async def published(installation: Installation, number: int, tenant: str = "acme") -> list[Ring]:
    """Return the rings of that many new deliveries."""
    return [(await installation.deliveries(tenant))[0] for _ in range(number)]


def names(found: Claimed) -> set[str]:
    """Return the ids of the claimed deliveries."""
    return {claim.ring.delivery_id for claim in found.claims}


@pytest.mark.req("DEL-03", "DUR-02")
async def test_all_are_claimed_under_one_lease(two_tenants: Installation) -> None:
    """Every due delivery is claimed for its own ring, all under one token; claims for one endpoint share a target."""
    rings = await published(two_tenants, 3) + await published(two_tenants, 2, "globex")
    found = await claimed(two_tenants, rings)

    assert ({each.delivery_id for each in rings}, []) == (names(found), found.busy)
    assert set(rings) == {claim.ring for claim in found.claims}
    assert {TOKEN} == {claim.lease_token for claim in found.claims}
    assert {(each.endpoint_id, each.endpoint_id) for each in rings} == {
        (claim.ring.endpoint_id, claim.target and claim.target.pointer.endpoint_id) for claim in found.claims
    }
    assert 2 == len({id(claim.target) for claim in found.claims})
    assert Claimed(claims=[], busy=[]) == await claimed(two_tenants, rings)


@pytest.mark.req("DUR-04")
async def test_a_locked_delivery_holds_up_no_other(two_tenants: Installation) -> None:
    """If the row of the first delivery is locked, the others are claimed at once, and that one is reported as busy.

    The others get what was read of their endpoint, which the statement returns only once.
    """
    rings = await published(two_tenants, 5)
    async with two_tenants.pool.acquire() as holder, holder.transaction():
        await holder.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", rings[0].delivery_id
        )
        found = await claimed(two_tenants, rings)

    assert 1 == len({claim.target for claim in found.claims} - {None})
    assert ({each.delivery_id for each in rings} - {rings[0].delivery_id}, [rings[0]]) == (names(found), found.busy)
    assert {rings[0].delivery_id} == names(await claimed(two_tenants, rings))


@pytest.mark.req("SEC-10", "DUR-04")
async def test_a_locked_endpoint_holds_up_no_other(two_tenants: Installation) -> None:
    """While an endpoint's row is locked, the claim says so of its deliveries, and claims those of other endpoints."""
    mine, other = await published(two_tenants, 3), await published(two_tenants, 2, "globex")
    async with two_tenants.pool.acquire() as holder, holder.transaction():
        await holder.execute("SELECT FROM hookseal.endpoints WHERE tenant_id = 'acme' FOR UPDATE")
        found = await claimed(two_tenants, mine + other)
        alone = await claimed(two_tenants, mine[:1])

    assert ({each.delivery_id for each in other}, set(mine), []) == (names(found), set(found.locked), found.busy)
    assert Claimed(claims=[], busy=[], locked=mine[:1]) == alone


@pytest.mark.req("DUR-04")
async def test_a_locked_delivery_of_a_locked_endpoint_is_busy(two_tenants: Installation) -> None:
    rings = await published(two_tenants, 2)
    async with two_tenants.pool.acquire() as holder, holder.transaction():
        await holder.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
        await holder.execute(
            "SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", rings[1].delivery_id
        )
        found = await claimed(two_tenants, rings)

    assert Claimed(claims=[], busy=rings[1:], locked=rings[:1]) == found


@pytest.mark.req("SEC-08", "DEL-02")
async def test_a_ring_with_a_wrong_id_claims_nothing(two_tenants: Installation) -> None:
    mine, other = await published(two_tenants, 3), await published(two_tenants, 1, "globex")
    forged = [
        replace(mine[0], tenant_id=TenantId("globex")),
        replace(mine[1], endpoint_id=other[0].endpoint_id),
        replace(mine[2], delivery_id=DeliveryId(STRANGE)),
    ]
    found = await claimed(two_tenants, forged + other)

    assert ({other[0].delivery_id}, []) == (names(found), found.busy)
    assert {each.delivery_id for each in mine} == names(await claimed(two_tenants, mine))


async def test_the_later_ring_of_one_delivery_counts(two_tenants: Installation) -> None:
    """Of several rings for one delivery the last one counts, and it claims only if all three of its ids match."""
    [ring] = await published(two_tenants, 1)
    forged = replace(ring, tenant_id=TenantId("globex"))

    assert Claimed(claims=[], busy=[]) == await claimed(two_tenants, [ring, forged])
    found = await claimed(two_tenants, [forged, ring])
    assert [ring] == [claim.ring for claim in found.claims]


async def test_bodies_beyond_the_limit_of_bytes_are_not_claimed(two_tenants: Installation) -> None:
    """Deliveries are claimed in ring order while their bodies fit into the size limit; the rest are busy."""
    event = NewEvent(tenant_id=TenantId("acme"), event_type="invoice.paid")
    large = (await publish_json(two_tenants.pool, event, json.dumps("x" * 200_000))).deliveries[0]
    first, last = await published(two_tenants, 1), await published(two_tenants, 2)
    found = await claimed(two_tenants, [*first, large, *last], most_bytes=200_200)

    assert ({first[0].delivery_id, large.delivery_id}, set(last)) == (names(found), set(found.busy))
    assert sum(len(claim.body) for claim in found.claims) <= 200_200
    assert {each.delivery_id for each in last} == names(await claimed(two_tenants, [*first, large, *last]))


async def test_an_endpoint_of_which_nothing_fits_has_no_row(two_tenants: Installation) -> None:
    [fits], left = await published(two_tenants, 1), await published(two_tenants, 2, "globex")
    most = len((await claimed(two_tenants, [fits])).claims[0].body)
    await two_tenants.pool.execute(_UNCLAIM)
    found = await claimed(two_tenants, [fits, *left], most_bytes=most)

    assert ({fits.delivery_id}, left) == (names(found), found.busy)


@pytest.mark.parametrize("is_reported", [False, True])
@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_delivery_of_a_missing_endpoint_has_no_target(
    two_tenants: Installation, is_lost: bool, is_reported: bool
) -> None:
    """A delivery without its endpoint is claimed without a target, and reported as lost if no command deleted it.

    What a worker has reported since then, from a copy of the row that it had read before, changes nothing.
    """
    [ring], [other] = await published(two_tenants, 1), await published(two_tenants, 1, "globex")
    if is_lost:
        await rows.remove(two_tenants.pool, "endpoints", where="tenant_id = 'acme'")
    else:
        async with two_tenants.pool.acquire() as connection:
            await delete_endpoint(two_tenants.operator(connection), ring.tenant_id, ring.endpoint_id)
        await rows.change(
            two_tenants.pool, "deliveries", where="state = 'cancelled'", state="pending", next_attempt_at=rows.NOW
        )
    if is_reported:
        found_old = Stale(
            tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, generation=0, reason="it is old", restore_epoch=0
        )
        async with two_tenants.pool.acquire() as connection:
            assert await audit_stale(two_tenants.operator(connection), found_old)
    found = {claim.ring: claim for claim in (await claimed(two_tenants, [ring, other])).claims}

    assert (None, is_lost) == (found[ring].target, found[ring].endpoint_lost)
    assert found[other].target is not None


async def test_a_ring_without_a_due_delivery_claims_nothing(two_tenants: Installation) -> None:
    [ring] = await published(two_tenants, 1)
    await rows.change(two_tenants.pool, "deliveries", next_attempt_at=rows.ahead(hours=1))

    assert Claimed(claims=[], busy=[]) == await claimed(
        two_tenants, [ring, replace(ring, endpoint_id=EndpointId(STRANGE))]
    )


@pytest.mark.req("SEC-08", "DUR-04")
@pytest.mark.parametrize("year", ["20000-01-01Z", "4000-01-01Z BC", "infinity"])
async def test_a_time_outside_pythons_range_is_claimed(two_tenants: Installation, year: str) -> None:
    mine, other = await published(two_tenants, 1), await published(two_tenants, 2, "globex")
    await rows.change(two_tenants.pool, "deliveries", mine[0].delivery_id, created_at=rows.Sql(f"'{year}'"))

    assert {each.delivery_id for each in mine + other} == names(await claimed(two_tenants, mine + other))


async def test_one_statement_says_what_it_did_not_claim(two_tenants: Installation) -> None:
    """A claim runs one statement, also if it leaves out deliveries that are locked, and others that are not due."""
    free, locked, ended = await published(two_tenants, 3)
    await rows.set_state(two_tenants.pool, "delivered", ended.delivery_id)
    asked: list[str] = []
    async with two_tenants.pool.acquire() as connection, two_tenants.pool.acquire() as holder, holder.transaction():
        connection.add_query_logger(lambda done: asked.append(done.query))
        await holder.execute("SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", locked.delivery_id)
        ledger = PostgresLedger(connection, worker="w1", lease_seconds=45)
        found = await ledger.claim_all([free, locked, ended], TOKEN, most_bytes=ENOUGH)

    assert ({free.delivery_id}, [locked], []) == (names(found), found.busy, found.behind)
    assert 1 == len(asked)


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 5])
async def test_claims_of_a_few_deliveries_share_a_plan(
    two_tenants: Installation, at_once: int, *, analyzed: bool
) -> None:
    """After the first five, PostgreSQL makes no new plan for a claim of a few deliveries."""
    # As if nothing had ever been in the tables, or analysed them.
    await two_tenants.pool.execute("TRUNCATE hookseal.events, hookseal.deliveries CASCADE")
    rings = await published(two_tenants, 20 * at_once)
    if analyzed:
        await two_tenants.pool.execute("ANALYZE")
    async with two_tenants.pool.acquire() as connection:
        for first in range(0, len(rings), at_once):
            some = rings[first : first + at_once]
            ledger = PostgresLedger(connection, worker="w1", lease_seconds=45)
            found = await ledger.claim_all(some, TOKEN, most_bytes=at_once * MAX_BODY_BYTES)
            assert {each.delivery_id for each in some} == names(found)
        row = await connection.fetchrow(
            "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement LIKE $1",
            "WITH asked%" if at_once > 1 else "WITH due%",
        )
    assert (5, 15) == tuple(row or ())
