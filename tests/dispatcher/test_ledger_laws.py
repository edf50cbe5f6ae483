"""The laws of a ledger, for the double, the real one, and the real one with retries."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from hookseal.dispatcher.core.model import Attempt, Claim, Outcome, Ring, State, Verdict, WaitingFor
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.postgres.pool import Pool
from tests import rows
from tests.doubles.claims import CLAIM, RETRIES, RING, target
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger, WholeLedger, WorkerLedger
from tests.doubles.replaced import replace
from tests.doubles.stored import begin

OTHER = "01900000-0000-7000-8000-0000000000ff"
SIBLING = DeliveryId("01900000-0000-7000-8000-00000000000b")
ROW = Attempt(outcome=Outcome.DELIVERED, status=204, duration_ms=12, snippet="ok", signed_by=("db:acme:n:1",))
FAILED_ROW = replace(ROW, outcome=Outcome.SERVER_ERROR, status=500)
DELIVERED = Verdict(state=State.DELIVERED)
FAILED = Verdict(state=State.FAILED)
RETRY = Verdict(state=State.PENDING, retry_in_seconds=60)
DISABLE = Verdict(state=State.FAILED, disable="the receiver answered 410 Gone")
WAIT = Wait(waiting_for=WaitingFor.SECRET, seconds=15, reason="why")


@dataclass(frozen=True)
class Case:
    """A ledger with two due deliveries for one endpoint; `later` lets time pass, `move` moves the pointer."""

    ledger: WholeLedger
    ring: Ring
    sibling: Ring
    later: Callable[[float], Awaitable[object]]
    move: Callable[[], Awaitable[object]]


@pytest.fixture(params=["memory", "postgres", "persistent"])
async def case(request: pytest.FixtureRequest, begun_pool: Pool) -> Case:
    if request.param == "memory":
        clock = FakeClock()
        ledger = MemoryLedger(clock)
        sibling = replace(RING, delivery_id=SIBLING)
        ledger.add(CLAIM)
        ledger.add(replace(CLAIM, ring=sibling))

        async def move_in_memory() -> None:
            ledger.target(RING.delivery_id, target(generation=2))

        return Case(ledger=ledger, ring=RING, sibling=sibling, later=clock.sleep, move=move_in_memory)
    installation = await begin(begun_pool)
    new = NewEndpoint(
        tenant_id=RING.tenant_id,
        url="https://receiver.example/hook",
        event_types=("*",),
        settings={
            "max_attempts": RETRIES.attempts_allowed,
            "backoff_base_seconds": RETRIES.backoff_base_seconds,
            "backoff_cap_seconds": RETRIES.backoff_cap_seconds,
        },
    )
    await installation.add(new)
    [ring] = await installation.deliveries()
    [sibling] = await installation.deliveries()

    async def later(seconds: float) -> object:
        for table, column in (("deliveries", "next_attempt_at"), ("held_endpoints", "probe_at")):
            await rows.change(begun_pool, table, **{column: rows.Sql(f"{column} - interval '{seconds} s'")})
        return await PostgresHeldEndpoints(begun_pool).probe()

    async def move() -> object:
        return await begun_pool.execute("UPDATE hookseal.endpoints SET generation = generation + 1")

    real = PostgresLedger(begun_pool, worker="w1", lease_seconds=45)
    persistent = WorkerLedger(real, SystemClock(), new_token=lambda: str(uuid.uuid4()))
    ledger_of_param = real if request.param == "postgres" else persistent
    return Case(ledger=ledger_of_param, ring=ring, sibling=sibling, later=later, move=move)


async def one(ledger: WholeLedger, ring: Ring) -> Claim | None:
    """Return the claim of one ring's delivery, or None if there is nothing to claim."""
    found = await ledger.claim_all([ring], None, most_bytes=MAX_BODY_BYTES)
    return found.claims[0] if found.claims else None


