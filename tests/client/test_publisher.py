"""A Publisher: what it stores and rings, of one event and of many."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from redis.asyncio import Redis

from hookseal import Event, Published, PublishedMany, Publisher
from hookseal.client.doorbell import Doorbell
from hookseal.client.publisher import Calls
from hookseal.embedded.server import Server
from hookseal.errors import Conflict, Malformed, Refused
from hookseal.postgres.schema import revision
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.queue.rings import DEFAULT_QUEUE, rings
from tests import rows
from tests.admin.refusals import refused_field
from tests.cli.listeners import black_hole
from tests.client.stored import Stored, ids
from tests.doubles.claims import DELIVERY, RING
from tests.worker.waiting import eventually

NO_TEXT: list[tuple[str, Any, str]] = [
    ("tenant_id", 7, "int"),
    ("tenant_id", None, "NoneType"),
    ("event_type", None, "NoneType"),
    ("event_type", b"invoice.paid", "bytes"),
    ("event_id", UUID(int=5), "UUID"),
    ("event_id", 0, "int"),
    ("correlation_id", 5, "int"),
    ("traceparent", [], "list"),
    ("channels", ["a", 5], "int"),
]
JSON_VALUES: list[tuple[object, str]] = [
    ({"z": 1, "a": {"c": [1, 2.5, None], "b": True}}, '{"z":1,"a":{"c":[1,2.5,null],"b":true}}'),
    ({"name": "Zoë \U0001f680"}, '{"name":"Zoë \U0001f680"}'),
    (None, "null"),
    ("text", '"text"'),
    (2**70, str(2**70)),
    (((1, "a"), [2]), '[[1,"a"],[2]]'),
]
EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid"}
_IS_MARKED = "SELECT rung_at = created_at AS marked FROM hookseal.deliveries WHERE event_id = $1"
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({}, "data"),
    ({"data": 1, "body": b"1"}, "data"),
    ({"data": None, "body": b"1"}, "data"),
    ({"data": object()}, "data"),
    ({"data": {"a": [1, "\ud800"]}}, "data"),
    ({"data": 1, "tenant_id": "_system"}, "tenant_id"),
    ({"data": 1, "event_type": "invoice paid"}, "event_type"),
    ({"data": 1, "event_id": "a b"}, "event_id"),
    ({"data": 1, "event_id": "x" * 257}, "event_id"),
    ({"data": 1, "channels": "a"}, "channels"),
    ({"data": 1, "channels": ["a b"]}, "channels"),
    ({"data": 1, "correlation_id": "a\r\nX: y"}, "correlation_id"),
    ({"data": 1, "correlation_id": "\ud800"}, "correlation_id"),
    ({"data": 1, "correlation_id": "x" * 129}, "correlation_id"),
    ({"data": 1, "traceparent": "\x00"}, "traceparent"),
    ({"data": 1, "traceparent": "nonsense"}, "traceparent"),
]
PAID = "invoice.paid"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid", "data": {"id": 1}}
_BLOCKED = """
SELECT count(*) = 5 FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'hookseal-publisher' AND wait_event_type = 'Lock'
"""
_WAITS = """
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'hookseal-publisher' AND wait_event_type = 'Lock'
"""


@pytest.mark.req("DEL-01")
async def test_an_event_is_stored_and_rung(publisher: Publisher, stored: Stored) -> None:
    """There is a delivery for each endpoint that subscribes, each is rung, and the ids are returned."""
    await stored.endpoint()
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    published = await publisher.publish(
        **EVENT,
        data={"id": 1},
        event_id="evt-1",
        correlation_id="order-7",
        traceparent=traceparent,
        tracestate="a=1, b=2",
    )

    assert ("evt-1", False, 2) == (published.event_id, published.duplicate, len(published.deliveries))
    assert ids(published.deliveries) == await stored.delivery_ids() == await stored.rung()
    row = await stored.pool.fetchrow("SELECT correlation_id, traceparent, tracestate FROM hookseal.events")
    assert row is not None
    assert ("order-7", traceparent, "a=1,b=2") == tuple(row)


@pytest.mark.req("OPS-03", part="trace-context")
async def test_a_tracestate_that_is_none_is_left_out(publisher: Publisher, stored: Stored) -> None:
    """Even one that PostgreSQL could not read: the event is published without it. Only what is no text is refused."""
    for given in ("a=\x00", "a=\ud800", "a=\u00e9", "a" * 600, "A=1"):
        await publisher.publish(**EVENT, data=1, traceparent=TRACEPARENT, tracestate=given)
        events = [Event(event_type="a", data=1, traceparent=TRACEPARENT, tracestate=given)]
        await publisher.publish_many(tenant_id="acme", events=events)
    with pytest.raises(Malformed, match="tracestate must be text, not int"):
        await publisher.publish(**EVENT, data=1, tracestate=5)  # type: ignore[arg-type]

    states = await stored.pool.fetch("SELECT tracestate FROM hookseal.events")
    assert [None] * 10 == [row["tracestate"] for row in states]


async def test_the_outbox_leaves_to_it_what_it_rings(publisher: Publisher, stored: Stored) -> None:
    one = await publisher.publish(**EVENT, data=1)
    raw = await publisher.publish(**EVENT, body=b"x")
    [many] = (await publisher.publish_many(tenant_id="acme", events=[Event(event_type="a.b", data=1)])).events
    async with stored.pool.acquire() as connection:
        async with connection.transaction():
            joined = await publisher.publish(**EVENT, data=1, connection=connection)
        given = await publisher.publish(**EVENT, data=1, connection=connection)

    marked = [await stored.pool.fetchval(_IS_MARKED, each.event_id) for each in (one, raw, many, joined, given)]
    assert [True, True, True, None, None] == marked


async def test_a_repeat_rings_again(publisher: Publisher, stored: Stored, redis_url: str) -> None:
    """If the first ring was lost, a repeat of the call rings; a repeat through SQL leaves the delivery to the sweep."""
    first = await publisher.publish(**EVENT, data=1, event_id="evt-1")
    async with Redis.from_url(redis_url) as redis:
        await redis.flushdb()
    repeat = "SELECT is_due FROM hookseal.publish('acme', 'invoice.paid', '1'::json, event_id => 'evt-1')"
    assert await stored.pool.fetchval(repeat)
    assert (True, set()) == (await stored.pool.fetchval(_IS_MARKED, "evt-1"), await stored.rung())

    await publisher.publish(**EVENT, data=1, event_id="evt-1")
    assert ids(first.deliveries) == await stored.rung()


@pytest.mark.req("DEL-22")
async def test_a_held_delivery_is_not_rung(publisher: Publisher, stored: Stored) -> None:
    """A delivery for a disabled endpoint is returned and not rung; a repeat does not ring one that has ended."""
    await stored.endpoint()
    await rows.change(
        stored.pool, "endpoints", where="id = (SELECT min(id::text)::uuid FROM hookseal.endpoints)", enabled=False
    )
    published = await publisher.publish(**EVENT, data=1, event_id="evt-1")
    due = await stored.pool.fetchval("SELECT id::text FROM hookseal.deliveries WHERE waiting_for IS NULL")

    assert 2 == len(published.deliveries)
    assert {due} == set(await stored.rung())
    marked = await stored.pool.fetch("SELECT id::text FROM hookseal.deliveries WHERE rung_at IS NOT NULL")
    assert [due] == [row["id"] for row in marked]
    await rows.set_state(stored.pool, "delivered", where="waiting_for IS NULL")
    assert () == (await publisher.publish(**EVENT, data=1, event_id="evt-1"))._due


@pytest.mark.req("UX-03")
async def test_the_result_says_whether_an_endpoint_gets_the_event(publisher: Publisher, stored: Stored) -> None:
    """Also that of a repeat, of many, and of a tenant that has no endpoint."""
    events = [Event(event_type=PAID, data=1)]
    found = [
        await publisher.publish(**EVENT, data=1, event_id="e1"),
        await publisher.publish(**EVENT, data=1, event_id="e1"),
        (await publisher.publish_many(tenant_id="acme", events=events)).events[0],
        await publisher.publish(**EVENT | {"tenant_id": "globex"}, data=1),
        (await publisher.publish_many(tenant_id="globex", events=events)).events[0],
    ]

    assert [True, True, True, False, False] == [each.matched for each in found]


@pytest.mark.req("DEL-01")
async def test_an_event_in_channels_goes_to_those_who_share_one(publisher: Publisher, stored: Stored) -> None:
    """Alone, among calls that wait together, in a transaction and in a batch; `tests/dispatcher` has every case."""
    [everyone] = [row["id"] for row in await stored.pool.fetch("SELECT id::text FROM hookseal.endpoints")]
    of_a = await rows.endpoint(stored.pool, channels=["a"])
    both = {everyone, of_a}

    def reached(published: Published) -> set[str]:
        return {ring.endpoint_id for ring in published.deliveries}

    alone = [await publisher.publish(**EVENT, data=1, channels=channels) for channels in (["a", "c"], ["c"], [])]
    together = await asyncio.gather(
        *(publisher.publish(**EVENT, data=n, channels=["a"] if n % 2 else ["c"]) for n in range(20))
    )
    async with stored.pool.acquire() as connection, connection.transaction():
        joined = await publisher.publish(**EVENT, body=b"1", channels=("a",), connection=connection)
    many = await publisher.publish_many(
        tenant_id="acme",
        events=[Event(event_type=PAID, data=1, channels=["a"]), Event(event_type=PAID, body=b"", channels=["c"])],
    )

    assert [both, {everyone}, {everyone}] == list(map(reached, alone))
    assert [{everyone}, both] * 10 == list(map(reached, together))
    assert [both, {everyone}] == [reached(joined), reached(many.events[1])]
    assert both == reached(many.events[0])


@pytest.mark.req("DEL-01")
async def test_the_result_has_the_time_of_the_event(publisher: Publisher, stored: Stored) -> None:
    """Alone, among calls that wait together, in a transaction and in a batch; a repeat has that of the first."""

    async def each_way(event_ids: Iterator[str]) -> list[Published]:
        given: dict[str, Any] = {"tenant_id": "acme", "event_type": PAID, "data": 1}
        alone = [await publisher.publish(**given, event_id=next(event_ids))]
        together = await asyncio.gather(*(publisher.publish(**given, event_id=next(event_ids)) for _ in range(20)))
        async with stored.pool.acquire() as connection, connection.transaction():
            joined = await publisher.publish(**given, event_id=next(event_ids), connection=connection)
        events = [Event(event_type=PAID, data=1, event_id=event_id) for event_id in [next(event_ids)] * 2]
        many = await publisher.publish_many(tenant_id="acme", events=events)
        return [*alone, *together, joined, *many.events]

    first = await each_way(f"e{number}" for number in count())
    repeats = await each_way(f"e{number}" for number in count())
    rows_ = await stored.pool.fetch("SELECT id, occurred_at FROM hookseal.events")
    times = {row["id"]: row["occurred_at"] for row in rows_}

    assert [times[each.event_id] for each in first] == [each.occurred_at for each in first]
    assert [True] * len(first) == [each.duplicate for each in repeats]
    assert [each.occurred_at for each in first] == [each.occurred_at for each in repeats]


async def test_a_repeat_that_waits_for_the_first_has_its_time(publisher: Publisher, stored: Stored) -> None:
    """The first is committed only while the repeat, alone or in a batch, waits for it."""

    async def in_a_batch(event_id: str) -> Published:
        event = Event(event_type=PAID, data=1, event_id=event_id)
        return (await publisher.publish_many(tenant_id="acme", events=[event])).events[0]

    async def alone(event_id: str) -> Published:
        return await publisher.publish(**EVENT, data=1, event_id=event_id)

    async def waits() -> bool:
        return bool(await stored.pool.fetchval(_WAITS))

    for event_id, way in (("e1", alone), ("e2", in_a_batch)):
        async with stored.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            first = await publisher.publish(**EVENT, data=1, event_id=event_id, connection=connection)
            again = asyncio.ensure_future(way(event_id))
            await eventually(waits)
            await transaction.commit()
        repeat = await again
        assert (True, first.occurred_at) == (repeat.duplicate, repeat.occurred_at)


@pytest.mark.req("OPS-09", part="previous-version")
async def test_a_schema_of_the_first_revision_is_published_to(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its functions return no times and take no tracestate. A Publisher that is open during the upgrade goes on.

    One that follows has both.
    """
    monkeypatch.setattr(revision, "EXPECTED", "0001")
    await upgrade(empty_database_url)
    monkeypatch.undo()

    async def published(publisher: Publisher) -> set[bool]:
        trace: dict[str, Any] = {"traceparent": TRACEPARENT, "tracestate": "a=1"}
        calls = [publisher.publish(**EVENT, data=number, **trace) for number in range(20)]
        many = await publisher.publish_many(tenant_id="acme", events=[Event(event_type=PAID, body=b"1", **trace)])
        each = (*await asyncio.gather(*calls), await publisher.publish(**EVENT, body=b"1"), *many.events)
        return {one.occurred_at is not None for one in each}

    async with Publisher.connect(empty_database_url, "") as publisher:
        assert {False} == await published(publisher)
        await upgrade(empty_database_url)
        assert {False} == await published(publisher)
    async with Publisher.connect(empty_database_url, "") as publisher:
        assert {True} == await published(publisher)
    connection = await asyncpg.connect(empty_database_url)
    states = await connection.fetch("SELECT tracestate FROM hookseal.events WHERE traceparent IS NOT NULL")
    await connection.close()
    assert [21, 42] == [[row["tracestate"] for row in states].count(each) for each in ("a=1", None)]


