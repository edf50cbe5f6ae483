"""The line of an ordered endpoint."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Attempt, Claim, OnDeadLetter, Outcome, Ring, State, Verdict, WaitingFor
from hookseal.dispatcher.core.policy import NOT_SENT
from hookseal.dispatcher.lanes.crowded import Asked
from hookseal.dispatcher.lanes.lane import Parked
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.dispatcher.store.held import FIRST_LINE, PostgresHeldEndpoints
from hookseal.dispatcher.store.lanes import PostgresLanes
from hookseal.dispatcher.store.publish import publish_json
from hookseal.dispatcher.store.replays import replay_all
from hookseal.errors import Conflict, NotFound
from hookseal.ground.ids import DeliveryId, EndpointId, TenantId
from hookseal.operations.endpoint.endpoints import delete_endpoint, disable_endpoint, enable_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.replay import replay_delivery, skip_delivery
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool
from hookseal.postgres.statements import statements
from tests import rows
from tests.dispatcher.test_ledger import ledger
from tests.dispatcher.test_publish import event
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.replaced import replace
from tests.doubles.stored import AGE, Installation, begin
from tests.operations.blocked import blocked

pytestmark = pytest.mark.req("DEL-17")

ACME = TenantId("acme")
FAILED = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
LATER = Verdict(state=State.PENDING, retry_in_seconds=60)
MANY = (
    "SELECT hookseal.publish_many('acme', ARRAY(SELECT json_build_object('event_type', 'a.b', 'data', n)"
    " FROM generate_series(1, $1::integer) AS n))"
)
REMOVED = "SELECT deliveries FROM hookseal.remove_deliveries(1, '-infinity')"
ANSWERED = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
AGAIN = Verdict(state=State.PENDING)
ENDS = (AGAIN, AGAIN, Verdict(state=State.DELIVERED), Verdict(state=State.DELIVERED), Verdict(state=State.DEAD_LETTER))
_CLAIMED = """
SELECT d.position, (SELECT count(*) FROM hookseal.deliveries WHERE state = 'sending') AS in_flight
FROM hookseal.deliveries AS d WHERE d.id = $1::text::uuid
"""
PUBLISHED, REPLAYED, WORKERS = 15, 8, 4


@pytest.fixture
async def stored(begun_pool: Pool) -> Installation:
    """Return an installation with one ordered endpoint of acme."""
    installation = await begin(begun_pool)
    await add(installation)
    return installation


async def test_what_waits_in_line_is_not_marked_as_rung(stored: Installation, begun_pool: Pool) -> None:
    one = "SELECT is_due FROM hookseal.publish('acme', 'a.b', '{}'::json, rings => true)"
    assert [True, False] == [await begun_pool.fetchval(one) for _ in range(2)]
    many = """
        SELECT count(*) FILTER (WHERE is_due) FROM hookseal.publish_many('acme',
            ARRAY['{"event_type": "a.b", "data": 1}', '{"event_type": "a.b", "data": 2}']::json[], rings => true)
    """
    assert 0 == await begun_pool.fetchval(many)
    marks = await begun_pool.fetch("SELECT rung_at IS NOT NULL FROM hookseal.deliveries ORDER BY position")
    assert [True, False, False, False] == [row[0] for row in marks]


async def add(
    stored: Installation, url: str = "https://receiver.example/1", *, what: OnDeadLetter = OnDeadLetter.STOP
) -> EndpointId:
    new = NewEndpoint(tenant_id=ACME, url=url, event_types=("*",), settings={"ordered": True, "on_dead_letter": what})
    return (await stored.add(new)).pointer.endpoint_id


async def published(stored: Installation, number: int) -> list[Ring]:
    """Publish that many events, and return their deliveries in this order."""
    return [(await stored.deliveries())[0] for _ in range(number)]


async def line(stored: Installation, rings: list[Ring]) -> list[tuple[int | None, str | None]]:
    """Return the position of each delivery, and what it waits for."""
    return [(row["position"], row["waiting_for"]) for row in [await stored.delivery(ring) for ring in rings]]


async def claimed(stored: Installation, *rings: Ring) -> list[Claim]:
    """Claim the deliveries of these rings, as far as that is possible now."""
    return (await ledger(stored.pool).claim_all(rings, None, most_bytes=1_000_000)).claims


async def end(stored: Installation, ring: Ring, state: State = State.DELIVERED) -> None:
    [claim] = await claimed(stored, ring)
    assert await ledger(stored.pool).record(claim, FAILED, Verdict(state=state), None)


async def next_of_line(stored: Installation, ring: Ring) -> list[Ring]:
    """Return what a worker takes next from the line of this delivery."""
    return await PostgresLanes(stored.pool).next([Asked((ring.tenant_id, ring.endpoint_id), 9)])


async def standing(stored: Installation) -> str:
    """Return the state of the only endpoint in its statistics."""
    state: str = await stored.pool.fetchval("SELECT state FROM hookseal.endpoint_backlog")
    return state


async def moved(stored: Installation) -> int:
    """Move the lines on, as the leader does; return how many heads are due now."""
    return (await PostgresHeldEndpoints(stored.pool).move_lines())[0]


async def replayed(stored: Installation, ring: Ring, *, new_id: bool = False) -> DeliveryId:
    async with stored.pool.acquire() as connection:
        return (await replay_delivery(stored.operator(connection), ring.delivery_id, new_id=new_id)).delivery_id


async def skipped(stored: Installation, ring: Ring) -> None:
    """Take the delivery out of its line."""
    async with stored.pool.acquire() as connection:
        await skip_delivery(stored.operator(connection), ring.delivery_id)


async def update(stored: Installation, ring: Ring, **changes: Any) -> None:
    """Update the endpoint of this delivery."""
    async with stored.pool.acquire() as connection:
        await update_endpoint(
            stored.operator(connection), ring.tenant_id, ring.endpoint_id, changes, own_drain_seconds=25
        )


async def test_only_the_first_delivery_of_a_line_is_due(stored: Installation) -> None:
    """Each new delivery of an ordered endpoint gets the next position; all but the first wait for their turn."""
    results = [await stored.published() for _ in range(3)]
    rings = [ring for result in results for ring in result.deliveries]

    assert [(1, None), (2, "order"), (3, "order")] == await line(stored, rings)
    assert [1, 0, 0] == [len(result.due) for result in results]


async def test_an_endpoint_without_order_has_no_line(stored: Installation) -> None:
    await stored.endpoint("globex")
    rings = [(await stored.deliveries("globex"))[0] for _ in range(2)]

    assert [(None, None)] * 2 == await line(stored, rings)
    assert 2 == len(await claimed(stored, *rings))


async def test_only_the_head_of_a_line_is_claimed(stored: Installation) -> None:
    """Even if all are due and rung, one claim takes only the head, and none takes the next while that is sent."""
    rings = await published(stored, 3)
    await rows.change(stored.pool, "deliveries", waiting_for=None)
    found = await ledger(stored.pool).claim_all(rings[::-1], None, most_bytes=1_000_000)

    assert [rings[0]] == [claim.ring for claim in found.claims]
    assert {ring.delivery_id for ring in rings[1:]} == {ring.delivery_id for ring in found.behind}
    assert [] == found.busy
    assert [] == await claimed(stored, *rings)


async def test_a_ring_behind_the_head_is_parked(stored: Installation) -> None:
    """A ring that claims nothing because others are ahead waits for its order, and makes no lane crowded."""
    rings = await published(stored, 2)
    await rows.change(stored.pool, "deliveries", waiting_for=None)
    await PostgresLanes(stored.pool).park([Parked(rings[1], WaitingFor.ORDER)])

    assert [(1, None), (2, "order")] == await line(stored, rings)
    assert [] == await PostgresLanes(stored.pool).page()


async def test_a_worker_takes_the_next_delivery_of_its_line(stored: Installation) -> None:
    rings = await published(stored, 3)
    assert [] == await next_of_line(stored, rings[0]), "the head was rung"
    await end(stored, rings[0])

    [taken] = await next_of_line(stored, rings[0])
    assert (rings[1].delivery_id, True) == (taken.delivery_id, taken.is_parked)
    assert 1 == len(await claimed(stored, taken))
    assert [(None, None), (2, None), (3, "order")] == await line(stored, rings)


async def test_nothing_overtakes_a_retry(stored: Installation) -> None:
    """While the head waits for its next attempt nothing of the line is sent, taken or made due."""
    rings = await published(stored, 2)
    [claim] = await claimed(stored, rings[0])
    await ledger(stored.pool).record(claim, FAILED, LATER, "server_error")

    assert [] == await claimed(stored, rings[1])
    assert [] == await next_of_line(stored, rings[0])
    assert 0 == await moved(stored)
    assert [(1, None), (2, "order")] == await line(stored, rings)


async def test_a_dead_workers_head_keeps_its_place(stored: Installation) -> None:
    """If the worker of the head dies, the head is due again in its place, and nothing overtakes it."""
    rings = await published(stored, 2)
    await claimed(stored, rings[0])
    await rows.change(stored.pool, "deliveries", where="lease_token IS NOT NULL", lease_expires_at=rows.ago(seconds=1))
    assert [State.PENDING] == await ledger(stored.pool).end_lost_leases()

    assert [] == await claimed(stored, rings[1])
    assert [rings[0]] == [claim.ring for claim in await claimed(stored, rings[0])]


@pytest.mark.parametrize("state", [State.DEAD_LETTER, State.FAILED])
async def test_a_dead_letter_stops_its_line_until_it_is_skipped(stored: Installation, state: State) -> None:
    """By default a dead letter stops its line: it keeps its place until an operator skips it, which is audited."""
    rings = await published(stored, 2)
    await end(stored, rings[0], state)
    assert (0, []) == (await moved(stored), await next_of_line(stored, rings[0]))
    assert [(1, None), (2, "order")] == await line(stored, rings)
    assert [(3, "order")] == await line(stored, await published(stored, 1))
    assert "stopped" == await standing(stored)
    await skipped(stored, rings[0])

    assert "stopped" != await standing(stored)
    assert 1 == await moved(stored)
    assert [(None, None), (2, None)] == await line(stored, rings)
    assert state == (await stored.delivery(rings[0]))["state"]
    *_, entry = await audited(stored.pool)
    assert ("delivery.skipped", "ada@desk") == (entry["action"], entry["who"])
    with pytest.raises(Conflict, match="stops no line"):
        await skipped(stored, rings[0])


async def test_only_a_given_up_delivery_is_skipped(stored: Installation) -> None:
    [ring] = await published(stored, 1)
    with pytest.raises(Conflict, match="the delivery is pending"):
        await skipped(stored, ring)
    async with stored.pool.acquire() as connection:
        with pytest.raises(NotFound):
            await skip_delivery(stored.operator(connection), ring.delivery_id, tenant=TenantId("globex"))


async def test_a_replay_of_the_head_keeps_its_place(stored: Installation) -> None:
    """A replay of the delivery that stops a line is sent in its old place, before all others."""
    rings = await published(stored, 2)
    await end(stored, rings[0], State.DEAD_LETTER)
    await replayed(stored, rings[0])
    assert [(1, None), (2, "order")] == await line(stored, rings)
    await end(stored, rings[0])

    assert [rings[1].delivery_id] == [ring.delivery_id for ring in await next_of_line(stored, rings[0])]


@pytest.mark.parametrize("state", [State.DEAD_LETTER, State.FAILED, State.CANCELLED, State.DELIVERED])
async def test_with_skip_every_ended_delivery_leaves_the_line(begun_pool: Pool, state: State) -> None:
    stored = await begin(begun_pool)
    await add(stored, what=OnDeadLetter.SKIP)
    rings = await published(stored, 2)
    await end(stored, rings[0], state)

    assert [(None, None), (2, "order")] == await line(stored, rings)
    assert 1 == await moved(stored)


async def test_a_stopped_line_continues_once_skip_is_set(stored: Installation) -> None:
    """`on_dead_letter` can be changed to `skip`: what stops the line leaves it, now or at the leader's next look."""
    rings = await published(stored, 3)
    await end(stored, rings[0], State.DEAD_LETTER)
    await update(stored, rings[0], on_dead_letter=OnDeadLetter.SKIP)
    assert [(None, None), (2, "order"), (3, "order")] == await line(stored, rings)
    await moved(stored)
    await end(stored, rings[1], State.DEAD_LETTER)
    await rows.change(stored.pool, "deliveries", rings[1].delivery_id, position=2)

    assert [0, 1] == [await moved(stored), await moved(stored)]
    assert [(None, None), (None, None), (3, None)] == await line(stored, rings)


