"""A 410 disables the endpoint that answered it, unless the endpoint was changed meanwhile."""

import asyncio

import asyncpg
import pytest

from hookseal.dispatcher.model import Attempt, Claim, Outcome, Ring, State, Verdict
from hookseal.operations.endpoint.update import update_endpoint
from tests.dispatcher.test_ledger import ledger
from tests.doubles.stored import Installation, begin
from tests.operations.blocked import blocked

Pool = asyncpg.Pool
ROW = Attempt(outcome=Outcome.GONE, status=410, duration_ms=12, snippet="", signed_by=("db:acme:n:1",))
DISABLE = Verdict(state=State.FAILED, disable="the receiver answered 410 Gone")
_ENDPOINT = "SELECT enabled, disabled_reason, disabled_at FROM hookseal.endpoints"

pytestmark = pytest.mark.req("DEL-05", part="each-delivery")


async def moved(installation: Installation, ring: Ring, url: str = "https://receiver.example/moved") -> None:
    """Change the URL of this delivery's endpoint."""
    async with installation.pool.acquire() as connection:
        await update_endpoint(
            installation.operator(connection), ring.tenant_id, ring.endpoint_id, {"url": url}, own_drain_seconds=25
        )


async def in_flight(installation: Installation) -> Claim:
    """Return the claim of a delivery to a new endpoint."""
    await installation.endpoint()
    [ring] = await installation.deliveries()
    claim = await ledger(installation.pool).claim(ring)
    assert claim is not None
    return claim


async def test_a_late_410_disables_nothing(pool: "Pool[asyncpg.Record]") -> None:
    """After `endpoint update --url`, a 410 of the old URL is recorded unspent; the delivery is due, for the new URL."""
    installation = await begin(pool)
    claim = await in_flight(installation)
    await moved(installation, claim.ring)

    done = await ledger(pool).record(claim, ROW, DISABLE, "the receiver answered 410")

    assert (True, None, None) == tuple(await pool.fetchrow(_ENDPOINT) or ())
    assert Verdict(state=State.PENDING) == done
    row = await installation.delivery(claim.ring)
    assert ("pending", 1, 0, None, None) == tuple(
        row[name] for name in ("state", "attempts", "budget_spent", "rung_at", "waiting_for")
    )
    assert "the receiver answered 410 before the endpoint was changed" == row["last_error"]
    [kept] = await installation.attempts(claim.ring)
    assert ("gone", 410) == (kept["outcome"], kept["status"])
    again = await ledger(pool).claim(claim.ring)
    assert again is not None
    assert again.target is not None
    assert (2, 0, "https://receiver.example/moved") == (again.number, again.budget_spent, again.target.pointer.url)
    assert DISABLE == await ledger(pool).record(again, ROW, DISABLE, "the receiver answered 410"), (
        "the 410 of the new URL did not disable the endpoint"
    )
    assert not await pool.fetchval("SELECT enabled FROM hookseal.endpoints")


async def test_a_410_waits_for_a_change_of_the_endpoint(pool: "Pool[asyncpg.Record]") -> None:
    """A 410 that is recorded while the URL is being changed waits for that change, and sees the new endpoint."""
    installation = await begin(pool)
    claim = await in_flight(installation)
    async with pool.acquire() as moving, moving.transaction():
        await update_endpoint(
            installation.operator(moving),
            *(claim.ring.tenant_id, claim.ring.endpoint_id),
            {"url": "https://receiver.example/moved"},
            own_drain_seconds=25,
        )
        recording = asyncio.create_task(ledger(pool).record(claim, ROW, DISABLE, "the receiver answered 410"))
        await blocked(installation)

    assert Verdict(state=State.PENDING) == await recording
    assert await pool.fetchval("SELECT enabled FROM hookseal.endpoints")


async def test_a_410_of_a_deleted_endpoint_fails_the_delivery(pool: "Pool[asyncpg.Record]") -> None:
    """If the endpoint was deleted meanwhile, a 410 fails the delivery, and there is nothing to disable."""
    installation = await begin(pool)
    claim = await in_flight(installation)
    await pool.execute("DELETE FROM hookseal.endpoints")

    assert DISABLE == await ledger(pool).record(claim, ROW, DISABLE, "the receiver answered 410")
    assert "failed" == (await installation.delivery(claim.ring))["state"]
