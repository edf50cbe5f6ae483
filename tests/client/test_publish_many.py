"""Publishing many events from Python: what is stored, what is rung, what is refused."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from redis.asyncio import Redis

from hookseal import Event, PublishedMany, Publisher
from hookseal.dispatcher.core.model import Ring
from hookseal.embedded.server import Server
from hookseal.errors import Conflict, Malformed, Refused
from tests.client.stored import Stored, ids

PAID = "invoice.paid"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def numbered(first: int, last: int) -> list[Event]:
    """Return events with ids and data that contain their numbers."""
    return [Event(event_type=PAID, data={"id": number}, event_id=f"e{number}") for number in range(first, last + 1)]


def all_ids(published: PublishedMany) -> set[str]:
    """Return the ids of all deliveries."""
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
            Event(event_type="d", data=1, event_id="evt-1", correlation_id="order-7", traceparent=TRACEPARENT),
        ],
    )
    bodies = [await stored.body(one.event_id) for one in published.events]

    assert [b'"data":null}', b'"data":1}'] == [bodies[0][-12:], bodies[3][-9:]]
    assert bodies[1].endswith('"data":{"name":"Zoë \U0001f680 \\u0000 \\"\\\\"}}'.encode())
    assert b"\xff\x00" == bodies[2]
    row = await stored.pool.fetchrow("SELECT correlation_id, traceparent FROM hookseal.events WHERE id = 'evt-1'")
    assert row is not None
    assert ("order-7", TRACEPARENT) == tuple(row)


@pytest.mark.req("DEL-01")
async def test_a_single_event_is_a_repeat_in_a_batch(publisher: Publisher, stored: Stored) -> None:
    """A single event is a repeat in a batch, with the first result, and the other way round."""
    alone = await publisher.publish(tenant_id="acme", event_type=PAID, data={"id": 1}, event_id="e1")
    published = await publisher.publish_many(tenant_id="acme", events=numbered(1, 2))
    again = await publisher.publish(tenant_id="acme", event_type=PAID, data={"id": 2}, event_id="e2")

    assert [True, False] == [one.duplicate for one in published.events]
    assert (alone.deliveries, again.deliveries) == tuple(one.deliveries for one in published.events)
    assert again.duplicate
    assert 2 == await stored.count() == await stored.count("deliveries")


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


@pytest.mark.req("DEL-01")
async def test_a_used_event_id_is_a_conflict(publisher: Publisher, stored: Stored) -> None:
    """An event id of another event is a conflict with its index; nothing of the batch is stored."""
    await publisher.publish_many(tenant_id="acme", events=numbered(5, 5))
    other = Event(event_type=PAID, data={"id": 6}, event_id="e5")
    with pytest.raises(Conflict, match=r"^events\[1\]: ") as caught:
        await publisher.publish_many(tenant_id="acme", events=[*numbered(1, 1), other])

    assert ("event_id", 1, 1) == (caught.value.field, caught.value.index, await stored.count())


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


@pytest.mark.req("DEL-22")
async def test_held_deliveries_are_not_rung(publisher: Publisher, stored: Stored) -> None:
    """Deliveries for a disabled endpoint are returned and not rung."""
    await stored.endpoint()
    await stored.pool.execute(
        "UPDATE hookseal.endpoints SET enabled = false WHERE id = (SELECT min(id::text)::uuid FROM hookseal.endpoints)"
    )
    published = await publisher.publish_many(tenant_id="acme", events=numbered(1, 5))
    rows = await stored.pool.fetch("SELECT id::text AS id FROM hookseal.deliveries WHERE waiting_for IS NULL")

    assert (10, 5) == (len(all_ids(published)), len(rows))
    assert {row["id"] for row in rows} == await stored.rung()


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

    assert [True] == ["hookseal.publish_many" in each for each in asked if "hookseal" in each]
    assert (1, 401) == (after["evalsha"] - before["evalsha"], after["zadd"] - before["zadd"])


async def _commands(redis: Redis) -> dict[str, int]:
    stats: dict[str, Any] = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}


@pytest.mark.req("DEL-01")
async def test_concurrent_batches_create_each_event_once(publisher: Publisher, stored: Stored) -> None:
    """Concurrent batches with the same events, in any order, create each event once and return the same results."""
    batches = [numbered(1, 40), numbered(1, 40)[::-1], numbered(21, 60), numbered(21, 60)[::-1]] * 5
    published = await asyncio.gather(*(publisher.publish_many(tenant_id="acme", events=batch) for batch in batches))
    answers: dict[str, set[tuple[Ring, ...]]] = {}
    for each in published:
        for one in each.events:
            answers.setdefault(one.event_id, set()).add(one.deliveries)

    assert 60 == sum(not one.duplicate for each in published for one in each.events)
    assert [1] * 60 == [len(each) for each in answers.values()]
    assert 60 == await stored.count() == await stored.count("deliveries")


async def test_a_closed_publisher_refuses(database_url: str) -> None:
    """A closed Publisher refuses."""
    async with Publisher.connect(database_url) as publisher:
        pass
    with pytest.raises(Refused, match="closed"):
        await publisher.publish_many(tenant_id="acme", events=numbered(1, 1))