async def claimed(ledger: WholeLedger, ring: Ring) -> Claim:
    claim = await one(ledger, ring)
    assert claim is not None
    return claim


@pytest.mark.req("DEL-03")
async def test_a_claim_has_all_an_attempt_needs(case: Case) -> None:
    """A claim contains the frozen body, the event, the number of the attempt and the target."""
    ledger, ring = case.ledger, case.ring
    claim = await claimed(ledger, ring)

    assert (ring, 1, "invoice.paid", "corr-1") == (claim.ring, claim.number, claim.event_type, claim.correlation_id)
    assert claim.created_at <= claim.claimed_at
    assert claim.body.startswith(b'{"type":"invoice.paid"')
    assert claim.target is not None
    assert (True, 5000, 1) == (claim.target.enabled, claim.target.timeout_ms, claim.target.pointer.generation)


@pytest.mark.req("DEL-03")
async def test_of_concurrent_claims_one_succeeds(case: Case) -> None:
    ledger, ring = case.ledger, case.ring
    claims = await asyncio.gather(*(one(ledger, ring) for _ in range(20)))

    assert 1 == sum(claim is not None for claim in claims)


@pytest.mark.req("DEL-02", "SEC-08")
@pytest.mark.parametrize("field", ["tenant_id", "endpoint_id", "delivery_id"])
async def test_a_ring_must_match_in_all_three_ids(case: Case, field: str) -> None:
    """A ring with a wrong tenant, endpoint or delivery claims nothing, and the delivery can still be claimed."""
    ledger, ring = case.ledger, case.ring
    forged = {
        "tenant_id": replace(ring, tenant_id=TenantId("globex")),
        "endpoint_id": replace(ring, endpoint_id=EndpointId(OTHER)),
        "delivery_id": replace(ring, delivery_id=DeliveryId(OTHER)),
    }[field]

    assert await one(ledger, forged) is None
    assert await one(ledger, ring) is not None


@pytest.mark.req("DEL-03")
async def test_a_recorded_delivery_is_not_claimed_again(case: Case) -> None:
    ledger, ring = case.ledger, case.ring
    claim = await claimed(ledger, ring)

    assert await ledger.record(claim, ROW, DELIVERED, None)
    assert await one(ledger, ring) is None
    assert not await ledger.record(claim, ROW, FAILED, "late")
    assert not await ledger.release(claim, None)
    assert not await ledger.end(claim, State.CANCELLED, "late")


@pytest.mark.req("DEL-06")
async def test_a_retry_is_due_at_its_time(case: Case) -> None:
    """After a failed attempt, the next one can be claimed after the wait, and not before."""
    ledger, ring = case.ledger, case.ring
    assert await ledger.record(await claimed(ledger, ring), FAILED_ROW, RETRY, "the receiver answered 500")

    await case.later(30)
    assert await one(ledger, ring) is None
    await case.later(30)
    assert 2 == (await claimed(ledger, ring)).number


async def test_a_retry_without_a_wait_is_due_at_once(case: Case) -> None:
    ledger, ring = case.ledger, case.ring
    unknown = replace(ROW, outcome=Outcome.UNKNOWN, status=None)
    await ledger.record(await claimed(ledger, ring), unknown, Verdict(state=State.PENDING), "cut off")

    assert 2 == (await claimed(ledger, ring)).number


@pytest.mark.req("DEL-06")
async def test_every_attempt_reduces_the_budget(case: Case) -> None:
    """A claim contains the number of spent attempts, and the number that the endpoint allows."""
    ledger, ring = case.ledger, case.ring
    spent: list[int] = []
    for _ in range(3):
        claim = await claimed(ledger, ring)
        spent.append(claim.budget_spent)
        assert claim.target is not None
        assert RETRIES == claim.target.retries
        await ledger.record(claim, FAILED_ROW, RETRY, "the receiver answered 500")
        await case.later(60)

    assert [0, 1, 2] == spent


