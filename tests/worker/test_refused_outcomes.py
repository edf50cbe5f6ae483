"""Outcomes that a constraint or a trigger of a customer refuses: kept, not sent again, and recorded."""

import pytest

from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.errors import OutcomeKept
from hookseal.postgres.pool import Pool
from tests import rows
from tests.worker.test_outcomes import DELIVERED, GONE, ROW, scene
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World

CHECK = "ALTER TABLE hookseal.{table} ADD CONSTRAINT theirs CHECK ({condition})"
NO_CHECK = "ALTER TABLE hookseal.{table} DROP CONSTRAINT theirs"
TRIGGER = """
    CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'not %', NEW; END $$;
    CREATE TRIGGER theirs BEFORE INSERT OR UPDATE ON hookseal.{table}
        FOR EACH ROW WHEN (NOT ({condition})) EXECUTE FUNCTION public.theirs();
"""
NO_TRIGGER = "DROP TRIGGER theirs ON hookseal.{table}"
CONDITIONS = {
    "deliveries": "{row}endpoint_id <> '{endpoint}' OR {row}state <> 'delivered'",
    "attempts": "{row}endpoint_id <> '{endpoint}'",
}
KEPT = "SELECT outcome, status, reason FROM hookseal.refused_outcomes"


@pytest.mark.req("DUR-04", "OPS-07")
@pytest.mark.parametrize("table", ["deliveries", "attempts"])
@pytest.mark.parametrize(
    ("refuse", "row", "allow", "named"),
    [
        (CHECK, "", NO_CHECK, "CheckViolationError, table {table}, constraint theirs"),
        (TRIGGER, "NEW.", NO_TRIGGER, "RaiseError, function public.theirs"),
    ],
    ids=["check", "trigger"],
)
async def test_a_refused_outcome_waits_for_the_operator(
    world: World, receiver: Receiver, table: str, refuse: str, row: str, allow: str, named: str
) -> None:
    """One request is sent, also after a kill. `/readyz` names what refuses; without it, the outcome is recorded."""
    refused = (await world.endpoint(f"{receiver.base_url}/refused")).pointer.endpoint_id
    await world.endpoint(f"{receiver.base_url}/other")
    async with world.worker() as first, world.worker() as second:  # none starts on such a schema
        condition = CONDITIONS[table].format(row=row, endpoint=refused)
        await world.pool.execute(refuse.format(table=table, condition=condition))
        rings = await world.publish()
        [ring] = [each for each in rings if each.endpoint_id == refused]
        await world.delivered(*(each for each in rings if each is not ring))
        for worker in (first, second):
            answer = await worker.answers("/readyz", 503)
            assert "refused" == answer["checks"]["records"]
            assert 1 == answer["unrecorded"]["outcomes"]
            assert f"({named.format(table=table)}): drop or correct" in answer["unrecorded"]["reason"]
        assert "sending" == (await world.installation.delivery(ring))["state"]
        owner = await world.pool.fetchval("SELECT worker FROM hookseal.refused_outcomes")
        [sender, other] = sorted((first, second), key=lambda each: each.worker_id != owner)
        [event] = sender.logged("delivery.outcome_refused")
        assert (ring.delivery_id, 204) == (event["delivery_id"], event["status"])
        await sender.kill()
        await rows.change(world.pool, "deliveries", where="state = 'sending'", lease_expires_at=rows.NOW)
        assert [] == await PostgresLedger(world.pool, worker="w", lease_seconds=45).end_lost_leases()

        await world.pool.execute(allow.format(table=table))
        await world.delivered(ring)
        await other.answers("/readyz", 200)
    made = await world.pool.fetch(
        "SELECT number, outcome, status, worker FROM hookseal.attempts WHERE delivery_id = $1::text::uuid",
        ring.delivery_id,
    )
    assert [(1, "delivered", 204, owner)] == [tuple(each.values()) for each in made]
    assert [] == await world.pool.fetch(KEPT)
    assert ["/other", "/refused"] == sorted(each.path for each in receiver.received)


