"""What the ledger gives to the sweep and to the outbox, to be rung."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from hookseal.dispatcher.holds import PostgresHolds
from hookseal.dispatcher.ledger import BEGINNING, Place, PostgresLedger
from hookseal.dispatcher.model import Claim, Ring, State, Verdict
from hookseal.ground.sql import statements
from tests.dispatcher.test_ledger import ROW, WAIT, ledger
from tests.doubles.stored import begin

Pool = asyncpg.Pool
NOBODY = "00000000-0000-4000-8000-000000000000"


async def lead(pool: "Pool[asyncpg.Record]", seconds: float = 10) -> str:
    """Lead the outbox for so long, and return the token."""
    token: str = await pool.fetchval(
        "UPDATE hookseal.control SET token = gen_random_uuid(), until = now() + make_interval(secs => $1)"
        " WHERE name = 'outbox' RETURNING token::text",
        seconds,
    )
    return token


async def unrung(real: PostgresLedger, token: str, *, waited_seconds: float = 0) -> list[Ring]:
    """Return what the outbox rings now."""
    rings, more = await real.ring_unrung(token, waited_seconds=waited_seconds)
    assert not more
    return rings


async def due(real: PostgresLedger, *, rung_seconds_ago: float = 15) -> list[Ring]:
    """Return what one sweep rings now, if what was rung so long ago counts as lost."""
    rings, place = await real.ring_due(await real.seconds_ago(0), await real.seconds_ago(rung_seconds_ago))
    assert place is None
    return rings


async def test_ring_due(pool: "Pool[asyncpg.Record]") -> None:
    """Everything due is rung once, then again only when the ring must have been lost; what waits is not rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [ready] = await installation.deliveries()
    [waiting] = await installation.deliveries()
    claim = await ledger(pool).claim(waiting)
    assert claim is not None
    await ledger(pool).release(claim, WAIT)

    assert [ready] == await due(ledger(pool))
    assert [] == await due(ledger(pool))
    assert [ready] == await due(ledger(pool), rung_seconds_ago=0)


async def test_what_is_rung_comes_oldest_first(pool: "Pool[asyncpg.Record]") -> None:
    """The sweep and the outbox ring in the order in which deliveries came due, whichever was made first."""
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
    assert oldest_first == await due(ledger(pool), rung_seconds_ago=0)


@pytest.mark.parametrize("at_most", [299, 300, 1_000])
async def test_batch_after_batch(pool: "Pool[asyncpg.Record]", at_most: int) -> None:
    """Whatever the size of a batch, everything due is returned once and in order, many of one moment among it."""
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
    now, rung_before = await ledger(pool).seconds_ago(0), await ledger(pool).seconds_ago(15)
    rung: list[str] = []
    sizes: list[int] = []
    place: Place | None = BEGINNING
    while place is not None:
        rings, place = await ledger(pool).ring_due(now, rung_before, place, at_most=at_most)
        rung += [ring.delivery_id for ring in rings]
        sizes.append(len(rings))

    assert [row[0] for row in expected] == rung
    assert [at_most] * (3_000 // at_most) + [3_000 % at_most] == sizes


async def test_a_batch_walks_past_nothing_rung(pool: "Pool[asyncpg.Record]") -> None:
    """A batch finds its rows by an index from its place on: what was rung before it costs it nothing."""
    statement = statements("hookseal.dispatcher", "ledger.sql")["ring_due"]
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = "\n".join(
            row[0]
            for row in await connection.fetch(
                f"EXPLAIN {statement}",
                10,
                await ledger(pool).seconds_ago(15),
                BEGINNING.due_at,
                BEGINNING.delivery_id,
                await ledger(pool).seconds_ago(0),
            )
        )

    assert "deliveries_due" in plan
    assert "ROW(next_attempt_at, id) > ROW(" in plan.split("Index Cond:")[1].split("\n")[0]
    assert "Sort Key: d.next_attempt_at" not in plan


@pytest.mark.req("DEL-01")
async def test_what_nobody_rang_is_rung_once(pool: "Pool[asyncpg.Record]") -> None:
    """The leader of the outbox gets every due delivery that nobody rang, each once, however often it asks at a time."""
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
    """Without the token of the lease, or once the lease is over, nothing is returned and nothing counts as rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    real = ledger(pool)

    assert [] == await unrung(real, NOBODY), "nobody leads yet"
    former = await lead(pool)
    over = await lead(pool, seconds=-1)
    assert [] == await unrung(real, former)
    assert [] == await unrung(real, over)
    assert [ring] == await unrung(real, await lead(pool))


@pytest.mark.req("DEL-01")
async def test_whoever_published_is_left_time_to_ring(pool: "Pool[asyncpg.Record]") -> None:
    """A delivery is the outbox's only once it has been due and unrung for so long, and never before it is due."""
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
    """A delivery that is tried again or looked at again has not been rung for that time: the outbox does it then."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    real, token = ledger(pool), await lead(pool)
    claim = await real.claim(ring)
    assert claim is not None
    assert (await installation.delivery(ring))["rung_at"] is not None, "a claim is as good as a ring"

    assert await write(real, claim)
    assert (await installation.delivery(ring))["rung_at"] is None
    await pool.execute("UPDATE hookseal.held_endpoints SET probe_at = now()")
    await PostgresHolds(pool).probe()
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = now()")
    assert [ring] == await unrung(real, token)


@pytest.mark.req("DEL-22")
@pytest.mark.parametrize("waiting_for", ["endpoint_disabled", "secret"])
async def test_what_waits_is_neither_rung_nor_put_off(pool: "Pool[asyncpg.Record]", waiting_for: str) -> None:
    """No look of the outbox or of a sweep returns, claims or changes what waits, however long it has been due."""
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
    assert [] == await due(real, rung_seconds_ago=0)
    assert ([], None) == await real.rung_before(now, now)
    assert [] == await real.ring_again([ring], now)
    assert await real.claim(ring) is None
    assert before == await installation.delivery(ring)


async def test_a_sweep_rings_what_was_due_as_it_began(pool: "Pool[asyncpg.Record]") -> None:
    """What comes due while a sweep goes on is for the next one: so it ends."""
    installation = await begin(pool)
    await installation.endpoint()
    began = await ledger(pool).seconds_ago(0)
    [ring] = await installation.deliveries()
    rings, _ = await ledger(pool).ring_due(began, await ledger(pool).seconds_ago(15))

    assert [] == rings
    assert [ring] == await due(ledger(pool))