async def test_a_replay_after_leaving_goes_to_the_end_of_the_line(stored: Installation) -> None:
    """A delivery that left the line is replayed at its end, under its own id or a new one; several keep their order."""
    rings = await published(stored, 4)
    for ring in rings[:3]:
        await moved(stored)
        await end(stored, ring)
    await replayed(stored, rings[0])
    copy = Ring(
        tenant_id=ACME, endpoint_id=rings[0].endpoint_id, delivery_id=await replayed(stored, rings[1], new_id=True)
    )
    await end(stored, (await next_of_line(stored, rings[0]))[0])
    await moved(stored)
    await end(stored, rings[0])
    async with stored.pool.acquire() as connection:
        assert 3 == await replay_all(connection, ACME, [ring.delivery_id for ring in (rings[2], rings[0], rings[1])])

    assert [(6, "order"), (7, "order"), (8, "order"), (9, "order")] == await line(stored, [copy, *rings[:3]])


async def test_positions_have_the_order_of_commits(stored: Installation) -> None:
    """A publisher waits until an earlier one of the same line has committed: positions have the order of commits."""
    async with stored.pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        before = await publish_json(first, event(), "{}")
        after = asyncio.create_task(stored.published())
        await blocked(stored)
        assert not after.done()
        await transaction.commit()

    assert [(1, None), (2, "order")] == await line(stored, [*before.deliveries, *(await after).deliveries])