@pytest.mark.req("DEL-01")
async def test_data_is_any_json_value(publisher: Publisher, stored: Stored) -> None:
    for data, text in JSON_VALUES:
        published = await publisher.publish(**EVENT, data=data)
        body = (await stored.body(published.event_id)).decode()

        assert body.endswith(f',"data":{text}}}')
        assert {"type", "timestamp", "data"} == json.loads(body).keys()


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_a_malformed_argument_is_named(publisher: Publisher, stored: Stored) -> None:
    assert MALFORMED == [(given, await refused_field(publisher.publish(**(EVENT | given)))) for given, _ in MALFORMED]
    assert 0 == await stored.count()


async def test_a_value_of_another_type_is_named(publisher: Publisher, stored: Stored) -> None:
    """An argument that must be text and is not is refused with its name and type, alone and in a batch."""
    for field, value, kind in NO_TEXT:
        given = EVENT | {"data": 1, field: value}
        with pytest.raises(Malformed, match=f"^{field} must be text, not {kind}$") as alone:
            await publisher.publish(**given)
        with pytest.raises(Malformed, match=f"{field} must be text, not {kind}$") as in_batch:
            await publisher.publish_many(tenant_id=given.pop("tenant_id"), events=[Event(**given)])

        assert [field] * 2 == [caught.value.field for caught in (alone, in_batch)]
        assert (None if field == "tenant_id" else 0) == in_batch.value.index
    assert 0 == await stored.count()


