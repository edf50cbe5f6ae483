"""The recording Publisher answers as the real one does, and remembers what was published."""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import pytest

from hookseal import Event, PublishedMany, Publisher
from hookseal.errors import HooksealError
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.postgres.pool import Pool
from hookseal.testing import RecordedEvent, RecordingPublisher
from tests.client.test_publisher import JSON_VALUES, MALFORMED, NO_TEXT, TRACEPARENT
from tests.doubles.clock import FakeClock

pytestmark = pytest.mark.req("UX-03")

EVENT: dict[str, Any] = {"tenant_id": "acme", "event_type": "invoice.paid"}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AROUND = len('{"type":"invoice.paid","timestamp":"2026-03-01T12:00:00.000Z","data":""}')
ONE_CALL: list[dict[str, Any]] = [
    *(given for given, _ in MALFORMED),
    *({"data": 1, field: value} for field, value, _ in NO_TEXT),
    *({"data": data} for data, _ in JSON_VALUES),
    {"data": "x" * (MAX_BODY_BYTES - AROUND)},
    {"data": "x" * (MAX_BODY_BYTES - AROUND + 1)},
    {"body": b"x" * MAX_BODY_BYTES},
    {"body": b"x" * (MAX_BODY_BYTES + 1)},
    {"data": 1, "event_id": "e1", "channels": ["a", "b"]},
    {"data": 1, "event_id": "e1", "channels": ["b", "a"]},
    {"data": 1, "event_id": "e1"},
    {"data": 2, "event_id": "e1", "channels": ["a", "b"]},
    {"body": b"1", "event_id": "e1", "channels": ["a", "b"]},
    {"data": 1, "event_id": "e1", "event_type": "invoice.sent", "channels": ["a", "b"]},
    {"data": 1, "event_id": "e1", "tenant_id": "globex"},
    {"data": {"a": 1, "b": 2}, "event_id": "e2"},
    {"data": {"b": 2, "a": 1}, "event_id": "e2"},
    {"data": 1, "event_id": "e3", "correlation_id": "c", "traceparent": TRACEPARENT, "tracestate": "a=1"},
    {"data": 1, "event_id": "e3"},
    {"data": 1, "connection": object()},
]
MANY: list[list[Any]] = [
    [],
    [Event(event_type="a", data=1), Event(event_type="b", body=b"2")],
    [Event(event_type="a", data=1, event_id="m1"), Event(event_type="a", data=1, event_id="m1")],
    [Event(event_type="a", data=1), Event(event_type="a", data=1, event_id="m2"), Event(event_type="a b", data=1)],
    [Event(event_type="a", data=1, event_id="m2")],
    [Event(event_type="a", data=1, event_id="m3"), Event(event_type="a", data=2, event_id="m3")],
    [Event(event_type="a", data=1), Event(event_type="a", data="x" * MAX_BODY_BYTES)],
    [Event(event_type="a", data=1), Event(event_type="a", data=1, traceparent="nonsense")],
    [Event(event_type="a", data=1)] * 1_001,
    [{"event_type": "a"}],
]


async def _answer(call: Awaitable[Any]) -> tuple[object, ...]:
    """Return what the call answers, or how it is refused; an id that was made is left out."""
    try:
        answer = await call
    except (HooksealError, TypeError) as error:
        return type(error), str(error), getattr(error, "field", None), getattr(error, "index", None)
    each = answer.events if isinstance(answer, PublishedMany) else (answer,)
    return tuple((one.duplicate, one.is_committed, one.deliveries) for one in each)


@pytest.mark.parametrize("joined", [False, True])
async def test_it_answers_as_the_real_one(database_url: str, pool: Pool, joined: bool) -> None:
    """Whatever is passed: the same result or refusal, with the same text, of one event and of many."""
    recording = RecordingPublisher()
    async with Publisher.connect(database_url, "") as real, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        more: dict[str, Any] = {"connection": connection} if joined else {}
        for given in ONE_CALL:
            expected, found = [await _answer(one.publish(**EVENT | more | given)) for one in (real, recording)]
            assert expected == found, given
        for events in MANY:
            many: dict[str, Any] = {"tenant_id": "acme", "events": events, **more}
            expected, found = [await _answer(one.publish_many(**many)) for one in (real, recording)]
            assert expected == found, events
        await transaction.commit()

    stored = await pool.fetch("SELECT tenant_id, event_type, correlation_id, tracestate FROM hookseal.events")
    kept = [(each.tenant_id, each.event_type, each.correlation_id, each.tracestate) for each in recording.published]
    assert sorted(map(repr, map(tuple, stored))) == sorted(map(repr, kept))
    assert {not joined} == {each.is_committed for each in recording.published}


async def test_it_remembers_what_a_receiver_reads() -> None:
    publisher = RecordingPublisher(clock=FakeClock(NOW))
    published = await publisher.publish(**EVENT, data={"lines": (1, 2)}, event_id="e1", channels=["a"])
    await publisher.publish(**EVENT, body=b"\x00", traceparent=TRACEPARENT, tracestate="a=1", correlation_id="c")
    await published.ring()

    json, raw = publisher.published
    assert json == RecordedEvent(
        tenant_id="acme",
        event_type="invoice.paid",
        event_id="e1",
        data={"lines": [1, 2]},
        body=None,
        correlation_id=None,
        traceparent=None,
        tracestate=None,
        channels=("a",),
        occurred_at=NOW,
        is_committed=True,
    )
    assert (None, b"\x00", "c", "a=1") == (raw.data, raw.body, raw.correlation_id, raw.tracestate)
    assert (NOW, False, ()) == (published.occurred_at, published.duplicate, published.deliveries)


async def test_an_application_may_open_it_in_place_of_the_real_one() -> None:
    """Without a server, with the addresses of one."""
    kinds: list[type[Publisher]] = [RecordingPublisher]
    for kind in kinds:
        async with kind.connect("postgresql://nobody@127.0.0.1:1/x", "redis://127.0.0.1:1") as publisher:
            await publisher.publish(**EVENT, data=1)
        assert isinstance(publisher, RecordingPublisher)
        assert [1] == [event.data for event in publisher.published]