async def test_a_batch_waits_for_other_publishers(stored: Installation) -> None:
    async with stored.pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        await publish_json(first, event(), "{}")
        after = asyncio.create_task(stored.pool.execute(MANY, 2))
        await blocked(stored)
        await transaction.commit()
    await after

    found = await stored.pool.fetch("SELECT position, waiting_for FROM hookseal.deliveries ORDER BY position")
    assert [(1, None), (2, "order"), (3, "order")] == [tuple(row) for row in found]


async def test_a_rolled_back_publish_leaves_the_next_at_the_head(stored: Installation) -> None:
    async with stored.pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        await publish_json(first, event(), "{}")
        after = asyncio.create_task(stored.published())
        await blocked(stored)
        await transaction.rollback()

    assert [(1, None)] == await line(stored, list((await after).deliveries))


async def test_an_open_publisher_does_not_lock_the_endpoint(stored: Installation) -> None:
    """While a transaction with several publishes is open, the endpoint of the line is rotated: a secret is revoked."""
    async with stored.pool.acquire() as publisher, publisher.transaction():
        rings = [(await publish_json(publisher, event(), "{}")).deliveries[0] for _ in range(2)]
        async with asyncio.timeout(ANSWER_SECONDS - 0.5):  # then a statement that waits gives up by itself
            assert 2 == (await stored.rotate(rings[0].endpoint_id)).generation

    assert [(1, None), (2, "order")] == await line(stored, rings)