async def test_a_body_must_be_bytes(publisher: Publisher, stored: Stored) -> None:
    body: Any = '{"id": 1}'
    with pytest.raises(Malformed) as caught:
        await publisher.publish(**EVENT, body=body)

    assert ("body", 0) == (caught.value.field, await stored.count())


@pytest.mark.req("DEL-01")
async def test_a_repeat_returns_the_first_result(publisher: Publisher, stored: Stored) -> None:
    """A repeat returns the first result, marked as duplicate; the same id with other data is a conflict."""
    first = await publisher.publish(**EVENT, data={"id": 1}, event_id="evt-1")
    again = await publisher.publish(**EVENT, data={"id": 1}, event_id="evt-1")
    with pytest.raises(Conflict) as caught:
        await publisher.publish(**EVENT, data={"id": 2}, event_id="evt-1")

    assert (False, True) == (first.duplicate, again.duplicate)
    assert (first.event_id, first.deliveries) == (again.event_id, again.deliveries)
    assert "event_id" == caught.value.field
    assert 1 == await stored.count() == await stored.count("deliveries")


@pytest.mark.req("DEL-01")
async def test_concurrent_publishes_create_one_event(publisher: Publisher, stored: Stored) -> None:
    published: list[Published] = await asyncio.gather(
        *(publisher.publish(**EVENT, data={"id": 1}, event_id="evt-1") for _ in range(200))
    )

    assert 1 == sum(not one.duplicate for one in published)
    assert 1 == len({one.deliveries for one in published})
    assert 1 == await stored.count() == await stored.count("deliveries")
    assert ids(published[0].deliveries) == await stored.rung()
    assert 1 <= await _connections(stored) <= 5


