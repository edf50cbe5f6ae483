"""Which deliveries the ledger returns to the sweep and the outbox for ringing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Claim, FinishedAttempt, Ring, State, Verdict
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.ledger import BEGINNING, Chore, PostgresLedger, Unrung
from hookseal.postgres.statements import statements
from tests.dispatcher.test_ledger import ROW, WAIT, ledger
from tests.doubles.stored import begin

Pool = asyncpg.Pool
pytestmark = pytest.mark.usefixtures("begun_pool")
RETRY = Verdict(state=State.PENDING, retry_in_seconds=60)
NOBODY = "00000000-0000-4000-8000-000000000000"


async def lead(pool: "Pool[asyncpg.Record]", seconds: float = 10) -> str:
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


async def test_a_look_says_what_else_there_is_to_do(pool: "Pool[asyncpg.Record]") -> None:
    """It says whether an endpoint is held, whether one is ordered, and whether a replay job runs."""
    installation = await begin(pool)
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


async def test_each_due_delivery_is_rung_once(pool: "Pool[asyncpg.Record]") -> None:
    """Each due delivery is rung once, and again only when it becomes due again; one that waits is not rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [ready] = await installation.deliveries()
    [waiting] = await installation.deliveries()
    await pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = 'secret' WHERE id = $1::text::uuid", waiting.delivery_id
    )

    assert [ready] == await due(ledger(pool))
    assert [] == await due(ledger(pool))
    claim = await ledger(pool).claim(ready)
    assert claim is not None
    await ledger(pool).release(claim, None)
    assert [ready] == await due(ledger(pool))


async def test_the_longest_due_delivery_is_rung_first(pool: "Pool[asyncpg.Record]") -> None:
    """The sweep and the outbox ring deliveries in the order in which they came due, not in that of their creation."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(4)]
    for age, ring in enumerate(rings, start=1):
        await pool.execute(
            "UPDATE hookseal.deliveries SET next_attempt_at = now() - make_interval(hours => $1)"
            " WHERE id = $2::text::uuid",
            age,
            ring.delivery_id,
        )
    oldest_first = rings[::-1]

    assert oldest_first == await unrung(ledger(pool), await lead(pool))
    await pool.execute("UPDATE hookseal.deliveries SET rung_at = NULL")
    assert oldest_first == await due(ledger(pool))


@pytest.mark.parametrize("at_most", [59, 60, 200])
async def test_batches_return_every_due_delivery_once(pool: "Pool[asyncpg.Record]", at_most: int) -> None:
    """For any batch size, every due delivery is returned once and in order, even if many came due at the same time."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, 600)",
    )
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


async def test_a_search_for_lost_rings_starts_at_its_index_position(pool: "Pool[asyncpg.Record]") -> None:
    """A batch starts at its position in an index of what was rung, so earlier rows cost nothing."""
    statement = statements("hookseal.dispatcher.store", "ledger.sql")["rung_before"]
    now = await ledger(pool).seconds_ago(0)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        place = (BEGINNING.due_at, BEGINNING.delivery_id)
        rows = await connection.fetch(f"EXPLAIN {statement}", 10, now, *place, now, 100)
        plan = "\n".join(row[0] for row in rows)

    assert "deliveries_rung" in plan
    condition = plan.split("Index Cond:")[1].split("\n")[0]
    assert "ROW((next_attempt_at)::timestamp with time zone, id) > ROW(" in condition


async def publish_for(pool: "Pool[asyncpg.Record]", **backlogs: int) -> None:
    """Insert an endpoint for each of these tenants, and publish that many events for it, tenant after tenant."""
    for tenant, number in backlogs.items():
        await pool.execute(
            "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types)"
            " VALUES ($1, hookseal.uuid7(), 'https://receiver.example/hook', '{*}')",
            tenant,
        )
        await pool.execute(
            "SELECT hookseal.publish($1, 'invoice.paid', '{}'::json) FROM generate_series(1, $2::int)", tenant, number
        )


def tenants(found: Unrung) -> dict[str, int]:
    """Return how many rings of each tenant were returned."""
    return dict(Counter(ring.tenant_id for ring in found.rings))


@pytest.mark.req("DEL-09")
async def test_tenants_take_turns_in_a_backlog(pool: "Pool[asyncpg.Record]") -> None:
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
async def test_the_next_batch_begins_after_the_last_tenant(pool: "Pool[asyncpg.Record]") -> None:
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
async def test_the_rings_of_each_tenant_are_limited(pool: "Pool[asyncpg.Record]") -> None:
    """With `each` every tenant gets that many at most, even if no more than a batch is due."""
    await publish_for(pool, ant=5, bee=1, cow=2)
    found = await ledger(pool).ring_unrung(None, waited_seconds=0, each=1)

    assert {"ant": 1, "bee": 1, "cow": 1} == tenants(found)
    assert {"ant", "cow"} == set(found.backlogged), "nothing is left of the second tenant"
    assert 3 == await ledger(pool).standing(1_000)
    assert 2 == await ledger(pool).standing(2)