async def test_a_batch_gets_positions_in_its_order(stored: Installation) -> None:
    await add(stored, "https://receiver.example/2")
    await stored.pool.execute(MANY, 20)
    found = await stored.pool.fetch(
        "SELECT convert_from(e.body, 'UTF8')::json ->> 'data', d.position, d.waiting_for FROM hookseal.deliveries AS d"
        " JOIN hookseal.events AS e ON e.id = d.event_id ORDER BY d.endpoint_id, d.position"
    )

    assert [(str(n), n, None if n == 1 else "order") for n in range(1, 21)] * 2 == list(map(tuple, found))


async def test_a_batch_takes_positions_once(stored: Installation) -> None:
    """Each batch writes the row of a line once: a later write reads all versions that its transaction has written."""
    async with stored.pool.acquire() as connection, connection.transaction():
        for _ in range(3):
            await connection.execute(MANY, 100)
        written = await connection.fetchval(
            "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE schemaname = 'hookseal' AND relname = 'lines'"
        )

    assert 3 == written
    assert 300 == await stored.pool.fetchval("SELECT max(position) FROM hookseal.deliveries")


async def test_the_leader_releases_an_event_committed_after_the_heads_end(stored: Installation) -> None:
    """If the head ends while a publisher has not committed yet, the leader makes the next one due."""
    [head] = await published(stored, 1)
    async with stored.pool.acquire() as publisher, publisher.transaction():
        after = await publish_json(publisher, event(), "{}")
        await end(stored, head)
        assert [] == await next_of_line(stored, head)
    rings = list(after.deliveries)

    assert [(2, "order")] == await line(stored, rings)
    assert (1, 0) == (await moved(stored), await moved(stored))
    assert [(2, None)] == await line(stored, rings)