async def test_after_its_block_nothing_is_open(database_url: str, redis_url: str, stored: Stored) -> None:
    """After its block a Publisher has no open connection, and `ring` of an earlier result rings nothing."""
    async with Publisher.connect(database_url, redis_url) as publisher:
        async with stored.pool.acquire() as connection:
            published = await publisher.publish(**EVENT, data=1, connection=connection)
        assert 1 == await _connections(stored)
    await published.ring()

    assert set() == await stored.rung()
    assert 0 == await _connections(stored)


async def _connections(stored: Stored) -> int:
    count: int = await stored.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'hookseal-publisher'"
    )
    return count


def numbered(first: int, last: int) -> list[Event]:
    """Return events with ids and data that contain their numbers."""
    return [Event(event_type=PAID, data={"id": number}, event_id=f"e{number}") for number in range(first, last + 1)]


def all_ids(published: PublishedMany) -> set[str]:
    return {each for one in published.events for each in ids(one.deliveries)}


@pytest.mark.req("DEL-01")
async def test_all_are_stored_and_rung(publisher: Publisher, stored: Stored) -> None:
    """Each event has a delivery for each endpoint, each is rung, and the results are in the given order."""
    await stored.endpoint()
    published = await publisher.publish_many(tenant_id="acme", events=iter(numbered(1, 30)))

    assert [f"e{number}" for number in range(1, 31)] == [one.event_id for one in published.events]
    assert [(False, 2)] * 30 == [(one.duplicate, len(one.deliveries)) for one in published.events]
    assert all_ids(published) == await stored.delivery_ids() == await stored.rung()