@pytest.mark.req("DEL-09")
async def test_tenants_without_due_deliveries_are_passed(pool: "Pool[asyncpg.Record]") -> None:
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
    await pool.execute(
        "UPDATE hookseal.deliveries SET next_attempt_at = now() + interval '1 hour' WHERE tenant_id <> 'zebra'"
    )
    real = ledger(pool)
    first = await real.ring_unrung(None, waited_seconds=0, at_most=10)
    second = await real.ring_unrung(None, waited_seconds=0, at_most=10, after=first.place)

    assert ([], True, "later1499") == (first.rings, first.has_more, first.place)
    assert ({"zebra": 10}, True, "") == (tenants(second), second.has_more, second.place)


@pytest.mark.req("DEL-09")
async def test_locked_deliveries_delay_no_other(pool: "Pool[asyncpg.Record]") -> None:
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
async def test_the_outbox_rings_each_unrung_delivery_once(pool: "Pool[asyncpg.Record]") -> None:
    """The leader of the outbox gets every due unrung delivery exactly once, even with concurrent requests."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = {(await installation.deliveries())[0] for _ in range(5)}
    token = await lead(pool)
    answers = await asyncio.gather(*(ledger(pool).ring_unrung(token, waited_seconds=0) for _ in range(4)))
    rung = [ring for answer in answers for ring in answer.rings]

    assert (rings, len(rings)) == (set(rung), len(rung))
    assert [] == await unrung(ledger(pool), token)


@pytest.mark.req("DEL-01")
async def test_only_the_leader_rings(pool: "Pool[asyncpg.Record]") -> None:
    """Without the token of a valid lease, nothing is returned, and nothing counts as rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    real = ledger(pool)

    assert [] == await unrung(real, NOBODY), "there is no leader yet"
    former = await lead(pool)
    over = await lead(pool, seconds=-1)
    assert [] == await unrung(real, former)
    assert [] == await unrung(real, over)
    assert [ring] == await unrung(real, await lead(pool))


@pytest.mark.req("DEL-01")
async def test_a_producer_has_time_to_ring_before_the_outbox(pool: "Pool[asyncpg.Record]") -> None:
    """The outbox gets a delivery only after it was due and unrung for `waited_seconds`: its producer rings first."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    token, real = await lead(pool, seconds=600), ledger(pool)
    found = []
    for due_for in (-60, 30, 61):
        await pool.execute(
            "UPDATE hookseal.deliveries SET next_attempt_at = now() - make_interval(secs => $1)", due_for
        )
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
    pool: "Pool[asyncpg.Record]", write: Callable[[PostgresLedger, Claim], Awaitable[object]]
) -> None:
    """A delivery that is retried, given back or released counts as unrung, so the outbox rings it when it is due."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    real, token = ledger(pool), await lead(pool)
    claim = await real.claim(ring)
    assert claim is not None
    assert (await installation.delivery(ring))["rung_at"] is not None, "a claim did not count as a ring"

    assert await write(real, claim)
    assert (await installation.delivery(ring))["rung_at"] is None
    await pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
    await PostgresHeldEndpoints(pool).probe()
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = now()")
    assert [ring] == await unrung(real, token)


@pytest.mark.req("DEL-22")
@pytest.mark.parametrize("waiting_for", ["endpoint_disabled", "secret"])
async def test_a_held_delivery_is_neither_rung_nor_changed(pool: "Pool[asyncpg.Record]", waiting_for: str) -> None:
    """Neither the outbox nor a sweep returns, claims or changes a delivery that waits, however long it was due."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await pool.execute(
        "UPDATE hookseal.deliveries SET waiting_for = $1, held_at = now(), next_attempt_at = now() - interval '1 h'",
        waiting_for,
    )
    before = await installation.delivery(ring)
    real, now = ledger(pool), await ledger(pool).seconds_ago(0)

    assert [] == await unrung(real, await lead(pool, 3600))
    assert [] == await due(real)
    assert ([], None) == await real.rung_before(now, now)
    assert ([], 0) == await real.ring_again([ring], now)
    assert await real.claim(ring) is None
    assert before == await installation.delivery(ring)


async def test_a_sweep_rings_only_deliveries_due_at_its_start(pool: "Pool[asyncpg.Record]") -> None:
    """A delivery that comes due during a sweep is left to the next one, so that each sweep ends."""
    installation = await begin(pool)
    await installation.endpoint()
    began = await ledger(pool).seconds_ago(0)
    [ring] = await installation.deliveries()
    found = await ledger(pool).ring_unrung(None, waited_seconds=0, now=began)

    assert [] == found.rings
    assert [ring] == await due(ledger(pool))


async def test_a_search_for_lost_rings_examines_a_limited_number(pool: "Pool[asyncpg.Record]") -> None:
    """The search for lost rings examines the first `walked` of those that were rung, behind any unrung backlog."""
    installation = await begin(pool)
    await installation.endpoint()
    for _ in range(3):
        await installation.deliveries()
    [recent] = await installation.deliveries()
    [lost] = await installation.deliveries()
    ring = "UPDATE hookseal.deliveries SET rung_at = now() + make_interval(secs => $2) WHERE id = $1::text::uuid"
    await pool.execute(ring, recent.delivery_id, 60)
    await pool.execute(ring, lost.delivery_id, 0)
    real, now = ledger(pool), await ledger(pool).seconds_ago(0)

    assert ([], None) == await real.rung_before(now, now, walked=1)
    assert ([lost], None) == await real.rung_before(now, now, walked=2)
