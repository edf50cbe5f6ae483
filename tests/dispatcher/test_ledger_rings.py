"""Which deliveries the ledger returns to the sweep and the outbox for ringing."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from hookseal.dispatcher.held_endpoints import PostgresHeldEndpoints
from hookseal.dispatcher.ledger import BEGINNING, Cursor, PostgresLedger
from hookseal.dispatcher.model import Claim, Ring, State, Verdict
from hookseal.postgres.statements import statements
from tests.dispatcher.test_ledger import ROW, WAIT, ledger
from tests.doubles.stored import begin

Pool = asyncpg.Pool
pytestmark = pytest.mark.usefixtures("begun_pool")
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
    rings, more = await real.ring_unrung(token, waited_seconds=waited_seconds)
    assert not more
    return rings


async def due(real: PostgresLedger) -> list[Ring]:
    """Return the unrung deliveries that one sweep gets now."""
    rings, place = await real.ring_due(await real.seconds_ago(0))
    assert place is None
    return rings


async def test_ring_due(pool: "Pool[asyncpg.Record]") -> None:
    """Each due delivery is rung once, and again only when it becomes due again; one that waits is not rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [ready] = await installation.deliveries()
    [waiting] = await installation.deliveries()
    claim = await ledger(pool).claim(waiting)
    assert claim is not None
    await ledger(pool).release(claim, WAIT)

    assert [ready] == await due(ledger(pool))
    assert [] == await due(ledger(pool))
    claim = await ledger(pool).claim(ready)
    assert claim is not None
    await ledger(pool).release(claim, None)
    assert [ready] == await due(ledger(pool))


async def test_what_is_rung_comes_oldest_first(pool: "Pool[asyncpg.Record]") -> None:
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


@pytest.mark.parametrize("at_most", [299, 300, 1_000])
async def test_batch_after_batch(pool: "Pool[asyncpg.Record]", at_most: int) -> None:
    """For any batch size, every due delivery is returned once and in order, even if many came due at the same time."""
    installation = await begin(pool)
    await installation.endpoint()
    await pool.execute(
        "SELECT hookseal.publish('acme', 'invoice.paid', '{}'::json) FROM generate_series(1, 3000)",
    )
    await pool.execute(
        "WITH numbered AS (SELECT id, row_number() OVER (ORDER BY md5(id::text)) AS n FROM hookseal.deliveries)"
        " UPDATE hookseal.deliveries AS d"
        " SET"
        " next_attempt_at = date_trunc('hour', now()) - make_interval(hours => n::integer / 700)"
        " FROM numbered WHERE numbered.id = d.id"
    )
    expected = await pool.fetch("SELECT id::text FROM hookseal.deliveries ORDER BY next_attempt_at, id")
    now = await ledger(pool).seconds_ago(0)
    rung: list[str] = []
    sizes: list[int] = []
    place: Cursor | None = BEGINNING
    while place is not None:
        rings, place = await ledger(pool).ring_due(now, place, at_most=at_most)
        rung += [ring.delivery_id for ring in rings]
        sizes.append(len(rings))

    assert [row[0] for row in expected] == rung
    assert [at_most] * (3_000 // at_most) + [3_000 % at_most] == sizes


async def test_a_batch_walks_past_nothing_rung(pool: "Pool[asyncpg.Record]") -> None:
    """A batch starts at its position in an index, so earlier rows cost nothing."""
    statement = statements("hookseal.dispatcher", "ledger.sql")["ring_due"]
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = "\n".join(
            row[0]
            for row in await connection.fetch(
                f"EXPLAIN {statement}",
                10,
                BEGINNING.due_at,
                BEGINNING.delivery_id,
                await ledger(pool).seconds_ago(0),
            )
        )

    assert "deliveries_unrung" in plan
    assert "ROW(next_attempt_at, id) > ROW(" in plan.split("Index Cond:")[1].split("\n")[0]
    assert "Sort Key: d.next_attempt_at" not in plan


@pytest.mark.req("DEL-01")
async def test_what_nobody_rang_is_rung_once(pool: "Pool[asyncpg.Record]") -> None:
    """The leader of the outbox gets every due unrung delivery exactly once, even with concurrent requests."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = {(await installation.deliveries())[0] for _ in range(5)}
    token = await lead(pool)
    answers = await asyncio.gather(*(ledger(pool).ring_unrung(token, waited_seconds=0) for _ in range(4)))
    rung = [ring for answer, _ in answers for ring in answer]

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
async def test_whoever_published_is_left_time_to_ring(pool: "Pool[asyncpg.Record]") -> None:
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
        lambda real, claim: real.record(claim, ROW, Verdict(state=State.PENDING, retry_in_seconds=60), "why"),
        lambda real, claim: real.release(claim, None),
        lambda real, claim: real.release(claim, WAIT),
    ],
    ids=["retry", "given back", "wait"],
)
async def test_what_becomes_due_again_is_unrung(
    pool: "Pool[asyncpg.Record]", write: Callable[[PostgresLedger, Claim], Awaitable[bool]]
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
async def test_what_waits_is_neither_rung_nor_put_off(pool: "Pool[asyncpg.Record]", waiting_for: str) -> None:
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
    assert [] == await real.ring_again([ring], now)
    assert await real.claim(ring) is None
    assert before == await installation.delivery(ring)


async def test_a_sweep_rings_what_was_due_as_it_began(pool: "Pool[asyncpg.Record]") -> None:
    """A delivery that comes due during a sweep is left to the next one, so that each sweep ends."""
    installation = await begin(pool)
    await installation.endpoint()
    began = await ledger(pool).seconds_ago(0)
    [ring] = await installation.deliveries()
    rings, _ = await ledger(pool).ring_due(began)

    assert [] == rings
    assert [ring] == await due(ledger(pool))


async def test_a_lost_ring_is_looked_for_among_the_first_of_a_backlog(pool: "Pool[asyncpg.Record]") -> None:
    """The search for lost rings examines only the first `walked` rows of a backlog; rows behind them wait."""
    installation = await begin(pool)
    await installation.endpoint()
    unrung = [(await installation.deliveries())[0] for _ in range(3)]
    [rung] = await installation.deliveries()
    await pool.execute("UPDATE hookseal.deliveries SET rung_at = now() WHERE id = $1::text::uuid", rung.delivery_id)
    real, now = ledger(pool), await ledger(pool).seconds_ago(0)

    assert ([], None) == await real.rung_before(now, now, walked=3)
    assert ([rung], None) == await real.rung_before(now, now, walked=4)
    await pool.execute("DELETE FROM hookseal.deliveries WHERE id = $1::text::uuid", unrung[0].delivery_id)
    assert ([rung], None) == await real.rung_before(now, now, walked=3)