@pytest.mark.req("DEL-06", "SEC-07")
@pytest.mark.parametrize("wait", [None, WAIT])
async def test_a_delivery_given_back_spends_no_budget(case: Case, wait: Wait | None) -> None:
    """A delivery that was not sent, for whatever reason, has spent nothing of its budget."""
    ledger, ring = case.ledger, case.ring
    assert await ledger.release(await claimed(ledger, ring), wait)
    await case.later(15)
    again = await claimed(ledger, ring)

    assert (1, 0) == (again.number, again.budget_spent)


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("state", [State.DEAD_LETTER, State.FAILED])
async def test_a_dead_letter_is_never_due(case: Case, state: State) -> None:
    ledger, ring = case.ledger, case.ring
    assert await ledger.record(await claimed(ledger, ring), FAILED_ROW, Verdict(state=state), "why")
    await case.later(1e6)

    assert await one(ledger, ring) is None


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_verdict_disables_the_endpoint(case: Case) -> None:
    """Once an attempt that disables the endpoint is on record, every later claim sees it disabled."""
    ledger = case.ledger
    assert await ledger.record(await claimed(ledger, case.ring), FAILED_ROW, DISABLE, "the receiver answered 410")

    sibling = (await claimed(ledger, case.sibling)).target
    assert sibling is not None
    assert not sibling.enabled


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_verdict_on_a_moved_pointer_disables_nothing(case: Case) -> None:
    ledger = case.ledger
    claim = await claimed(ledger, case.ring)
    await case.move()

    assert Verdict(state=State.PENDING) == await ledger.record(claim, FAILED_ROW, DISABLE, "the receiver answered 410")
    again = await claimed(ledger, case.ring)
    assert again.target is not None
    assert (True, 2, 0) == (again.target.enabled, again.number, again.budget_spent)
    assert DISABLE == await ledger.record(again, FAILED_ROW, DISABLE, "the receiver answered 410")


@pytest.mark.req("DEL-05", part="each-delivery")
async def test_a_lost_lease_disables_nothing(case: Case) -> None:
    ledger = case.ledger
    first = await claimed(ledger, case.ring)
    await ledger.release(first, None)

    assert not await ledger.record(first, FAILED_ROW, DISABLE, "late")
    sibling = (await claimed(ledger, case.sibling)).target
    assert sibling is not None
    assert sibling.enabled


async def test_a_delivery_given_back_keeps_its_attempt_number(case: Case) -> None:
    """A delivery that is given back is due at once; its next claim has the same number and another lease."""
    ledger, ring = case.ledger, case.ring
    first = await claimed(ledger, ring)

    assert await ledger.release(first, None)
    second = await claimed(ledger, ring)
    assert (1, True) == (second.number, first.lease_token != second.lease_token)


async def test_a_delivery_without_its_secret_is_not_claimed(case: Case) -> None:
    ledger, ring = case.ledger, case.ring

    assert await ledger.release(await claimed(ledger, ring), WAIT)
    await case.later(5)
    assert await one(ledger, ring) is None
    await case.later(10)
    assert await one(ledger, ring) is not None


@pytest.mark.req("DUR-02")
async def test_an_older_lease_writes_nothing(case: Case) -> None:
    """Once a delivery is claimed again, no write of the first claim takes effect."""
    ledger, ring = case.ledger, case.ring
    first = await claimed(ledger, ring)
    await ledger.release(first, None)
    second = await claimed(ledger, ring)

    assert not await ledger.record(first, ROW, FAILED, "late")
    assert not await ledger.release(first, None)
    assert not await ledger.end(first, State.CANCELLED, "late")
    assert await ledger.record(second, ROW, DELIVERED, None)


async def test_a_delivery_ended_without_an_attempt_is_not_claimed(case: Case) -> None:
    ledger, ring = case.ledger, case.ring

    assert await ledger.end(await claimed(ledger, ring), State.FAILED, "why")
    assert await one(ledger, ring) is None
