"""What the ledger gives to the sweep and to the outbox, to be rung."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Claim, State, Verdict
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


async def test_ring_due(pool: "Pool[asyncpg.Record]") -> None:
    """Everything due is rung once, then again only when the ring must have been lost; what waits is not rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [due] = await installation.deliveries()
    [waiting] = await installation.deliveries()
    claim = await ledger(pool).claim(waiting)
    assert claim is not None
    await ledger(pool).release(claim, WAIT)

    moment = await ledger(pool).seconds_ago(15)
    assert [due] == await ledger(pool).ring_due(moment)
    assert [] == await ledger(pool).ring_due(moment)
    assert [due] == await ledger(pool).ring_due(await ledger(pool).seconds_ago(0))


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

    assert oldest_first == await ledger(pool).ring_unrung(await lead(pool), waited_seconds=0)
    assert oldest_first == await ledger(pool).ring_due(await ledger(pool).seconds_ago(0))


@pytest.mark.req("DEL-01")
async def test_what_nobody_rang_is_rung_once(pool: "Pool[asyncpg.Record]") -> None:
    """The leader of the outbox gets every due delivery that nobody rang, each once, however often it asks at a time."""
    installation = await begin(pool)
    await installation.endpoint()
    rings = {(await installation.deliveries())[0] for _ in range(5)}
    token = await lead(pool)
    answers = await asyncio.gather(*(ledger(pool).ring_unrung(token, waited_seconds=0) for _ in range(4)))
    rung = [ring for answer in answers for ring in answer]

    assert (rings, len(rings)) == (set(rung), len(rung))
    assert [] == await ledger(pool).ring_unrung(token, waited_seconds=0)


@pytest.mark.req("DEL-01")
async def test_only_the_leader_rings(pool: "Pool[asyncpg.Record]") -> None:
    """Without the token of the lease, or once the lease is over, nothing is returned and nothing counts as rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    real = ledger(pool)

    assert [] == await real.ring_unrung(NOBODY, waited_seconds=0), "nobody leads yet"
    former = await lead(pool)
    over = await lead(pool, seconds=-1)
    assert [] == await real.ring_unrung(former, waited_seconds=0)
    assert [] == await real.ring_unrung(over, waited_seconds=0)
    assert [ring] == await real.ring_unrung(await lead(pool), waited_seconds=0)


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
        found.append(await real.ring_unrung(token, waited_seconds=60))

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
    await pool.execute("UPDATE hookseal.deliveries SET next_attempt_at = now()")
    assert [ring] == await real.ring_unrung(token, waited_seconds=0)
