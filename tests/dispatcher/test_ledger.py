"""What the ledger in PostgreSQL keeps, and what the sweep asks of it."""

import asyncio

import asyncpg
import pytest

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Attempt, Outcome, State, WaitingFor
from hookseal.dispatcher.policy import Wait
from hookseal.embedded.server import Server
from hookseal.ground.errors import Unavailable
from tests.doubles.claims import RING
from tests.doubles.stored import begin

Pool = asyncpg.Pool
ROW = Attempt(outcome=Outcome.SERVER_ERROR, status=503, duration_ms=12, snippet="later", signed_by=("db:acme:n:1",))


def ledger(pool: "Pool[asyncpg.Record]", *, lease_seconds: float = 45) -> PostgresLedger:
    """Return the ledger of worker w1."""
    return PostgresLedger(pool, worker="w1", lease_seconds=lease_seconds)


@pytest.mark.req("DEL-15")
async def test_the_attempt_log(pool: "Pool[asyncpg.Record]") -> None:
    """An attempt is kept with its number, start, duration, status, outcome, snippet, signers and worker."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    claim = await ledger(pool).claim(ring)
    assert claim is not None
    await ledger(pool).record(claim, ROW, State.FAILED, "the receiver answered 503")

    [kept] = await installation.attempts(ring)
    row = await installation.delivery(ring)
    assert (1, claim.claimed_at, 12, 503, "server_error", "later", ["db:acme:n:1"], "w1") == tuple(
        kept[name]
        for name in ("number", "started_at", "duration_ms", "status", "outcome", "snippet", "signed_by", "worker")
    )
    assert ("failed", 1, "the receiver answered 503", None, None) == tuple(
        row[name] for name in ("state", "attempts", "last_error", "lease_token", "next_attempt_at")
    )


@pytest.mark.req("DEL-03")
async def test_what_a_claim_stores(pool: "Pool[asyncpg.Record]") -> None:
    """A claim stores its owner, number, start, refs and generation: an attempt can be written from it later."""
    installation = await begin(pool)
    added = await installation.endpoint()
    [ring] = await installation.deliveries()
    await ledger(pool).claim(ring)

    row = await installation.delivery(ring)
    assert ("sending", "w1", 1, [added.pointer.secret_ref], 1) == tuple(
        row[name] for name in ("state", "lease_owner", "claimed_number", "claimed_refs", "claimed_generation")
    )
    assert row["lease_expires_at"] > row["claimed_at"]


@pytest.mark.req("DEL-15")
async def test_a_dead_workers_attempt_is_on_record(pool: "Pool[asyncpg.Record]") -> None:
    """A lease that ran out is ended: the attempt is written as unknown, with its refs, and the delivery is due."""
    installation = await begin(pool)
    added = await installation.endpoint()
    [ring] = await installation.deliveries()
    lost = await ledger(pool, lease_seconds=0).claim(ring)
    assert lost is not None

    assert 1 == await ledger(pool).end_lost_leases()
    assert 0 == await ledger(pool).end_lost_leases()
    [kept] = await installation.attempts(ring)
    assert (1, "unknown", [added.pointer.secret_ref], "w1") == tuple(
        kept[name] for name in ("number", "outcome", "signed_by", "worker")
    )
    assert not await ledger(pool).record(lost, ROW, State.DELIVERED, None), "the dead one is fenced off"
    again = await ledger(pool).claim(ring)
    assert again is not None
    assert 2 == again.number


async def test_a_running_lease_is_left_alone(pool: "Pool[asyncpg.Record]") -> None:
    """The sweep ends no lease that still runs."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await ledger(pool).claim(ring)

    assert 0 == await ledger(pool).end_lost_leases()


async def test_ring_due(pool: "Pool[asyncpg.Record]") -> None:
    """Everything due is rung once, then again only when the ring must have been lost; what waits is not rung."""
    installation = await begin(pool)
    await installation.endpoint()
    [due] = await installation.deliveries()
    [waiting] = await installation.deliveries()
    claim = await ledger(pool).claim(waiting)
    assert claim is not None
    await ledger(pool).release(claim, Wait(waiting_for=WaitingFor.SECRET, seconds=60, reason="why"))

    moment = await ledger(pool).seconds_ago(15)
    assert [due] == await ledger(pool).ring_due(moment)
    assert [] == await ledger(pool).ring_due(moment)
    assert [due] == await ledger(pool).ring_due(await ledger(pool).seconds_ago(0))


async def test_a_locked_delivery_is_claimed_once_it_is_free(pool: "Pool[asyncpg.Record]") -> None:
    """A claim that meets another's lock waits for it, so that no ring is lost to the sweep's own."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    async with pool.acquire() as other:
        holding = other.transaction()
        await holding.start()
        await other.execute("SELECT FROM hookseal.deliveries FOR UPDATE")
        claiming = asyncio.create_task(ledger(pool).claim(ring))
        while not await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass
        await holding.rollback()

    assert await claiming is not None


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE hookseal.deliveries SET lease_owner = NULL WHERE state = 'sending'",
        "UPDATE hookseal.deliveries SET next_attempt_at = 'infinity' WHERE state = 'pending'",
        "UPDATE hookseal.endpoints SET previous_secret_expires_at = '20000-01-01Z'",
    ],
)
async def test_rows_that_nobody_could_read_are_refused(pool: "Pool[asyncpg.Record]", spoil: str) -> None:
    """The tables themselves refuse a hand-made row that a claim or a sweep would stumble over."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    await installation.deliveries()
    await ledger(pool).claim(ring)

    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(spoil)


@pytest.mark.req("DEL-03")
async def test_the_overlap_is_the_databases_to_decide(pool: "Pool[asyncpg.Record]") -> None:
    """The previous secret is due while its expiry lies ahead of the database's clock, and its ref is then claimed."""
    installation = await begin(pool)
    added = await installation.endpoint()
    due: list[tuple[bool, int]] = []
    for expiry in ("1 hour", "-1 second"):
        await pool.execute(
            "UPDATE hookseal.endpoints SET previous_secret_ref = 'db:acme:old:1',"
            " previous_secret_expires_at = now() + $1::text::interval",
            expiry,
        )
        [ring] = await installation.deliveries()
        claim = await ledger(pool).claim(ring)
        assert claim is not None
        assert claim.target is not None
        due.append((claim.target.pointer.previous_due, len((await installation.delivery(ring))["claimed_refs"])))

    assert added.pointer.secret_ref
    assert [(True, 2), (False, 1)] == due


async def test_longest_timeout(pool: "Pool[asyncpg.Record]") -> None:
    """Only enabled endpoints count."""
    installation = await begin(pool)
    assert 0 == await ledger(pool).longest_timeout_ms()
    await installation.endpoint()
    await pool.execute("UPDATE hookseal.endpoints SET timeout_ms = 9000")
    assert 9000 == await ledger(pool).longest_timeout_ms()
    await pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    assert 0 == await ledger(pool).longest_timeout_ms()


async def test_an_outage_is_unavailable(own_postgres: Server) -> None:
    """A server that stands still, or is gone, is `Unavailable`, within seconds, without a value in the text."""
    async with asyncpg.create_pool(own_postgres.url, min_size=1, max_size=1) as pool:
        real = PostgresLedger(pool, worker="w1", lease_seconds=45)
        assert await real.claim(RING) is None
        own_postgres.freeze()
        try:
            with pytest.raises(Unavailable, match="TimeoutError"):
                await real.claim(RING)
        finally:
            own_postgres.thaw()
        pool.terminate()
        with pytest.raises(Unavailable):
            await real.claim(RING)