@pytest.mark.req("DEL-01")
async def test_an_event_of_a_batch_has_every_field(publisher: Publisher, stored: Stored) -> None:
    """An event of a batch may have all that a single one may: any data, None too, or bytes, and the other fields."""
    published = await publisher.publish_many(
        tenant_id="acme",
        events=[
            Event(event_type="a", data=None),
            Event(event_type="b", data={"name": 'Zoë \U0001f680 \x00 "\\'}),
            Event(event_type="c", body=b"\xff\x00"),
            Event(
                event_type="d",
                data=1,
                event_id="evt-1",
                correlation_id="order-7",
                traceparent=TRACEPARENT,
                tracestate="a=1",
            ),
        ],
    )
    bodies = [await stored.body(one.event_id) for one in published.events]

    assert [b'"data":null}', b'"data":1}'] == [bodies[0][-12:], bodies[3][-9:]]
    assert bodies[1].endswith('"data":{"name":"Zoë \U0001f680 \\u0000 \\"\\\\"}}'.encode())
    assert b"\xff\x00" == bodies[2]
    row = await stored.pool.fetchrow(
        "SELECT correlation_id, traceparent, tracestate FROM hookseal.events WHERE id = 'evt-1'"
    )
    assert row is not None
    assert ("order-7", TRACEPARENT, "a=1") == tuple(row)