@pytest.mark.req("DUR-04")
async def test_refused_outcomes_are_tried_one_by_one(pool: Pool) -> None:
    """Of eight outcomes two are refused and kept; once one of these is allowed, only it is recorded."""
    made, real = await scene(pool, 8)
    first, second = made.claims[2].ring.delivery_id, made.claims[6].ring.delivery_id
    for name, delivery in (("first", first), ("second", second)):
        await pool.execute(f"ALTER TABLE hookseal.attempts ADD CONSTRAINT {name} CHECK (delivery_id <> '{delivery}')")
    results = await made.record(lambda number: (ROW, GONE if number == 6 else DELIVERED))
    assert ["CheckViolationError, table attempts, constraint first"] == [str(results[2])]
    assert isinstance(results[6], OutcomeKept)
    assert ["delivered"] * 2 + ["sending"] + ["delivered"] * 3 + ["sending", "delivered"] == await made.states()

    assert [] == await real.record_refused()
    await pool.execute("ALTER TABLE hookseal.attempts DROP CONSTRAINT second")
    assert [GONE] == await real.record_refused()
    assert ["sending", "failed"] == [(await made.states())[number] for number in (2, 6)]
    assert not await pool.fetchval("SELECT enabled FROM hookseal.endpoints")
    assert 1 == len(await pool.fetch(KEPT))

    await pool.execute(
        "UPDATE hookseal.deliveries SET state = 'cancelled', lease_owner = NULL, lease_token = NULL, claimed_at = NULL,"
        " lease_expires_at = NULL, claimed_number = NULL, claimed_refs = NULL WHERE state = 'sending'"
    )
    assert [None] == await real.record_refused()
    assert [] == await pool.fetch(KEPT)


@pytest.mark.req("DUR-03", "DUR-04")
async def test_a_lost_lease_that_is_refused_costs_no_other(pool: Pool) -> None:
    """An outcome `unknown` that is refused is kept; the other leases end, and later this one does."""
    made, real = await scene(pool, 4)
    await pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now() - interval '1 s'")
    await pool.execute(
        "ALTER TABLE hookseal.attempts ADD CONSTRAINT theirs CHECK (delivery_id <> '"
        f"{made.claims[1].ring.delivery_id}' OR outcome <> 'unknown')"
    )
    assert [State.PENDING] * 3 == await real.end_lost_leases()
    assert [] == await real.end_lost_leases()
    [kept] = await pool.fetch(KEPT)
    assert ("unknown", None, "CheckViolationError, table attempts, constraint theirs") == tuple(kept.values())
    assert ["pending", "sending", "pending", "pending"] == await made.states()

    await pool.execute("ALTER TABLE hookseal.attempts DROP CONSTRAINT theirs")
    assert [State.PENDING] == [each.state for each in await real.record_refused() if each]
    assert ["pending"] * 4 == await made.states()


@pytest.mark.req("DUR-04")
async def test_a_claim_that_is_refused_costs_no_other(world: World, receiver: Receiver) -> None:
    """A delivery that a constraint does not let a worker claim is not sent until it does; the others are."""
    refused = (await world.endpoint(f"{receiver.base_url}/refused")).pointer.endpoint_id
    await world.endpoint(f"{receiver.base_url}/other")
    async with world.worker() as worker:
        condition = f"endpoint_id <> '{refused}' OR state <> 'sending'"
        await world.pool.execute(CHECK.format(table="deliveries", condition=condition))
        rings = await world.publish()
        [ring] = [each for each in rings if each.endpoint_id == refused]
        await world.delivered(*(each for each in rings if each is not ring))
        await eventually(lambda: worker.logged("claim.defect"))
        assert ["/other"] == [each.path for each in receiver.received]
        await world.pool.execute(NO_CHECK.format(table="deliveries"))
        await world.delivered(ring)
    assert ["/other", "/refused"] == [each.path for each in receiver.received]


@pytest.mark.req("DUR-04")
async def test_an_outcome_that_cannot_be_kept_either_waits_in_memory(pool: Pool) -> None:
    """If both are refused, the outcome waits, and the circuit is open, until one of them is allowed."""
    made, _ = await scene(pool, 1)
    for table in ("attempts", "refused_outcomes"):
        await pool.execute(CHECK.format(table=table, condition="status <> 204"))
    recording = made.ledger.record(made.claims[0], ROW, DELIVERED, None)

    await eventually(lambda: made.ledger.circuit.is_open)
    assert "and to keep it (CheckViolationError, table refused_outcomes" in made.ledger.circuit.reason
    await pool.execute(NO_CHECK.format(table="refused_outcomes"))
    with pytest.raises(OutcomeKept):
        await recording
    assert not made.ledger.circuit.is_open
