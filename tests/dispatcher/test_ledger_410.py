"""A 410 disables the endpoint that answered it, unless the endpoint was changed meanwhile."""

import asyncio

import asyncpg
import pytest

from hookseal.audit.log import lock_chain, verify
from hookseal.dispatcher.core.model import Attempt, Claim, Outcome, Ring, State, Verdict
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import audit_gone
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from tests.dispatcher.test_ledger import ledger
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation, begin
from tests.operations.blocked import blocked

Pool = asyncpg.Pool
ROW = Attempt(outcome=Outcome.GONE, status=410, duration_ms=12, snippet="", signed_by=("db:acme:n:1",))
DISABLE = Verdict(state=State.FAILED, disable="the receiver answered 410 Gone")
_ENDPOINT = "SELECT enabled, disabled_reason, disabled_at FROM hookseal.endpoints"
_DISABLED = """
SELECT l.at BETWEEN e.disabled_at AND now(), l.generation FROM hookseal.audit_log AS l, hookseal.endpoints AS e
 WHERE l.action = 'endpoint.disabled'
"""

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


def auditing(installation: Installation) -> PostgresLedger:
    """Return the ledger of worker w1, which audits as a worker does."""

    async def audit(connection: Connection, tenant: TenantId, endpoint_id: EndpointId, reason: str) -> None:
        operator = Operator(connection=connection, unlocked=installation.unlocked, who="worker/w1")
        await audit_gone(operator, tenant, endpoint_id, reason)

    return PostgresLedger(installation.pool, worker="w1", lease_seconds=45, audit=audit)


async def recorded(installation: Installation, claim: Claim) -> Verdict | None:
    """Record a 410 of this claim."""
    return await auditing(installation).record(claim, ROW, DISABLE, "the receiver answered 410")


@pytest.mark.req("SEC-14", part="append")
async def test_a_disabled_endpoint_is_audited(pool: "Pool[asyncpg.Record]") -> None:
    """A 410 disables the endpoint and adds an audit row: the worker, the reason, the time; the chain stays intact."""
    installation = await begin(pool)
    claim = await in_flight(installation)
    assert DISABLE == await recorded(installation, claim)

    assert {
        "action": "endpoint.disabled",
        "subject": f"endpoint:{claim.ring.endpoint_id}",
        "who": "worker/w1",
        "before": {"enabled": True, "disabled_reason": None},
        "after": {"enabled": False, "disabled_reason": DISABLE.disable},
    } == (await audited(pool))[-1]
    # Without a generation the row is not taken for a move of the pointer.
    assert (True, None) == tuple(await pool.fetchrow(_DISABLED) or ())
    [chain] = await verify(pool, installation.unlocked.integrity, tenant=TenantId("acme"))
    assert chain.broken is None
    await installation.rotate(claim.ring.endpoint_id)


async def _not_disabled(installation: Installation, claim: Claim) -> None:
    """The attempt is on record, and the endpoint is enabled, without an audit row."""
    assert "failed" == (await installation.delivery(claim.ring))["state"]
    assert ["gone"] == [each["outcome"] for each in await installation.attempts(claim.ring)]
    assert (True, None, None) == tuple(await installation.pool.fetchrow(_ENDPOINT) or ())
    assert "endpoint.disabled" not in {row["action"] for row in await audited(installation.pool)}


async def test_a_locked_audit_log_delays_no_outcome(pool: "Pool[asyncpg.Record]") -> None:
    """While another change of the tenant holds its audit log, and then wants the endpoint, the outcome is recorded.

    Neither is ended by a deadlock. The endpoint stays enabled, and the next 410 disables it.
    """
    installation = await begin(pool)
    claim = await in_flight(installation)
    async with pool.acquire() as other:
        async with other.transaction():
            await lock_chain(other, TenantId("acme"))
            recording = asyncio.create_task(recorded(installation, claim))
            await blocked(installation)
            await other.execute("UPDATE hookseal.endpoints SET name = 'changed'")
        assert Verdict(state=State.FAILED) == await recording
    await _not_disabled(installation, claim)

    [ring] = await installation.deliveries()
    again = await ledger(pool).claim(ring)
    assert again is not None
    assert DISABLE == await recorded(installation, again)
    assert "endpoint.disabled" == (await audited(pool))[-1]["action"]


async def test_a_broken_audit_log_loses_no_outcome(pool: "Pool[asyncpg.Record]") -> None:
    """If the audit log of the tenant takes no row, the outcome is recorded, and nothing is disabled without one."""
    installation = await begin(pool)
    claim = await in_flight(installation)
    await pool.execute("UPDATE hookseal.audit_heads SET mac = sha256('x') WHERE tenant_id = 'acme'")
    assert Verdict(state=State.FAILED) == await recorded(installation, claim)
    await _not_disabled(installation, claim)
