"""Checks many events of one call before PostgreSQL is asked."""

from collections.abc import Iterable
from dataclasses import dataclass

from hookseal.client.event import UNSET, encode_payload, event
from hookseal.dispatcher import publish as stored
from hookseal.ground.errors import Malformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One of many events: its fields are arguments of `Publisher.publish`."""

    event_type: str
    data: object = UNSET
    body: bytes | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


def encode_batch(tenant_id: str, events: Iterable[Event]) -> list[str]:
    """Return the argument of `dispatcher.publish.publish_many`.

    Raises `Malformed` with the index of the faulty event.
    """
    return stored.batch(_checked(tenant_id, index, each) for index, each in enumerate(events))


def _checked(tenant_id: str, index: int, given: object) -> tuple[stored.Event, str | bytes]:
    if not isinstance(given, Event):
        kind = type(given).__name__
        raise Malformed(f"events[{index}] must be an Event, not {kind}: pass Event(...)", field="events", index=index)
    try:
        content = encode_payload(given.data, given.body)
        checked = event(
            tenant_id=tenant_id,
            event_type=given.event_type,
            event_id=given.event_id,
            correlation_id=given.correlation_id,
            traceparent=given.traceparent,
        )
    except Malformed as error:
        raise Malformed(f"events[{index}]: {error}", field=error.field, index=index) from None
    return checked, content
