"""A replay sends a finished delivery again, under its own id or a new one, and only if its endpoint can get it."""

import asyncio

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Attempt, Claim, Outcome, Ring, State, Verdict, WaitingFor
from hookseal.dispatcher.core.why import explain
from hookseal.dispatcher.store import delivery_queries
from hookseal.dispatcher.store.held import PostgresHeldEndpoints
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.replays import Replayed
from hookseal.errors import Conflict, NotFound, Refused, with_advice
from hookseal.ground.ids import DeliveryId
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.replay import replay_delivery
from tests.doubles.logbook import audited
from tests.doubles.replaced import replace
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked

FAILED = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
OPENED = """
INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for, reason, probe_at)
SELECT tenant_id, id, 'breaker', '429', now() + interval '1 hour' FROM hookseal.endpoints
"""
PROBED = """
WITH held AS (UPDATE hookseal.held_endpoints SET probe_id = $1::text::uuid)
UPDATE hookseal.deliveries SET waiting_for = NULL, held_at = NULL, next_attempt_at = now() + interval '1 hour'
WHERE id = $1::text::uuid
"""
UNKNOWN = DeliveryId("0197c1f0-5e6a-7c3b-9d2e-4f5061728394")


def ledger(installation: Installation) -> PostgresLedger:
    return PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)


async def claimed(installation: Installation, ring: Ring) -> Claim:
    claim = await ledger(installation).claim(ring)
    assert claim is not None
    return claim


async def in_state(installation: Installation, state: State = State.DEAD_LETTER) -> Ring:
    """Return a delivery that is in that state after one attempt."""
    (ring,) = await installation.deliveries()
    claim = await claimed(installation, ring)
    assert await ledger(installation).record(claim, FAILED, Verdict(state=state), "server_error")
    return ring


async def replayed(installation: Installation, ring: Ring, *, new_id: bool = False) -> Replayed:
    """Replay the delivery on its own connection."""
    return await installation.act(replay_delivery, ring.delivery_id, new_id=new_id)


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("state", [State.DELIVERED, State.DEAD_LETTER, State.FAILED])
async def test_a_replay_has_a_new_budget(installation: Installation, state: State) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    ring = await in_state(installation, state)
    answer = await replayed(installation, ring)

    assert (ring.delivery_id, endpoint, None, "acme") == (
        answer.delivery_id, answer.endpoint_id, answer.replay_of, answer.tenant_id,
    )  # fmt: skip
    row = await installation.delivery(ring)
    assert ("pending", 1, 0, None, None) == tuple(
        row[name] for name in ("state", "attempts", "budget_spent", "rung_at", "replay_of")
    )
    claim = await claimed(installation, ring)
    assert (2, 0) == (claim.number, claim.budget_spent)
    assert [1] == [attempt["number"] for attempt in await installation.attempts(ring)]
    *_, entry = await audited(installation.pool)
    assert {
        "action": "delivery.replayed",
        "subject": f"delivery:{ring.delivery_id}",
        "who": "ada@desk",
        "before": {"state": state.value, "attempts": 1},
        "after": {"state": "pending", "delivery_id": ring.delivery_id, "replay_of": None},
    } == entry


@pytest.mark.req("DEL-07", part="one-delivery")
async def test_a_replay_with_a_new_id_is_a_new_delivery(installation: Installation) -> None:
    await installation.endpoint()
    ring = await in_state(installation)
    answers = [await replayed(installation, ring, new_id=True) for _ in range(2)]

    made = {answer.delivery_id for answer in answers}
    assert 2 == len(made - {ring.delivery_id})
    assert [ring.delivery_id] * 2 == [answer.replay_of for answer in answers]
    assert "dead_letter" == (await installation.delivery(ring))["state"]
    new = Ring(tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, delivery_id=answers[0].delivery_id)
    claim = await claimed(installation, new)
    assert (1, 0, answers[0].event_id) == (claim.number, claim.budget_spent, claim.event_id)
    assert (await claimed(installation, await renewed(installation, ring))).body == claim.body


