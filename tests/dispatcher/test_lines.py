"""Lines: the deliveries of an ordered endpoint are sent one after another, in the order of publishing."""

import asyncio
from typing import Any

import asyncpg
import pytest

from hookseal.dispatcher.core.model import Attempt, Claim, OnDeadLetter, Outcome, Ring, State, Verdict, WaitingFor
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
from hookseal.postgres.pool import Connection
from hookseal.postgres.statements import statements
from tests.dispatcher.test_ledger import ledger
from tests.dispatcher.test_publish import event
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.replaced import replace
from tests.doubles.stored import AGE, Installation, begin
from tests.operations.blocked import blocked

Pool = asyncpg.Pool
ACME = TenantId("acme")
FAILED = Attempt(outcome=Outcome.SERVER_ERROR, status=500, duration_ms=1, snippet=None, signed_by=("r",))
LATER = Verdict(state=State.PENDING, retry_in_seconds=60)
MANY = (
    "SELECT hookseal.publish_many('acme', ARRAY(SELECT json_build_object('event_type', 'a.b', 'data', n)"
    " FROM generate_series(1, $1::integer) AS n))"
)
REMOVED = "SELECT deliveries FROM hookseal.remove_deliveries(1, '-infinity')"

pytestmark = pytest.mark.req("DEL-17")


@pytest.fixture
async def stored(begun_pool: "Pool[asyncpg.Record]") -> Installation:
    """Return an installation with one ordered endpoint of acme."""
    installation = await begin(begun_pool)
    await add(installation)
    return installation


async def test_what_waits_in_line_is_not_marked_as_rung(
    stored: Installation, begun_pool: "Pool[asyncpg.Record]"
) -> None:
    """If the producer rings, only the head is marked as rung: the others are rung when it is their turn."""
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
    """Add an ordered endpoint."""
    new = NewEndpoint(tenant_id=ACME, url=url, event_types=("*",), ordered=True, on_dead_letter=what)
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
    """Claim the delivery, and end it in this state."""
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
    """Replay the delivery, and return the id under which it is sent."""
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
    """A delivery of an endpoint that is not ordered has no position, and does not wait."""
    await stored.endpoint("globex")
    rings = [(await stored.deliveries("globex"))[0] for _ in range(2)]

    assert [(None, None)] * 2 == await line(stored, rings)
    assert 2 == len(await claimed(stored, *rings))


async def test_only_the_head_of_a_line_is_claimed(stored: Installation) -> None:
    """Even if all are due and rung, one claim takes only the head, and none takes the next while that is sent."""
    rings = await published(stored, 3)
    await stored.pool.execute("UPDATE hookseal.deliveries SET waiting_for = NULL")
    found = await ledger(stored.pool).claim_all(rings[::-1], None, most_bytes=1_000_000)

    assert [rings[0]] == [claim.ring for claim in found.claims]
    assert {ring.delivery_id for ring in rings[1:]} == {ring.delivery_id for ring in found.behind}
    assert [] == found.busy
    assert [] == await claimed(stored, *rings)


async def test_a_ring_behind_the_head_is_parked(stored: Installation) -> None:
    """A ring that claims nothing because others are ahead waits for its order, and makes no lane crowded."""
    rings = await published(stored, 2)
    await stored.pool.execute("UPDATE hookseal.deliveries SET waiting_for = NULL")
    await PostgresLanes(stored.pool).park([Parked(rings[1], WaitingFor.ORDER)])

    assert [(1, None), (2, "order")] == await line(stored, rings)
    assert [] == await PostgresLanes(stored.pool).page()


async def test_a_worker_takes_the_next_delivery_of_its_line(stored: Installation) -> None:
    """When the head is delivered it leaves the line, and its worker can take the next one, and no other."""
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
    await stored.pool.execute(
        "UPDATE hookseal.deliveries SET lease_expires_at = now() - interval '1 s' WHERE lease_token IS NOT NULL"
    )
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
    """A pending delivery is not skipped, and an unknown one is not found."""
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
async def test_with_skip_every_ended_delivery_leaves_the_line(begun_pool: "Pool[asyncpg.Record]", state: State) -> None:
    """With `on_dead_letter` `skip`, every delivery that ends leaves the line, and the next one follows."""
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
    await stored.pool.execute(  # as if it had ended while the endpoint was changed
        "UPDATE hookseal.deliveries SET position = 2 WHERE id = $1::text::uuid", rings[1].delivery_id
    )

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
    """A batch that waited for an earlier publisher of the line is behind what that one published."""
    async with stored.pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        await publish_json(first, event(), "{}")
        after = asyncio.create_task(stored.pool.execute(MANY, 2))
        await blocked(stored)
        await transaction.commit()
    await after

    rows = await stored.pool.fetch("SELECT position, waiting_for FROM hookseal.deliveries ORDER BY position")
    assert [(1, None), (2, "order"), (3, "order")] == [tuple(row) for row in rows]