@pytest.mark.parametrize("reason", sorted(WaitingFor))
async def test_the_leader_releases_a_head_without_a_reason_to_wait(stored: Installation, reason: WaitingFor) -> None:
    """Whatever the head waits for, the leader makes it due if nothing holds its endpoint."""
    rings = await published(stored, 2)
    await rows.change(stored.pool, "deliveries", where="position = 1", waiting_for=reason)
    if reason in {WaitingFor.SECRET, WaitingFor.BREAKER}:
        held = "INSERT INTO hookseal.held_endpoints SELECT tenant_id, id FROM hookseal.endpoints"
        over = "DELETE FROM hookseal.held_endpoints"
    elif reason in {WaitingFor.CONCURRENCY, WaitingFor.RATE}:
        held = "INSERT INTO hookseal.lanes SELECT tenant_id, id FROM hookseal.endpoints"
        over = "DELETE FROM hookseal.lanes"
    else:
        held = "UPDATE hookseal.endpoints SET enabled = false"
        over = "UPDATE hookseal.endpoints SET enabled = true"
    await stored.pool.execute(held)
    assert 0 == await moved(stored)
    await stored.pool.execute(over)

    assert 1 == await moved(stored)
    assert [(1, None), (2, "order")] == await line(stored, rings)


async def test_lines_are_read_in_pages(stored: Installation) -> None:
    """One look reads a few lines; the looks together reach each of them, and begin anew after the last one."""
    for number in range(2, 6):
        await add(stored, f"https://receiver.example/{number}")
    await stored.deliveries()
    await rows.change(stored.pool, "deliveries", waiting_for="order")
    # As if an endpoint had been deleted while triggers were off.
    await rows.insert(stored.pool, "lines", tenant_id="a", endpoint_id="00000000-0000-4000-8000-000000000001")
    holds, place, found = PostgresHeldEndpoints(stored.pool), FIRST_LINE, []
    for _ in range(3):
        due, place = await holds.move_lines(place, at_most=2)
        found.append(due)
    found.append((await holds.move_lines(place, at_most=2))[0])

    assert [1, 2, 2, 0] == found


async def test_a_line_waits_while_its_endpoint_is_disabled(stored: Installation) -> None:
    rings = await published(stored, 2)
    async with stored.pool.acquire() as connection:
        await disable_endpoint(stored.operator(connection), ACME, rings[0].endpoint_id, reason="x")
        rings += await published(stored, 1)
        await stored.settle()
        await ledger(stored.pool).claim_all([rings[0]], None, most_bytes=1)
        assert [(2, "endpoint_disabled"), (3, "endpoint_disabled")] == await line(stored, rings[1:])
        await enable_endpoint(stored.operator(connection), ACME, rings[0].endpoint_id, own_drain_seconds=25)
    await stored.settle()

    assert [(2, "order"), (3, "order")] == await line(stored, rings[1:])
    await rows.change(stored.pool, "endpoints", enabled=False)
    await moved(stored)
    await stored.settle()
    assert [(2, "endpoint_disabled"), (3, "endpoint_disabled")] == await line(stored, rings[1:])


