"""Deliveries: an event for one endpoint, under the id that receivers see as `webhook-id`, and why one waits."""

from datetime import datetime
from typing import Any, Final

import msgspec

from hookseal.admin import Attempt, Delivery, DeliveryDetails, DeliveryState
from hookseal.api import problems
from hookseal.api.call import OWN, Asked, Call, NoQuery, Once, Out, operate, read
from hookseal.api.calls.attempts import AttemptOut
from hookseal.api.calls.attempts import shown as attempt_of
from hookseal.api.calls.endpoints import found_id
from hookseal.api.forms import Channel, EventId, EventType
from hookseal.api.paging import SEARCHED, ListOut, Moment, OfDeliveries, Paged, end_of, following, one_way
from hookseal.ground.ids import encode_cursor

_ALL: Final = OWN + "/delivery"
_ONE: Final = _ALL + "/{delivery_id}"


class DeliveryOut(Out):
    """Where a delivery stands, in the words of docs/lifecycle.md.

    `lastError` says why its last attempt failed, or why it waits for something else than its time (`waitingFor`).
    """

    id: str
    msg_id: str
    endpoint_id: str
    event_type: str
    state: str
    attempts: int
    last_error: str | None
    waiting_for: str | None
    next_attempt_at: datetime | None
    replay_of: str | None
    created_at: datetime


class DeliveryDetailsOut(DeliveryOut):
    """A delivery with each of its attempts, the oldest first."""

    attempt_log: list[AttemptOut]


class Deliveries(Paged):
    """Which deliveries a list has."""

    iterator: OfDeliveries | None = None
    endpoint_id: str | None = msgspec.field(name="endpoint_id", default=None)
    msg_id: EventId | None = msgspec.field(name="msg_id", default=None)
    event_type: EventType | None = msgspec.field(name="event_type", default=None)
    channel: Channel | None = None
    states: list[DeliveryState] | None = None
    before: Moment | None = None
    after: Moment | None = None


class WhyOut(Out):
    """Where a delivery stands, what it waits for (docs/lifecycle.md), and since when.

    `attempts` is how many there were, and `lastError` why the last one failed, or why it is held.
    """

    delivery_id: str
    state: str
    waiting_for: str | None
    since: datetime | None
    attempts: int
    last_error: str | None
    next_attempt_at: datetime | None


class SkippedOut(Out):
    """A delivery that no longer stops its ordered endpoint."""

    delivery_id: str
    endpoint_id: str
    state: str


def _shown(delivery: Delivery) -> DeliveryOut:
    return DeliveryOut(
        id=delivery.delivery_id,
        msg_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        event_type=delivery.event_type,
        state=delivery.state,
        attempts=delivery.attempts,
        last_error=problems.stored_text(delivery.last_error),
        waiting_for=delivery.waiting_for,
        next_attempt_at=delivery.next_attempt_at if delivery.waiting_for is None else None,
        replay_of=delivery.replay_of,
        created_at=delivery.created_at,
    )


def _attempts(delivery: DeliveryDetails) -> list[AttemptOut]:
    return [
        attempt_of(
            Attempt(
                **{name: getattr(each, name) for name in each.__dataclass_fields__},
                tenant_id=delivery.tenant_id,
                attempt_id=f"{delivery.delivery_id}.{each.number}",
                delivery_id=delivery.delivery_id,
                endpoint_id=delivery.endpoint_id,
                event_id=delivery.event_id,
                event_type=delivery.event_type,
            )
        )
        for each in delivery.attempt_log
    ]


async def listing(asked: Asked[Deliveries, None]) -> ListOut[DeliveryOut]:
    """List the deliveries of an application, the newest first."""
    query = asked.query
    after = following(query.iterator)
    page = await asked.admin.deliveries.list(
        tenant_id=asked.tenant,
        endpoint_id=None if query.endpoint_id is None else await found_id(asked, query.endpoint_id),
        event_id=query.msg_id,
        event_type=query.event_type,
        channel=query.channel,
        states=query.states,
        since=query.after,
        until=query.before,
        searched=SEARCHED,
        limit=query.limit,
        cursor=None if after is None else encode_cursor(after),
    )
    deliveries = [_shown(each) for each in page.items]
    return one_way(deliveries, [each.id for each in deliveries], done=page.next_cursor is None, end=end_of(page))


async def get(asked: Asked[NoQuery, None]) -> DeliveryDetailsOut:
    """Return a delivery, by the `webhook-id` that its receiver saw, with each of its attempts."""
    found = await asked.admin.deliveries.get(tenant_id=asked.tenant, delivery_id=asked.path["delivery_id"])
    own = _shown(found)
    return DeliveryDetailsOut(
        **{name: getattr(own, name) for name in own.__struct_fields__}, attempt_log=_attempts(found)
    )


async def why(asked: Asked[NoQuery, None]) -> WhyOut:
    """Explain where a delivery stands."""
    delivery_id = asked.path["delivery_id"]
    found = await asked.admin.deliveries.why(tenant_id=asked.tenant, delivery_id=delivery_id)
    return WhyOut(
        delivery_id=delivery_id,
        state=found.state,
        waiting_for=found.waiting_for,
        since=found.since,
        attempts=found.attempts,
        last_error=problems.stored_text(found.last_error),
        next_attempt_at=found.next_attempt_at,
    )


async def skip(asked: Asked[NoQuery, None]) -> SkippedOut:
    """Let an ordered endpoint go on behind a delivery that was given up and stops it."""
    skipped = await asked.admin.deliveries.skip(
        tenant_id=asked.tenant, delivery_id=asked.path["delivery_id"], actor=asked.access.actor
    )
    return SkippedOut(delivery_id=skipped.delivery_id, endpoint_id=skipped.endpoint_id, state=skipped.state)


async def skipped(asked: Asked[Any, Any], delivery_id: str) -> SkippedOut:
    """Return a delivery that an earlier request has skipped. Raises `NotFound`."""
    delivery = await asked.admin.deliveries.get(tenant_id=asked.tenant, delivery_id=delivery_id)
    return SkippedOut(delivery_id=delivery_id, endpoint_id=delivery.endpoint_id, state=delivery.state)


CALLS: Final[tuple[Call, ...]] = (
    read(
        *("hookseal.delivery.list", _ALL, listing),
        query=Deliveries,
        result=ListOut[DeliveryOut],
        names={"cursor": "iterator", "since": "after", "until": "before", "event_id": "msg_id"},
    ),
    read("hookseal.delivery.get", _ONE, get, result=DeliveryDetailsOut),
    read("hookseal.why", _ONE + "/why", why, result=WhyOut),
    operate(
        *("hookseal.skip", _ONE + "/skip", skip),
        result=SkippedOut,
        once=Once(result_id="delivery_id", again=skipped),
    ),
)