@pytest.mark.req("DEL-14", part="publish-limits")
@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({}, "data", "pass exactly one of data and body"),
        ({"data": 1, "body": b"1"}, "data", "pass exactly one of data and body"),
        ({"data": {"items": [{"price": {1, 2}}]}}, "data", r"data\.items\[0\]\.price is of type set"),
        ({"data": "x" * 262_144}, "body", "body must be at most 262144 bytes"),
        ({"body": b"x" * 262_145}, "body", "body must be at most 262144 bytes"),
        ({"body": "text"}, "body", "body must be bytes"),
        ({"data": 1, "event_type": "invoice paid"}, "event_type", "event type must be"),
        ({"data": 1, "event_id": "a b"}, "event_id", "event id must be"),
        ({"data": 1, "channels": ["a b"]}, "channels", "channels must be"),
        ({"data": 1, "correlation_id": "\ud800"}, "correlation_id", "correlation_id must be"),
        ({"data": 1, "traceparent": "nonsense"}, "traceparent", "traceparent must be"),
    ],
)
async def test_a_malformed_event_is_named(
    publisher: Publisher, stored: Stored, given: dict[str, Any], field: str, message: str
) -> None:
    """A malformed event is refused with its index and field, and nothing of the batch is stored or rung."""
    bad = Event(**({"event_type": PAID} | given))
    with pytest.raises(Malformed, match=rf"^events\[2\]: {message}") as caught:
        await publisher.publish_many(tenant_id="acme", events=[*numbered(1, 2), bad, *numbered(3, 4)])

    assert (field, 2) == (caught.value.field, caught.value.index)
    assert (0, set()) == (await stored.count(), await stored.rung())


@pytest.mark.parametrize("given", [{"event_type": PAID, "data": 1}, "text", None])
async def test_another_value_than_an_event_is_refused(publisher: Publisher, stored: Stored, given: Any) -> None:
    """A dict, as SQL accepts it, or anything else that is not an `Event` is refused with its index and its type."""
    with pytest.raises(Malformed, match=rf"^events\[1\] must be an Event, not {type(given).__name__}") as caught:
        await publisher.publish_many(tenant_id="acme", events=[*numbered(1, 1), given])

    assert ("events", 1, 0) == (caught.value.field, caught.value.index, await stored.count())


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_number_of_events_is_limited(publisher: Publisher, stored: Stored) -> None:
    """More than 1,000 events are refused as soon as the 1,001st is read, even from an endless iterator."""

    def endless() -> Iterator[Event]:
        return (Event(event_type=PAID, data=number) for number in count())

    with pytest.raises(Malformed, match="at most 1000") as caught:
        await publisher.publish_many(tenant_id="acme", events=endless())

    assert ("events", None, 0) == (caught.value.field, caught.value.index, await stored.count())


async def test_an_empty_batch_stores_nothing(publisher: Publisher, stored: Stored) -> None:
    """An empty batch is published without a query; a malformed tenant is refused all the same."""
    published = await publisher.publish_many(tenant_id="acme", events=[])
    await published.ring()
    with pytest.raises(Malformed) as caught:
        await publisher.publish_many(tenant_id="_system", events=[])

    assert ((), 0, "tenant_id") == (published.events, await stored.count(), caught.value.field)


@pytest.mark.req("DEL-01")
async def test_a_batch_joins_the_transaction(publisher: Publisher, stored: Stored) -> None:
    """A batch joins the caller's transaction, rings when the caller asks for it, and undoes only itself on an error."""
    async with stored.pool.acquire() as connection:
        async with connection.transaction():
            published = await publisher.publish_many(tenant_id="acme", events=numbered(1, 3), connection=connection)
            with pytest.raises(Conflict):
                await publisher.publish_many(
                    tenant_id="acme",
                    events=[*numbered(4, 5), Event(event_type=PAID, data=0, event_id="e1")],
                    connection=connection,
                )
            await publisher.publish_many(tenant_id="acme", events=numbered(4, 4), connection=connection)
            assert set() == await stored.rung()
        await published.ring()
        transaction = connection.transaction()
        await transaction.start()
        await publisher.publish_many(tenant_id="acme", events=numbered(7, 9), connection=connection)
        await transaction.rollback()

    assert (4, all_ids(published)) == (await stored.count(), await stored.rung())