async def test_the_head_of_a_held_endpoint_is_its_probe(stored: Installation) -> None:
    rings = await published(stored, 3)
    await rows.hold_all(stored.pool, waiting_for="breaker")
    await rows.change(stored.pool, "deliveries", where="position = 1", waiting_for="breaker")
    await PostgresHeldEndpoints(stored.pool).probe()
    probe = await stored.pool.fetchval("SELECT probe_id::text FROM hookseal.held_endpoints")
    assert rings[0].delivery_id == probe
    await end(stored, rings[0])
    assert [] == await next_of_line(stored, rings[0])
    await rows.change(stored.pool, "held_endpoints", released_at=rows.NOW)
    await stored.settle()

    assert [(2, "order"), (3, "order")] == await line(stored, rings[1:])
    assert 1 == await moved(stored)


async def test_a_delivery_that_stops_its_line_is_retained(stored: Installation) -> None:
    """A delivery that stops a line is kept however old it is; one that has left the line is removed like any other."""
    rings = await published(stored, 2)
    await end(stored, rings[0], State.DEAD_LETTER)
    await stored.pool.execute(AGE)
    assert 0 == await stored.pool.fetchval(REMOVED)
    await skipped(stored, rings[0])

    assert 1 == await stored.pool.fetchval(REMOVED)


async def test_a_deleted_endpoint_has_no_line(stored: Installation) -> None:
    """A deletion removes the line: its deliveries are cancelled, and the one that stopped it is removed in time."""
    rings = await published(stored, 3)
    await end(stored, rings[0], State.DEAD_LETTER)
    async with stored.pool.acquire() as connection:
        assert 2 == await delete_endpoint(stored.operator(connection), ACME, rings[0].endpoint_id)
    assert [(None, None)] * 3 == await line(stored, rings)
    assert 0 == await stored.pool.fetchval("SELECT count(*) FROM hookseal.lines")
    await stored.pool.execute(AGE)

    assert 3 == await stored.pool.fetchval(REMOVED)


async def test_a_deletion_waits_for_open_publishers(stored: Installation) -> None:
    """Deleting an endpoint waits for its publishers: nothing of the line is left, though its head ends meanwhile."""
    [head] = await published(stored, 1)
    [claim] = await claimed(stored, head)
    async with stored.pool.acquire() as connection:
        async with stored.pool.acquire() as publisher, publisher.transaction():
            rings = [head, *(await publish_json(publisher, event(), "{}")).deliveries]
            deleting = asyncio.create_task(delete_endpoint(stored.operator(connection), ACME, head.endpoint_id))
            await blocked(stored)
            assert await ledger(stored.pool).record(claim, FAILED, Verdict(state=State.DEAD_LETTER), None)
        assert 1 == await deleting

    assert [(None, None)] * 2 == await line(stored, rings)


async def test_a_changed_endpoint_id_keeps_the_line(stored: Installation) -> None:
    other = "00000000-0000-4000-8000-000000000001"
    await published(stored, 1)
    await rows.change(stored.pool, "endpoints", id=other)

    assert [(2, None)] == await line(stored, await published(stored, 1))
    assert [other] == [str(row["endpoint_id"]) for row in await stored.pool.fetch("SELECT * FROM hookseal.lines")]


async def test_a_reinserted_endpoint_continues_its_line(stored: Installation) -> None:
    """If the row of an endpoint is deleted and inserted again by hand, its line continues behind what is left of it."""
    rings = await published(stored, 2)
    await stored.pool.execute("CREATE TABLE kept AS SELECT * FROM hookseal.endpoints; DELETE FROM hookseal.endpoints")
    await stored.pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, ordered)"
        " SELECT tenant_id, id, url, event_types, ordered FROM kept"
    )

    assert [(1, None), (2, "order"), (3, "order")] == await line(stored, rings + await published(stored, 1))


