"""Publishing from Python: what is stored, what is rung, what is refused."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from hookseal import Event, Published, Publisher
from hookseal.errors import Conflict, Malformed
from hookseal.ground.wire import MAX_BODY_BYTES
from tests.admin.refusals import refused_field
from tests.client.stored import Stored, ids

EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid"}
ENVELOPE_BYTES = len('{"type":"invoice.paid","timestamp":"2026-01-31T12:00:00.000Z","data":}')


@pytest.mark.req("DEL-01")
async def test_an_event_is_stored_and_rung(publisher: Publisher, stored: Stored) -> None:
    """There is a delivery for each endpoint that subscribes, each is rung, and the ids are returned."""
    await stored.endpoint()
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    published = await publisher.publish(
        **EVENT, data={"id": 1}, event_id="evt-1", correlation_id="order-7", traceparent=traceparent
    )

    assert ("evt-1", False, 2) == (published.event_id, published.duplicate, len(published.deliveries))
    assert ids(published.deliveries) == await stored.delivery_ids() == await stored.rung()
    row = await stored.pool.fetchrow("SELECT correlation_id, traceparent FROM hookseal.events")
    assert row is not None
    assert ("order-7", traceparent) == tuple(row)


_IS_MARKED = "SELECT rung_at = created_at AS marked FROM hookseal.deliveries WHERE event_id = $1"


async def test_the_outbox_leaves_to_it_what_it_rings(publisher: Publisher, stored: Stored) -> None:
    """What it commits and rings by itself is marked as rung; what the caller is to ring is not."""
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
    await stored.pool.execute(
        "UPDATE hookseal.endpoints SET enabled = false WHERE id = (SELECT min(id::text)::uuid FROM hookseal.endpoints)"
    )
    published = await publisher.publish(**EVENT, data=1, event_id="evt-1")
    due = await stored.pool.fetchval("SELECT id::text FROM hookseal.deliveries WHERE waiting_for IS NULL")

    assert 2 == len(published.deliveries)
    assert {due} == set(await stored.rung())
    marked = await stored.pool.fetch("SELECT id::text FROM hookseal.deliveries WHERE rung_at IS NOT NULL")
    assert [due] == [row["id"] for row in marked]
    await stored.pool.execute(
        "UPDATE hookseal.deliveries SET state = 'delivered', next_attempt_at = NULL WHERE waiting_for IS NULL"
    )
    assert () == (await publisher.publish(**EVENT, data=1, event_id="evt-1"))._due


@pytest.mark.req("DEL-01")
@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"z": 1, "a": {"c": [1, 2.5, None], "b": True}}, '{"z":1,"a":{"c":[1,2.5,null],"b":true}}'),
        ({"name": "Zoë \U0001f680"}, '{"name":"Zoë \U0001f680"}'),
        (None, "null"),
        ("text", '"text"'),
        (2**70, str(2**70)),
        (((1, "a"), [2]), '[[1,"a"],[2]]'),
    ],
)
async def test_data_is_any_json_value(publisher: Publisher, stored: Stored, data: object, text: str) -> None:
    """Data may be any JSON value, and its keys keep their order."""
    published = await publisher.publish(**EVENT, data=data)
    body = (await stored.body(published.event_id)).decode()

    assert body.endswith(f',"data":{text}}}')
    assert {"type", "timestamp", "data"} == json.loads(body).keys()


@pytest.mark.req("DEL-01")
async def test_a_body_is_stored_byte_for_byte(publisher: Publisher, stored: Stored) -> None:
    """A body is stored byte for byte."""
    for body in (b"\xff\xfe\x00binary", b""):
        assert body == await stored.body((await publisher.publish(**EVENT, body=body)).event_id)


@pytest.mark.req("DEL-01")
async def test_an_event_without_subscribers_is_stored(publisher: Publisher, stored: Stored) -> None:
    """An event without subscribers is stored, has no deliveries, and rings nothing."""
    published = await publisher.publish(tenant_id="never-seen", event_type="a", data={})
    await published.ring()

    assert ((), 1, set()) == (published.deliveries, await stored.count(), await stored.rung())


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({}, "data"),
    ({"data": 1, "body": b"1"}, "data"),
    ({"data": None, "body": b"1"}, "data"),
    ({"data": object()}, "data"),
    ({"data": {"a": [1, "\ud800"]}}, "data"),
    ({"data": 1, "tenant_id": "_system"}, "tenant_id"),
    ({"data": 1, "event_type": "invoice paid"}, "event_type"),
    ({"data": 1, "event_id": "a b"}, "event_id"),
    ({"data": 1, "event_id": "x" * 129}, "event_id"),
    ({"data": 1, "correlation_id": "a\r\nX: y"}, "correlation_id"),
    ({"data": 1, "correlation_id": "\ud800"}, "correlation_id"),
    ({"data": 1, "correlation_id": "x" * 129}, "correlation_id"),
    ({"data": 1, "traceparent": "\x00"}, "traceparent"),
    ({"data": 1, "traceparent": "nonsense"}, "traceparent"),
]


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_a_malformed_argument_is_named(publisher: Publisher, stored: Stored) -> None:
    """A malformed argument is refused by its name, and nothing is stored."""
    assert MALFORMED == [(given, await refused_field(publisher.publish(**(EVENT | given)))) for given, _ in MALFORMED]
    assert 0 == await stored.count()


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("tenant_id", 7, "int"),
        ("tenant_id", None, "NoneType"),
        ("event_type", None, "NoneType"),
        ("event_type", b"invoice.paid", "bytes"),
        ("event_id", UUID(int=5), "UUID"),
        ("event_id", 0, "int"),
        ("correlation_id", 5, "int"),
        ("traceparent", [], "list"),
    ],
)
async def test_a_value_of_another_type_is_named(
    publisher: Publisher, stored: Stored, field: str, value: object, kind: str
) -> None:
    """An argument that must be text and is not is refused with its name and type, alone and in a batch."""
    given = EVENT | {"data": 1, field: value}
    with pytest.raises(Malformed, match=f"^{field} must be text, not {kind}$") as alone:
        await publisher.publish(**given)
    with pytest.raises(Malformed, match=f"{field} must be text, not {kind}$") as in_batch:
        await publisher.publish_many(tenant_id=given.pop("tenant_id"), events=[Event(**given)])

    assert [field] * 2 == [caught.value.field for caught in (alone, in_batch)]
    assert (None if field == "tenant_id" else 0, 0) == (in_batch.value.index, await stored.count())


async def test_data_that_contains_itself_is_refused(publisher: Publisher) -> None:
    """Data that contains itself is refused with the path."""
    data: list[object] = []
    data.append(data)
    with pytest.raises(Malformed, match=r"^data\[0\] is the object or array that contains it"):
        await publisher.publish(**EVENT, data=data)


@pytest.mark.req("DEL-14", part="publish-limits")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "must be a finite number"),
        (float("-inf"), "must be a finite number"),
        (Decimal("1.10"), "is of type Decimal, which JSON does not have: give str(value)"),
        (b"bytes", "is of type bytes, which JSON does not have: give text"),
        ({1, 2}, "is of type set, which JSON does not have: give a list"),
        (datetime(2026, 1, 2, tzinfo=UTC), "is of type datetime, which JSON does not have: give value.isoformat()"),
        ({1: "a"}, "has a key of type int"),
        ("\ud800", "contains a lone surrogate"),
    ],
    ids=["nan", "infinity", "decimal", "bytes", "set", "datetime", "key", "surrogate"],
)
async def test_a_value_without_json_form_is_refused(
    publisher: Publisher, stored: Stored, value: object, message: str
) -> None:
    """A value that JSON does not have is refused with its path and an alternative; nothing is stored."""
    data = {"items": [{"price": 1}, {"price": value}]}
    with pytest.raises(Malformed) as caught:
        await publisher.publish(**EVENT, data=data)

    assert ("data", True) == (caught.value.field, str(caught.value).startswith(f"data.items[1].price {message}"))
    assert 0 == await stored.count()


async def test_a_body_must_be_bytes(publisher: Publisher, stored: Stored) -> None:
    """A body must be bytes: text is refused, not published as data."""
    body: Any = '{"id": 1}'
    with pytest.raises(Malformed) as caught:
        await publisher.publish(**EVENT, body=body)

    assert ("body", 0) == (caught.value.field, await stored.count())


@pytest.mark.req("DEL-14", part="publish-limits")
async def test_the_size_of_a_body_is_limited(publisher: Publisher, stored: Stored) -> None:
    """A body of 262,144 bytes as sent is accepted and one byte more is not, for a body and for data."""
    most = MAX_BODY_BYTES - ENVELOPE_BYTES - len('""')
    for fits in ({"body": b"x" * MAX_BODY_BYTES}, {"data": "x" * most}):
        published = await publisher.publish(**EVENT, **fits)
        assert MAX_BODY_BYTES == len(await stored.body(published.event_id))
    for too_long in ({"body": b"x" * (MAX_BODY_BYTES + 1)}, {"data": "x" * (most + 1)}):
        with pytest.raises(Malformed, match=str(MAX_BODY_BYTES)) as caught:
            await publisher.publish(**EVENT, **too_long)
        assert "body" == caught.value.field
    assert 2 == await stored.count()


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
    """200 concurrent publishes of one event create one event, which one of them reports, over five connections."""
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