@pytest.mark.req("DEL-01")
async def test_a_batch_is_one_statement_and_one_script(database_url: str, own_valkey: Server, stored: Stored) -> None:
    """A batch is one statement in PostgreSQL and one script in Redis, for any number of events and endpoints."""
    for _ in range(3):
        await stored.endpoint()
    async with Publisher.connect(database_url, own_valkey.url) as publisher:
        await publisher.publish_many(tenant_id="acme", events=numbered(1, 1))
        async with Redis.from_url(own_valkey.url) as redis:
            before = await _commands(redis)
            async with stored.pool.acquire() as connection:
                asked: list[str] = []
                connection.add_query_logger(lambda record: asked.append(record.query))
                published = await publisher.publish_many(
                    tenant_id="acme", events=numbered(2, 101), connection=connection
                )
            await published.ring()
            after = await _commands(redis)

    assert [True] == ["hookseal.publish_events" in each for each in asked if "hookseal" in each]
    assert (1, 401) == (after["evalsha"] - before["evalsha"], after["zadd"] - before["zadd"])


async def _commands(redis: Redis) -> dict[str, int]:
    stats: dict[str, Any] = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


async def test_a_closed_publisher_refuses(database_url: str) -> None:
    async with Publisher.connect(database_url) as publisher:
        pass
    with pytest.raises(Refused, match="closed"):
        await publisher.publish_many(tenant_id="acme", events=numbered(1, 1))


async def test_closing_waits_for_what_is_under_way(database_url: str, redis_url: str, stored: Stored) -> None:
    """What is under way when the block is left is stored and rung, with a connection or not yet; more is refused."""
    stack = AsyncExitStack()
    publisher = await stack.enter_async_context(Publisher.connect(database_url, redis_url))
    async with stored.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE hookseal.events IN SHARE MODE")
        ones = [asyncio.create_task(publisher.publish(**_EVENT)) for _ in range(20)]
        events = [Event(event_type="a.b", data=1)]
        many = asyncio.create_task(publisher.publish_many(tenant_id="acme", events=events))
        await eventually(lambda: stored.pool.fetchval(_BLOCKED))
        closing = asyncio.create_task(stack.aclose())
        late = asyncio.create_task(publisher.publish(**_EVENT))  # it begins after the close, as tasks begin in order
        with pytest.raises(Refused, match="closed"):
            await late
    published = [*await asyncio.gather(*ones), *(await many).events]
    await closing

    assert 21 == await stored.count()
    assert {each for one in published for each in ids(one.deliveries)} == await stored.rung()


async def test_closing_waits_only_for_a_while() -> None:
    calls = Calls()
    with calls.counted():
        await asyncio.wait_for(calls.close(seconds=0.01), 60)
    with pytest.raises(Refused), calls.counted():
        pass


async def test_a_doorbell_rings_the_given_deliveries(redis_url: str) -> None:
    lost: list[str] = []
    doorbell = Doorbell(rings(redis_url), lost.append)
    await doorbell.ring([RING])
    await doorbell.close()

    async with Redis.from_url(redis_url) as redis:
        assert [DELIVERY.encode()] == await redis.zrange(DEFAULT_QUEUE, 0, -1)
    assert [] == lost


async def test_a_doorbell_may_be_closed_twice(redis_url: str) -> None:
    doorbell = Doorbell(rings(redis_url), print)
    await doorbell.close()
    await doorbell.close()
    await doorbell.ring([RING])

    async with Redis.from_url(redis_url) as redis:
        assert 0 == await redis.dbsize()


async def test_a_cancelled_ring_counts_as_failed() -> None:
    """The caller may have a shorter time limit than the doorbell: what it publishes next is left to the outbox."""
    async with black_hole() as (hole, _):
        doorbell = Doorbell(rings(f"redis://127.0.0.1:{hole}/0"), print)
        before = doorbell.rings
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await doorbell.ring([RING])
        after = doorbell.rings
        await doorbell.close()

    assert (True, False) == (before, after)