async def renewed(installation: Installation, ring: Ring) -> Ring:
    """Replay the delivery under its own id and return its ring."""
    await replayed(installation, ring)
    return ring


@pytest.mark.req("DEL-07", part="one-delivery")
async def test_a_delivery_in_back_off_is_due_at_once(installation: Installation) -> None:
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    again = Verdict(state=State.PENDING, retry_in_seconds=3_600)
    assert await ledger(installation).record(await claimed(installation, ring), FAILED, again, "server_error")
    with pytest.raises(Conflict, match="waits to be sent already"):
        await replayed(installation, ring, new_id=True)

    assert (State.PENDING, 1) == (await replayed(installation, ring)).before
    claim = await claimed(installation, ring)
    assert (2, 1) == (claim.number, claim.budget_spent)


@pytest.mark.req("DEL-07", part="one-delivery")
async def test_a_replay_of_a_held_endpoint_waits(installation: Installation) -> None:
    """While the breaker is open, a delivery in its back-off, a finished one and a new one wait with the others.

    The delivery that is the probe is due at once.
    """
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    again = Verdict(state=State.PENDING, retry_in_seconds=3_600)
    assert await ledger(installation).record(await claimed(installation, ring), FAILED, again, "server_error")
    finished = await in_state(installation)
    await installation.pool.execute(OPENED)

    answers = [
        await replayed(installation, ring),
        await replayed(installation, finished, new_id=True),
        await replayed(installation, finished),
    ]
    rows = [await installation.delivery(replace(ring, delivery_id=answer.delivery_id)) for answer in answers]
    assert [("breaker", "breaker", True, "429")] * 3 == [
        (answer.waiting_for, row["waiting_for"], row["held_at"] is not None, row["last_error"])
        for answer, row in zip(answers, rows, strict=True)
    ]

    await installation.pool.execute(PROBED, ring.delivery_id)
    assert (await replayed(installation, ring)).waiting_for is None
    assert (await claimed(installation, ring)).is_probe


async def test_a_replay_can_be_replayed(installation: Installation) -> None:
    """A replay can be replayed: under its own id it still refers to the delivery that it repeats."""
    await installation.endpoint()
    ring = await in_state(installation)
    first = (await replayed(installation, ring, new_id=True)).delivery_id
    new = Ring(tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, delivery_id=first)
    claim = await claimed(installation, new)
    assert await ledger(installation).record(claim, FAILED, Verdict(state=State.FAILED), "x")

    assert (first, ring.delivery_id) == (
        (again := await replayed(installation, new)).delivery_id, again.replay_of,
    )  # fmt: skip


@pytest.mark.req("DEL-07", part="one-delivery")
@pytest.mark.parametrize("new_id", [False, True])
async def test_an_unfinished_delivery_is_not_replayed(installation: Installation, new_id: bool) -> None:
    """A pending or sending delivery is not replayed, since it will still be sent."""
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    with pytest.raises(Conflict, match="waits to be sent already"):
        await replayed(installation, ring, new_id=new_id)
    await claimed(installation, ring)
    with pytest.raises(Conflict, match="is being sent already"):
        await replayed(installation, ring, new_id=new_id)

    assert 1 == await installation.pool.fetchval("SELECT count(*) FROM hookseal.deliveries")


@pytest.mark.parametrize("waiting_for", WaitingFor)
async def test_the_refusal_says_what_a_held_delivery_waits_for(
    installation: Installation, waiting_for: WaitingFor
) -> None:
    await installation.endpoint()
    (ring,) = await installation.deliveries()
    await installation.pool.execute("UPDATE hookseal.deliveries SET waiting_for = $1, held_at = now()", waiting_for)
    with pytest.raises(Conflict) as caught:
        await replayed(installation, ring)

    why = explain(await delivery_queries.facts(installation.pool, ring.delivery_id)).text
    message = f"the delivery waits to be sent already, so that a replay would change nothing\n{why}"
    assert message == with_advice(caught.value)
    assert "delivery_id" == caught.value.field