async def test_a_rolled_back_publish_leaves_the_next_at_the_head(stored: Installation) -> None:
    """If the earlier publisher rolls back, the later one is at the head, and due at once."""
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
        async with asyncio.timeout(3):
            assert 2 == (await stored.rotate(rings[0].endpoint_id)).generation

    assert [(1, None), (2, "order")] == await line(stored, rings)


async def test_a_batch_gets_positions_in_its_order(stored: Installation) -> None:
    """The events of a batch get their positions in the order of the batch, at each ordered endpoint."""
    await add(stored, "https://receiver.example/2")
    await stored.pool.execute(MANY, 20)
    rows = await stored.pool.fetch(
        "SELECT convert_from(e.body, 'UTF8')::json ->> 'data', d.position, d.waiting_for FROM hookseal.deliveries AS d"
        " JOIN hookseal.events AS e ON e.id = d.event_id ORDER BY d.endpoint_id, d.position"
    )

    assert [(str(n), n, None if n == 1 else "order") for n in range(1, 21)] * 2 == list(map(tuple, rows))


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
    await stored.pool.execute("UPDATE hookseal.deliveries SET waiting_for = $1 WHERE position = 1", reason)
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
    await stored.pool.execute("UPDATE hookseal.deliveries SET waiting_for = 'order'")
    await stored.pool.execute(  # as if an endpoint had been deleted while triggers were off
        "INSERT INTO hookseal.lines SELECT 'a', '00000000-0000-4000-8000-000000000001'"
    )
    holds, place, found = PostgresHeldEndpoints(stored.pool), FIRST_LINE, []
    for _ in range(3):
        due, place = await holds.move_lines(place, at_most=2)
        found.append(due)
    found.append((await holds.move_lines(place, at_most=2))[0])

    assert [1, 2, 2, 0] == found


async def test_a_line_waits_while_its_endpoint_is_disabled(stored: Installation) -> None:
    """The whole line waits while its endpoint is disabled, and goes out in order after that."""
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
    await stored.pool.execute("UPDATE hookseal.endpoints SET enabled = false")
    await moved(stored)
    await stored.settle()
    assert [(2, "endpoint_disabled"), (3, "endpoint_disabled")] == await line(stored, rings[1:])


async def test_the_head_of_a_held_endpoint_is_its_probe(stored: Installation) -> None:
    """While the endpoint is held, the head is its probe; after the release the line continues with the head."""
    rings = await published(stored, 3)
    await stored.pool.execute(
        "INSERT INTO hookseal.held_endpoints (tenant_id, endpoint_id, waiting_for) SELECT tenant_id, id, 'breaker'"
        " FROM hookseal.endpoints"
    )
    await stored.pool.execute("UPDATE hookseal.deliveries SET waiting_for = 'breaker' WHERE position = 1")
    await PostgresHeldEndpoints(stored.pool).probe()
    probe = await stored.pool.fetchval("SELECT probe_id::text FROM hookseal.held_endpoints")
    assert rings[0].delivery_id == probe
    await end(stored, rings[0])
    assert [] == await next_of_line(stored, rings[0])
    await stored.pool.execute("UPDATE hookseal.held_endpoints SET released_at = now()")
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
    """If the id in the row of an endpoint is changed by hand, its line keeps its deliveries."""
    other = "00000000-0000-4000-8000-000000000001"
    await published(stored, 1)
    await stored.pool.execute("UPDATE hookseal.endpoints SET id = $1::text::uuid", other)

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
        await connection.execute("UPDATE hookseal.deliveries SET position = 1 WHERE tenant_id = 'globex'")
        with pytest.raises(asyncpg.CheckViolationError):
            async with connection.transaction():
                await connection.execute("UPDATE hookseal.deliveries SET position = 0")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute("UPDATE hookseal.lines SET last_position = 0")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute("UPDATE hookseal.endpoints SET ordered = true")

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
    given = (head.tenant_id, head.endpoint_id, head.delivery_id, "t", "w2", 45.0, None, 1_000_000)
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
        await stored.pool.execute(
            "INSERT INTO hookseal.producers (tenant_id, role_name, role) VALUES ('acme', $1, $1::text::regrole)",
            producer,
        )
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
