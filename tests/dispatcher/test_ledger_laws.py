"""The laws of a ledger: the double, the real one, and the real one that tries again all keep them."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.dispatcher.model import Attempt, Claim, Outcome, Ring, State, WaitingFor
from hookseal.dispatcher.policy import Wait
from hookseal.dispatcher.ports import Ledger
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.worker.ledger import PersistentLedger
from tests.doubles.claims import CLAIM, RING
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger
from tests.doubles.stored import begin

Pool = asyncpg.Pool
OTHER = "01900000-0000-7000-8000-0000000000ff"
ROW = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=12, snippet="ok", signed_by=("db:acme:n:1",))


@pytest.fixture(params=["memory", "postgres", "persistent"])
async def case(request: pytest.FixtureRequest, pool: "Pool[asyncpg.Record]") -> tuple[Ledger, Ring]:
    """Give a ledger with one due delivery, and its ring."""
    if request.param == "memory":
        ledger = MemoryLedger(FakeClock())
        ledger.add(CLAIM)
        return ledger, RING
    installation = await begin(pool)
    await installation.endpoint()
    [ring] = await installation.deliveries()
    real = PostgresLedger(pool, worker="w1", lease_seconds=45)
    return (real if request.param == "postgres" else PersistentLedger(real, seconds=5, clock=SystemClock())), ring


async def claimed(ledger: Ledger, ring: Ring) -> Claim:
    """Return the claim of a delivery that can be claimed."""
    claim = await ledger.claim(ring)
    assert claim is not None
    return claim


@pytest.mark.req("DEL-03")
async def test_a_claim_has_all_an_attempt_needs(case: tuple[Ledger, Ring]) -> None:
    """A claim holds the frozen body, the event, the first attempt number and where to send."""
    ledger, ring = case
    claim = await claimed(ledger, ring)

    assert (ring, 1, "invoice.paid", "corr-1") == (claim.ring, claim.number, claim.event_type, claim.correlation_id)
    assert claim.body.startswith(b'{"type":"invoice.paid"')
    assert claim.target is not None
    assert (True, 5000, 1) == (claim.target.enabled, claim.target.timeout_ms, claim.target.pointer.generation)


@pytest.mark.req("DEL-03")
async def test_one_of_many_claims_wins(case: tuple[Ledger, Ring]) -> None:
    """Of twenty claims at the same time exactly one gets the delivery."""
    ledger, ring = case
    claims = await asyncio.gather(*(ledger.claim(ring) for _ in range(20)))

    assert 1 == sum(claim is not None for claim in claims)


@pytest.mark.req("DEL-02", "SEC-08")
@pytest.mark.parametrize("field", ["tenant_id", "endpoint_id", "delivery_id"])
async def test_a_ring_must_match_in_all_three_ids(case: tuple[Ledger, Ring], field: str) -> None:
    """A ring that names another tenant, endpoint or delivery claims nothing, and the delivery stays claimable."""
    ledger, ring = case
    forged = {
        "tenant_id": replace(ring, tenant_id=TenantId("globex")),
        "endpoint_id": replace(ring, endpoint_id=EndpointId(OTHER)),
        "delivery_id": replace(ring, delivery_id=DeliveryId(OTHER)),
    }[field]

    assert await ledger.claim(forged) is None
    assert await ledger.claim(ring) is not None


@pytest.mark.req("DEL-03")
async def test_a_recorded_delivery_is_over(case: tuple[Ledger, Ring]) -> None:
    """What was recorded as delivered is never claimed again, and its claim is worth nothing any more."""
    ledger, ring = case
    claim = await claimed(ledger, ring)

    assert await ledger.record(claim, ROW, State.DELIVERED, None)
    assert await ledger.claim(ring) is None
    assert not await ledger.record(claim, ROW, State.FAILED, "late")
    assert not await ledger.release(claim, None)
    assert not await ledger.end(claim, State.CANCELLED, "late")


async def test_recorded_as_pending_is_due_at_once(case: tuple[Ledger, Ring]) -> None:
    """An attempt that leaves its delivery pending counts: the next claim is the second attempt."""
    ledger, ring = case
    await ledger.record(await claimed(ledger, ring), replace(ROW, outcome=Outcome.UNKNOWN), State.PENDING, "cut off")

    assert 2 == (await claimed(ledger, ring)).number


async def test_released_counts_no_attempt(case: tuple[Ledger, Ring]) -> None:
    """What is given back is due at once and its next claim has the same number, under another lease."""
    ledger, ring = case
    first = await claimed(ledger, ring)

    assert await ledger.release(first, None)
    second = await claimed(ledger, ring)
    assert (1, True) == (second.number, first.lease_token != second.lease_token)


async def test_a_wait_is_kept(case: tuple[Ledger, Ring]) -> None:
    """What waits cannot be claimed before its time."""
    ledger, ring = case
    wait = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="why")

    assert await ledger.release(await claimed(ledger, ring), wait)
    assert await ledger.claim(ring) is None


async def test_an_older_lease_writes_nothing(case: tuple[Ledger, Ring]) -> None:
    """Once the delivery was claimed again, the first claim is fenced off from every write."""
    ledger, ring = case
    first = await claimed(ledger, ring)
    await ledger.release(first, None)
    second = await claimed(ledger, ring)

    assert not await ledger.record(first, ROW, State.FAILED, "late")
    assert not await ledger.release(first, None)
    assert not await ledger.end(first, State.CANCELLED, "late")
    assert await ledger.record(second, ROW, State.DELIVERED, None)


async def test_ended_without_an_attempt(case: tuple[Ledger, Ring]) -> None:
    """What is ended is over."""
    ledger, ring = case

    assert await ledger.end(await claimed(ledger, ring), State.FAILED, "why")
    assert await ledger.claim(ring) is None
