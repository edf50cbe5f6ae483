"""Claims whose answer was lost are given back, unspent, however late the server made them."""

import uuid

import asyncpg
import pytest
import structlog

from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import Unavailable
from hookseal.worker.recorder import LostClaims
from tests.doubles.clock import FakeClock
from tests.doubles.stored import begin

Pool = asyncpg.Pool
LEASE_SECONDS = 45


def looking(ledger: PostgresLedger, clock: FakeClock) -> LostClaims:
    """Return the search for lost claims."""
    return LostClaims(ledger, lease_seconds=LEASE_SECONDS, clock=clock, log=structlog.get_logger())


@pytest.mark.req("DEL-03")
async def test_a_lost_claim_is_given_back_unspent(pool: "Pool[asyncpg.Record]") -> None:
    """The delivery of a lost claim is due at once, unrung, without an attempt; its next claim has the same number."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    ledger, clock, token = PostgresLedger(pool, worker="w1", lease_seconds=45), FakeClock(), str(uuid.uuid4())
    lost = looking(ledger, clock)
    lost.add(token)
    await lost.once()  # the server has not made the claim yet
    assert await ledger.claim(ring, token) is not None
    await lost.once()

    row = await installation.delivery(ring)
    assert ("pending", 0, 0, None) == tuple(row[name] for name in ("state", "attempts", "budget_spent", "rung_at"))
    assert [] == await installation.attempts(ring)
    assert 0 == len(lost)
    again = await ledger.claim(ring)
    assert again is not None
    assert 1 == again.number


async def test_other_claims_are_left_alone(pool: "Pool[asyncpg.Record]") -> None:
    """A claim with another token is not given back."""
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    ledger = PostgresLedger(pool, worker="w1", lease_seconds=45)
    lost = looking(ledger, FakeClock())
    lost.add(str(uuid.uuid4()))
    await ledger.claim(ring)
    await lost.once()

    assert "sending" == (await installation.delivery(ring))["state"]


class UnreachableLedger(PostgresLedger):
    """A ledger that does not answer."""

    async def give_back(self, tokens: list[str]) -> list[str]:
        """Fail."""
        raise Unavailable("PostgreSQL does not answer")


async def test_tokens_are_kept_for_a_lease_after_an_outage(pool: "Pool[asyncpg.Record]") -> None:
    """Tokens are kept during an outage, and discarded when PostgreSQL has answered for the length of a lease."""
    away = UnreachableLedger(pool, worker="w1", lease_seconds=LEASE_SECONDS)
    back = PostgresLedger(pool, worker="w1", lease_seconds=LEASE_SECONDS)
    clock = FakeClock()
    lost = looking(away, clock)
    lost.add(str(uuid.uuid4()))
    await clock.sleep(10 * LEASE_SECONDS)
    await lost.once()
    lost._ledger = back
    await clock.sleep(LEASE_SECONDS - 1)
    await lost.once()
    assert 1 == len(lost)
    await clock.sleep(2)
    await lost.once()

    assert 0 == len(lost)


async def test_the_number_of_tokens_is_bounded(pool: "Pool[asyncpg.Record]") -> None:
    """At most ten thousand tokens are kept."""
    lost = looking(PostgresLedger(pool, worker="w1", lease_seconds=LEASE_SECONDS), FakeClock())
    for _ in range(10_001):
        lost.add(str(uuid.uuid4()))

    assert 10_000 == len(lost)
