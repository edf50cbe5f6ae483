"""A retry makes everything due that waits for the next attempt of an endpoint, in batches, and nothing else."""

import asyncio
from typing import Any

import pytest

from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store import replays
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.replays import Hastened
from hookseal.errors import NotFound, Refused
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.replay import retry
from tests import rows
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("DEL-07", part="retry")

ACME = TenantId("acme")
LATER: dict[str, Any] = {"next_attempt_at": rows.ahead(hours=1), "attempts": 2, "budget_spent": 2, "rung_at": rows.NOW}
DUE = """
SELECT id::text FROM hookseal.deliveries
WHERE state = 'pending' AND waiting_for IS NULL AND next_attempt_at <= now() AND rung_at IS NULL ORDER BY id
"""


async def due(installation: Installation) -> list[str]:
    """Return the deliveries that the outbox rings."""
    return [row["id"] for row in await installation.pool.fetch(DUE)]


async def retried(installation: Installation, endpoint: str, **more: Any) -> Hastened:
    return await installation.act(retry, ACME, EndpointId(endpoint), **more)


async def test_what_waits_for_its_next_attempt_is_due(installation: Installation) -> None:
    """It keeps its budget, and its next attempt is one that an operator caused; no other delivery is changed."""
    pool = installation.pool
    endpoint, other, theirs = await rows.endpoint(pool), await rows.endpoint(pool), await rows.endpoint(pool, "globex")
    late = [await rows.delivery(pool, endpoint, **LATER) for _ in range(2)]
    for columns in (
        {"next_attempt_at": rows.ago(seconds=1), "rung_at": rows.NOW},
        {"state": "sending"},
        {"state": "dead_letter"},
    ):
        await rows.delivery(pool, endpoint, **columns)
    held = await rows.delivery(pool, endpoint, **LATER)
    await rows.wait_for(pool, "endpoint_disabled", held)
    await rows.delivery(pool, other, **LATER)
    await rows.delivery(pool, theirs, tenant="globex", **LATER)
    before = await pool.fetch("SELECT * FROM hookseal.deliveries WHERE id <> ALL ($1::uuid[]) ORDER BY id", late)

    assert Hastened(due=2, held=0) == await retried(installation, endpoint)
    assert late == await due(installation)
    facts = await pool.fetch(
        "SELECT attempts, budget_spent, manual_attempts FROM hookseal.deliveries WHERE id = ANY ($1::uuid[])", late
    )
    assert [(2, 2, [3])] * 2 == [tuple(row) for row in facts]
    assert before == await pool.fetch(
        "SELECT * FROM hookseal.deliveries WHERE id <> ALL ($1::uuid[]) ORDER BY id", late
    )
    [entry] = await audited(pool)
    assert ("endpoint.retried", {"due": 2, "held": 0}) == (entry["action"], entry["after"])
    assert Hastened(due=0, held=0) == await retried(installation, endpoint)
    assert 1 == len(await audited(pool))


async def test_a_transaction_changes_no_more_than_its_batch(installation: Installation) -> None:
    """Each has its own row in the audit log, and what is found at a time is behind what was found before."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool)
    late = [await rows.delivery(pool, endpoint, **LATER) for _ in range(7)]
    reported: list[int] = []
    assert Hastened(due=7, held=0) == await retried(installation, endpoint, batch=2, page=3, report=reported.append)
    assert late == await due(installation)
    assert [2, 1, 2, 1, 1] == reported == [row["after"]["due"] for row in await audited(pool)]


async def test_what_is_due_meanwhile_is_left_as_it_is(installation: Installation) -> None:
    """One that a worker rings after it was found keeps its time and its ring."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool)
    late = [await rows.delivery(pool, endpoint, **LATER) for _ in range(4)]
    async with pool.acquire() as connection:
        found = await replays.put_off(connection, ACME, EndpointId(endpoint), after=replays.FIRST, at_most=4)
        assert late == found
        await rows.change(pool, "deliveries", late[0], next_attempt_at=rows.ago(seconds=1))
        assert Hastened(due=3, held=0) == await replays.hasten(connection, ACME, EndpointId(endpoint), found)
    assert late[1:] == await due(installation)


@pytest.mark.parametrize("reason", ["breaker", "secret"])
async def test_those_of_a_held_endpoint_wait_with_the_others(installation: Installation, reason: str) -> None:
    """The probe alone is due; a release makes the others due."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool)
    probe, *others = [await rows.delivery(pool, endpoint, **LATER) for _ in range(3)]
    await rows.hold(pool, endpoint, waiting_for=reason, probe_id=probe, probe_at=rows.ahead(hours=1))
    assert Hastened(due=1, held=2) == await retried(installation, endpoint)
    assert [probe] == await due(installation)
    await rows.change(pool, "held_endpoints", endpoint, released_at=rows.NOW)
    released = await PostgresHeldEndpoints(pool).release_batch()
    assert released is not None
    assert [2, sorted([probe, *others])] == [released.due, await due(installation)]


async def test_an_ordered_endpoint_keeps_its_order(installation: Installation) -> None:
    """Only the head of a line waits for a next attempt: it is due, and those behind it wait for it as before."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool, ordered=True)
    head, *behind = await rows.publish(pool, 3)
    await rows.change(pool, "deliveries", head, **LATER)
    assert Hastened(due=1, held=0) == await retried(installation, endpoint)
    assert [head] == await due(installation)
    assert {(each, "order") for each in behind} == {
        (row["id"], row["waiting_for"])
        for row in await pool.fetch("SELECT id::text, waiting_for FROM hookseal.deliveries WHERE position > 1")
    }


async def test_it_waits_for_no_lock(installation: Installation) -> None:
    """A delivery that another transaction has locked is left to it, and the others are due."""
    pool = installation.pool
    endpoint = await rows.endpoint(pool)
    late = [await rows.delivery(pool, endpoint, **LATER) for _ in range(3)]
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.deliveries WHERE id = $1::text::uuid FOR UPDATE", late[1])
        async with asyncio.timeout(60):
            assert Hastened(due=2, held=0) == await retried(installation, endpoint)
    assert [late[0], late[2]] == await due(installation)


async def test_a_disabled_or_unknown_endpoint_is_refused(installation: Installation) -> None:
    """Nothing is changed, also if the endpoint is that of another tenant."""
    pool = installation.pool
    disabled, theirs = await rows.endpoint(pool, enabled=False), await rows.endpoint(pool, "globex")
    await rows.delivery(pool, disabled, **LATER)
    await rows.delivery(pool, theirs, tenant="globex", **LATER)
    with pytest.raises(Refused, match="the endpoint is disabled"):
        await retried(installation, disabled)
    with pytest.raises(NotFound):
        await retried(installation, theirs)
    assert ([], []) == (await due(installation), await audited(pool))


async def test_a_claim_takes_what_was_retried(installation: Installation) -> None:
    """A ring of a delivery that was put off claims nothing; after the retry the same ring claims it."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    [ring] = await installation.deliveries()
    await rows.change(installation.pool, "deliveries", ring.delivery_id, **LATER)
    assert await claimed(installation, ring) is None
    await retried(installation, endpoint)
    assert 3 == await claimed(installation, ring)


async def claimed(installation: Installation, ring: Ring) -> int | None:
    """Claim the delivery, and return the number of the attempt; None if it cannot be claimed."""
    claim = await installation.ledger().claim(ring)
    return None if claim is None else claim.number