@pytest.mark.req("DEL-07", part="one-delivery")
async def test_a_replay_needs_an_enabled_endpoint(installation: Installation) -> None:
    added = await installation.endpoint()
    ring = await in_state(installation)
    (cancelled,) = await installation.deliveries()
    unknown = Ring(tenant_id=ring.tenant_id, endpoint_id=ring.endpoint_id, delivery_id=UNKNOWN)
    with pytest.raises(NotFound) as caught:
        await replayed(installation, unknown)
    assert "delivery_id" == caught.value.field
    await installation.pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    with pytest.raises(Refused, match="the endpoint is disabled") as refused:
        await replayed(installation, ring)
    assert f"hookseal endpoint enable --tenant acme --endpoint {ring.endpoint_id}" in (refused.value.advice or "")

    await installation.act(delete_endpoint, ring.tenant_id, added.pointer.endpoint_id)
    for each in (ring, cancelled):
        for new_id in (False, True):
            with pytest.raises(NotFound, match="is gone") as gone:
                await replayed(installation, each, new_id=new_id)
            assert "endpoint_id" == gone.value.field
    assert "delivery.replayed" not in [row["action"] for row in await audited(installation.pool)]


@pytest.mark.req("DEL-22")
async def test_a_cancelled_delivery_is_replayed(installation: Installation) -> None:
    """A delivery cancelled because its endpoint was disabled is replayed once the endpoint is enabled."""
    await installation.endpoint()
    await installation.pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    [ring] = await installation.deliveries()
    await installation.pool.execute("UPDATE hookseal.deliveries SET held_at = now() - interval '8 days'")
    assert (1, None) == await PostgresHeldEndpoints(installation.pool).cancel(days=7)
    with pytest.raises(Refused):
        await replayed(installation, ring)
    await installation.pool.execute("UPDATE hookseal.endpoints SET enabled = true")

    await replayed(installation, ring)
    assert await ledger(installation).claim(ring) is not None


async def test_of_concurrent_replays_one_succeeds(installation: Installation) -> None:
    await installation.endpoint()
    ring = await in_state(installation)
    ended = await asyncio.gather(*(replayed(installation, ring) for _ in range(5)), return_exceptions=True)

    assert (1, 4) == (
        len([each for each in ended if isinstance(each, Replayed)]),
        len([each for each in ended if isinstance(each, Conflict)]),
    )


async def test_a_replay_and_a_deletion_are_ordered(installation: Installation) -> None:
    """A replay and the deletion of its endpoint are ordered: a delivery made due is cancelled."""
    added = await installation.endpoint()
    ring = await in_state(installation)
    async with installation.pool.acquire() as connection, installation.pool.acquire() as other:
        transaction = connection.transaction()
        await transaction.start()
        await replay_delivery(installation.operator(connection), ring.delivery_id, new_id=False)
        deleting = asyncio.create_task(
            delete_endpoint(installation.operator(other), ring.tenant_id, added.pointer.endpoint_id)
        )
        await blocked(installation)
        await transaction.commit()
        assert 1 == await deleting

    assert "cancelled" == (await installation.delivery(ring))["state"]


async def test_a_repeated_event_returns_no_replays(installation: Installation) -> None:
    await installation.endpoint()
    ring = await in_state(installation)
    await replayed(installation, ring, new_id=True)
    event_id = (await installation.delivery(ring))["event_id"]
    rows = await installation.pool.fetch(
        "SELECT * FROM hookseal.publish('acme', 'invoice.paid', '{\"n\": 1}'::json, $1)", event_id
    )

    assert [(ring.delivery_id, True)] == [(str(row["delivery_id"]), row["duplicate"]) for row in rows]


async def test_without_its_audit_row_nothing_is_replayed(installation: Installation) -> None:
    await installation.endpoint()
    ring = await in_state(installation)
    await installation.pool.execute("ALTER TABLE hookseal.audit_log ADD CHECK (action <> 'delivery.replayed')")
    with pytest.raises(asyncpg.CheckViolationError):
        await replayed(installation, ring)

    assert "dead_letter" == (await installation.delivery(ring))["state"]