async def test_forged_positions_affect_no_other_endpoint(stored: Installation) -> None:
    """Whatever positions a worker's role writes, the deliveries of other endpoints and tenants are sent."""
    await stored.endpoint("globex")
    [other] = await stored.deliveries("globex")
    rings = await published(stored, 1)

    async def as_worker(connection: Connection) -> None:
        await connection.execute("SET LOCAL ROLE hookseal_worker")
        await rows.change(connection, "deliveries", where="tenant_id = 'globex'", position=1)
        with pytest.raises(asyncpg.CheckViolationError):
            async with connection.transaction():
                await rows.change(connection, "deliveries", position=0)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await rows.change(connection, "lines", last_position=0)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await rows.change(connection, "endpoints", ordered=True)

    async with stored.pool.acquire() as connection, connection.transaction():
        await as_worker(connection)
    again = [(await stored.deliveries("globex"))[0]]

    assert {each.delivery_id for each in [other, *again, *rings]} == {
        claim.ring.delivery_id for claim in await claimed(stored, other, *again, *rings)
    }


async def test_a_delivery_moved_to_the_end_is_not_claimed_early(stored: Installation) -> None:
    """A claim that read the head does not take it if a replay has moved it to the end of the line meanwhile."""
    [head] = await published(stored, 1)
    claim, at_first = (
        statements("hookseal.dispatcher.store", "batches.sql")["claim_all"],
        "SELECT a.tenant_id, a.endpoint_id",
    )
    waits = "SELECT a.tenant_id || pg_advisory_xact_lock(7)::text AS tenant_id, a.endpoint_id"
    assert at_first in claim
    paused = claim.replace(at_first, waits, 1)
    given = (head.tenant_id, head.endpoint_id, head.delivery_id, "t", "w2", 45.0, None, 1_000_000, NOT_SENT)
    async with stored.pool.acquire() as other:
        await other.execute("SELECT pg_advisory_lock(7)")
        async with other.transaction():  # begun before the claim: by the time of its replay the delivery is due
            await other.execute("SELECT")
            claiming = asyncio.create_task(stored.pool.fetch(paused, *given))
            await blocked(stored)
            await end(stored, head)
            [later] = await published(stored, 1)
            await replay_delivery(stored.operator(other), head.delivery_id, new_id=False)
        await other.execute("SELECT pg_advisory_unlock(7)")

    assert ["delivery"] == [row["left_for"] for row in await claiming]
    assert [(2, None), (3, "order")] == await line(stored, [later, head])


async def test_each_role_has_the_rights_for_its_part(stored: Installation, database_url: str) -> None:
    """A producer, a worker and an operator do their parts with the rights of their groups alone."""
    async with (
        login(stored.pool, database_url, "hookseal_producer") as (producer, producing),
        login(stored.pool, database_url, "hookseal_worker") as (_, working),
        login(stored.pool, database_url, "hookseal_operator") as (_, operating),
        asyncpg.create_pool(working, min_size=1, max_size=2) as worker,
        asyncpg.create_pool(operating, min_size=1, max_size=2) as operator,
    ):
        await rows.grant(stored.pool, producer)
        publisher = await asyncpg.connect(producing)
        rings = [(await publish_json(publisher, event(), "{}")).deliveries[0] for _ in range(2)]
        await publisher.close()
        for state, ring in ((State.DEAD_LETTER, rings[0]), (State.DELIVERED, rings[1])):
            [claim] = (await ledger(worker).claim_all([ring], None, most_bytes=1_000_000)).claims
            assert await ledger(worker).record(claim, FAILED, Verdict(state=state), None)
            if state is State.DEAD_LETTER:
                await skipped(replace(stored, pool=operator), ring)
            await PostgresHeldEndpoints(worker).move_lines()
        async with worker.acquire() as connection:
            assert 1 == await replay_all(connection, ACME, [rings[1].delivery_id])
        other = await replayed(replace(stored, pool=operator), rings[0], new_id=True)
        await update(replace(stored, pool=operator), rings[0], on_dead_letter=OnDeadLetter.SKIP)

    copy = replace(rings[0], delivery_id=other)
    assert [(3, "order"), (4, "order")] == await line(stored, [rings[1], copy])


@dataclass
class Race:
    """The deliveries of one ordered endpoint, which several workers claim by any ring, and what was claimed."""

    stored: Installation
    chance: random.Random
    rings: list[Ring] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    most: int = 0
    is_writing: bool = True

    async def publish(self) -> None:
        for _ in range(PUBLISHED):
            (ring,) = await self.stored.deliveries()
            self.rings.append(ring)
            await asyncio.sleep(0)

    async def replay(self) -> None:
        """Replay what is finished, in its place or at the end, or skip what stops the line."""
        for _ in range(REPLAYED):
            await asyncio.sleep(0.01)  # others go on meanwhile
            async with self.stored.pool.acquire() as connection:
                operator = self.stored.operator(connection)
                for row in await connection.fetch(
                    "SELECT id::text, position FROM hookseal.deliveries WHERE state IN ('delivered', 'dead_letter')"
                    " ORDER BY position LIMIT 2"
                ):
                    try:
                        if row["position"] is not None and self.chance.random() < 0.5:
                            await skip_delivery(operator, DeliveryId(row["id"]))
                        else:
                            await replay_delivery(operator, DeliveryId(row["id"]), new_id=False)
                    except Conflict:  # it is on its way again
                        pass

    async def write(self) -> None:
        """Publish and replay; then let what stops the line be skipped, so that it ends."""
        await asyncio.gather(self.publish(), self.publish(), self.replay())
        await rows.change(self.stored.pool, "endpoints", on_dead_letter="skip")
        self.is_writing = False

    async def work(self) -> None:
        """Claim whatever is pending, in any order, and end it in some way, until all of it has ended."""
        mine = ledger(self.stored.pool)
        while self.is_writing or await self.unfinished():
            rings = [replace(ring, is_parked=True) for ring in self.rings]
            self.chance.shuffle(rings)
            if not rings:
                await asyncio.sleep(0.01)  # nothing is published yet
                continue
            claimed = await mine.claim_all(rings, None, most_bytes=1_000_000)
            for claim in claimed.claims:
                row = await self.stored.pool.fetchrow(_CLAIMED, claim.ring.delivery_id)
                assert row is not None
                self.positions.append(row["position"])
                self.most = max(self.most, row["in_flight"])
                assert await mine.record(claim, ANSWERED, self.chance.choice(ENDS), None)
            await asyncio.sleep(0)

    async def lead(self) -> None:
        """Move lines on, as the leader does, until all has ended."""
        while self.is_writing or await self.unfinished():
            await PostgresHeldEndpoints(self.stored.pool).move_lines()
            await asyncio.sleep(0.01)

    async def unfinished(self) -> bool:
        """Return whether a delivery is in the line."""
        found: bool = await self.stored.pool.fetchval(
            "SELECT EXISTS (SELECT FROM hookseal.deliveries WHERE position IS NOT NULL)"
        )
        return found


@pytest.mark.parametrize("seed", [1, 2])
async def test_concurrent_claims_keep_the_order(begun_pool: Pool, seed: int) -> None:
    """One delivery is in flight at a time, and no claim has a lower position than a claim before it."""
    stored = await begin(begun_pool)
    await stored.add(
        NewEndpoint(
            tenant_id=TenantId("acme"),
            url="https://receiver.example/",
            event_types=("*",),
            settings={"ordered": True, "on_dead_letter": OnDeadLetter.STOP},
        )
    )
    race = Race(stored, random.Random(seed))
    async with asyncio.timeout(120):
        await asyncio.gather(race.write(), race.lead(), *(race.work() for _ in range(WORKERS)))

    assert 1 == race.most
    assert sorted(race.positions) == race.positions
    assert set(race.positions) >= set(range(1, 2 * PUBLISHED + 1))
