"""Attempts: each request of a message to an endpoint, and what came back."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from hookseal.admin import Attempt, AttemptResult, DeliveryState, Page
from hookseal.api import problems
from hookseal.api.call import APP, Asked, Call, In, NoQuery, Out, derived_id, operate, read
from hookseal.api.calls.endpoints import EndpointOut, found, found_id
from hookseal.api.calls.endpoints import shown as endpoint_of
from hookseal.api.calls.messages import NOTHING, MessageOut, number_of_fitting, payloads_of
from hookseal.api.calls.messages import shown as message_of
from hookseal.api.forms import Channel, EventType
from hookseal.api.paging import (
    SEARCHED,
    ListOut,
    Moment,
    OfAttempts,
    OfDeliveries,
    Paged,
    end_of,
    following,
    listed,
    one_way,
    position,
)
from hookseal.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import encode_cursor

SUCCESS: Final = 0
PENDING: Final = 1
FAIL: Final = 2
SENDING: Final = 3
CANCELED: Final = 4
STATUS_TEXTS: Final = ("success", "pending", "fail", "sending", "canceled")
# An attempt that is on record has ended.
_OUTCOMES: Final[Mapping[int, AttemptResult]] = {SUCCESS: "delivered", FAIL: "failed"}
_ATTEMPT_NAMES: Final = {"after": "iterator", "before": "iterator", "since": "after", "until": "before"}
_DELIVERY_NAMES: Final = {"cursor": "iterator", "since": "after", "until": "before", "event_type": "event_types"}
Status = Literal[0, 1, 2, 3, 4]
StatusClass = Annotated[int, msgspec.Meta(ge=0, le=500, multiple_of=100)]


class AttemptOut(Out):
    """An attempt. `triggerType` is 1 if an operator caused it; `url` is "" if it is not known any more.

    `response` is the beginning of the answer; without an answer it is the outcome, in the words of docs/outcomes.md.
    """

    id: str
    msg_id: str
    endpoint_id: str
    url: str
    response: str
    response_status_code: int
    response_duration_ms: int
    status: int
    status_text: str
    trigger_type: int
    timestamp: datetime


class Empty(Out):
    """Nothing: it was done."""


class _Attempts(Paged):
    """Which attempts a list has."""

    iterator: OfAttempts | None = None
    status: Status | None = None
    status_code_class: StatusClass | None = msgspec.field(name="status_code_class", default=None)
    before: Moment | None = None
    after: Moment | None = None
    channel: Channel | None = None
    event_types: list[EventType] | None = msgspec.field(name="event_types", default=None)
    with_content: bool = msgspec.field(name="with_content", default=True)
    with_msg: bool = msgspec.field(name="with_msg", default=False)
    expanded_statuses: bool = msgspec.field(name="expanded_statuses", default=False)


class AttemptsOfEndpoint(_Attempts):
    """Which attempts of an endpoint a list has."""


class AttemptsOfMessage(_Attempts):
    """Which attempts of a message a list has."""

    endpoint_id: str | None = msgspec.field(name="endpoint_id", default=None)


class OneAttempt(In):
    """What clients send with each request for an attempt: no attempt is canceled, so it changes nothing."""

    expanded_statuses: bool = msgspec.field(name="expanded_statuses", default=False)


def shown(attempt: Attempt, *, with_content: bool = True) -> AttemptOut:
    """Return an attempt as Svix shows it."""
    status = SUCCESS if attempt.outcome == "delivered" else FAIL
    answer = attempt.outcome if attempt.status is None else attempt.snippet or ""
    return AttemptOut(
        id=attempt.attempt_id,
        msg_id=attempt.event_id,
        endpoint_id=attempt.endpoint_id,
        url=attempt.url or "",
        response=answer if with_content else "",
        response_status_code=attempt.status or 0,
        response_duration_ms=attempt.duration_ms or 0,
        status=status,
        status_text=STATUS_TEXTS[status],
        trigger_type=int(attempt.manual),
        timestamp=attempt.started_at,
    )


async def of_endpoint(asked: Asked[AttemptsOfEndpoint, None]) -> ListOut[AttemptOut]:
    """List the attempts of an endpoint, the newest first."""
    endpoint = await found(asked)
    return await _listed(asked, asked.query, endpoint_id=endpoint.endpoint_id, event_id=None)


async def of_message(asked: Asked[AttemptsOfMessage, None]) -> ListOut[AttemptOut]:
    """List the attempts of a message, or of a message to one endpoint, the newest first."""
    event_id, named = asked.path["msg_id"], asked.query.endpoint_id
    await asked.admin.events.find(tenant_id=asked.tenant, event_id=event_id)
    endpoint_id = None if named is None else await found_id(asked, named)
    return await _listed(asked, asked.query, endpoint_id=endpoint_id, event_id=event_id)


async def _listed(
    asked: Asked[AttemptsOfEndpoint, None] | Asked[AttemptsOfMessage, None],
    query: _Attempts,
    *,
    endpoint_id: str | None,
    event_id: str | None,
) -> ListOut[AttemptOut]:
    if query.with_msg:
        raise problems.invalid(("query", "with_msg"), "is not supported: get the message", "not_supported")
    after, before = position(query.iterator)
    if query.status is not None and query.status not in _OUTCOMES:
        page: Page[Attempt] = Page(items=(), next_cursor=None)
    else:
        page = await asked.admin.attempts.list(
            tenant_id=asked.tenant,
            endpoint_id=endpoint_id,
            event_id=event_id,
            event_types=query.event_types,
            channel=query.channel,
            outcome=None if query.status is None else _OUTCOMES[query.status],
            status_class=None if query.status_code_class is None else query.status_code_class // 100,
            since=query.after,
            until=query.before,
            searched=SEARCHED,
            limit=query.limit,
            after=after,
            before=before,
        )
    attempts = [shown(each, with_content=query.with_content) for each in page.items]
    return listed(attempts, [each.id for each in attempts], done=page.next_cursor is None, end=end_of(page))


async def get(asked: Asked[OneAttempt, None]) -> AttemptOut:
    """Return an attempt of a message."""
    attempt = await asked.admin.attempts.get(tenant_id=asked.tenant, attempt_id=asked.path["attempt_id"])
    if attempt.event_id != asked.path["msg_id"]:
        raise NotFound
    return shown(attempt)


class Attempted(Paged):
    """Which messages to an endpoint a list has."""

    iterator: OfDeliveries | None = None
    status: Status | None = None
    before: Moment | None = None
    after: Moment | None = None
    channel: Channel | None = None
    event_types: list[EventType] | None = msgspec.field(name="event_types", default=None)
    with_content: bool = msgspec.field(name="with_content", default=True)
    expanded_statuses: bool = msgspec.field(name="expanded_statuses", default=False)


class OfOneMessage(Paged):
    """Which endpoints of a message a list has."""

    iterator: OfDeliveries | None = None


class EndpointMessageOut(MessageOut):
    """A message to an endpoint, and where it stands there."""

    status: int
    status_text: str
    next_attempt: datetime | None


class MessageEndpointOut(EndpointOut):
    """An endpoint of a message, and where the message stands there."""

    status: int = PENDING
    status_text: str = STATUS_TEXTS[PENDING]
    next_attempt: datetime | None = None


async def messages(asked: Asked[Attempted, None]) -> ListOut[EndpointMessageOut]:
    """List the messages to an endpoint, the newest first, each with where it stands. The iterators are deliveries.

    With payloads a page may end before its `limit`, with an iterator: it has at most 4 MB.
    """
    query, endpoint_id = asked.query, await found_id(asked)
    types = query.event_types or []
    if len(types) > 1:
        raise problems.invalid(("query", "event_types"), "may have one type in this list", "not_supported")
    after = following(query.iterator)
    states = None if query.status is None else _states(query.status, expanded=query.expanded_statuses)
    if states == []:
        return one_way([], [], done=True)
    page = await asked.admin.deliveries.list(
        tenant_id=asked.tenant,
        endpoint_id=endpoint_id,
        event_type=types[0] if types else None,
        channel=query.channel,
        states=states,
        since=query.after,
        until=query.before,
        searched=SEARCHED,
        limit=query.limit,
        cursor=None if after is None else encode_cursor(after),
    )
    ids = [each.event_id for each in page.items]
    events = await asked.admin.events.find_all(tenant_id=asked.tenant, event_ids=ids) if ids else {}
    payloads = await payloads_of(asked, ids) if query.with_content else {}
    items = page.items[: number_of_fitting(ids, payloads)]
    shown_messages = []
    for each in items:
        if each.event_id not in events:  # retention has removed it meanwhile
            continue
        message = message_of(events[each.event_id], payloads.get(each.event_id, NOTHING))
        status = _status(each.state, expanded=query.expanded_statuses)
        shown_messages.append(
            EndpointMessageOut(
                **{name: getattr(message, name) for name in message.__struct_fields__},
                status=status,
                status_text=STATUS_TEXTS[status],
                next_attempt=each.next_attempt_at,
            )
        )
    is_cut = len(items) < len(page.items)
    end = None if is_cut else end_of(page)
    return one_way(shown_messages, [each.delivery_id for each in items], done=end is None and not is_cut, end=end)


async def endpoints(asked: Asked[OfOneMessage, None]) -> ListOut[MessageEndpointOut]:
    """List the endpoints of a message, each with where the message stands. The iterators are deliveries."""
    event = await asked.admin.events.find(tenant_id=asked.tenant, event_id=asked.path["msg_id"])
    after = following(asked.query.iterator)
    page = await asked.admin.deliveries.list(
        tenant_id=asked.tenant,
        event_id=event.event_id,
        limit=asked.query.limit,
        cursor=None if after is None else encode_cursor(after),
    )
    ids = [each.endpoint_id for each in page.items]
    existing = await asked.admin.endpoints.find_all(tenant_id=asked.tenant, endpoint_ids=ids) if ids else {}
    listed_endpoints = []
    for each in page.items:
        if each.endpoint_id in existing:
            endpoint = endpoint_of(existing[each.endpoint_id])
            status = _status(each.state, expanded=True)
            listed_endpoints.append(
                MessageEndpointOut(
                    **{name: getattr(endpoint, name) for name in endpoint.__struct_fields__},
                    status=status,
                    status_text=STATUS_TEXTS[status],
                    next_attempt=each.next_attempt_at,
                )
            )
    return one_way(listed_endpoints, [each.delivery_id for each in page.items], done=page.next_cursor is None)


_STATUSES: Final[Mapping[DeliveryState, int]] = {
    "delivered": SUCCESS,
    "pending": PENDING,
    "dead_letter": FAIL,
    "failed": FAIL,
    "sending": SENDING,
    "cancelled": CANCELED,
}


def _status(state: DeliveryState, *, expanded: bool) -> int:
    """Return the status of a state. A client that does not know `canceled` sees a failure."""
    status = _STATUSES[state]
    return FAIL if status == CANCELED and not expanded else status


def _states(status: int, *, expanded: bool) -> list[DeliveryState]:
    return [state for state in _STATUSES if _status(state, expanded=expanded) == status]


async def resend(asked: Asked[NoQuery, None]) -> Empty:
    """Send a message to an endpoint again, with a new budget of attempts; one that waits is sent at once.

    The same `Idempotency-Key` sends it once.
    """
    try:
        await asked.admin.deliveries.resend(
            tenant_id=asked.tenant,
            event_id=asked.path["msg_id"],
            endpoint_id=await found_id(asked),
            resend_id=None if asked.key is None else derived_id(asked.access, asked.key),
            actor=asked.access.actor,
        )
    except (Conflict, Refused):
        if (await found(asked)).enabled:
            raise
        raise problems.conflict("the endpoint is disabled: enable it first") from None
    return Empty()


CALLS: Final[tuple[Call, ...]] = (
    read(
        "message_attempt.list_by_endpoint",
        APP + "/attempt/endpoint/{endpoint_id}",
        of_endpoint,
        query=AttemptsOfEndpoint,
        result=ListOut[AttemptOut],
        names=_ATTEMPT_NAMES,
    ),
    read(
        "message_attempt.list_by_msg",
        APP + "/attempt/msg/{msg_id}",
        of_message,
        query=AttemptsOfMessage,
        result=ListOut[AttemptOut],
        names=_ATTEMPT_NAMES,
    ),
    read(
        "message_attempt.get",
        APP + "/msg/{msg_id}/attempt/{attempt_id}",
        get,
        query=OneAttempt,
        result=AttemptOut,
    ),
    read(
        "message_attempt.list_attempted_messages",
        APP + "/endpoint/{endpoint_id}/msg",
        messages,
        query=Attempted,
        result=ListOut[EndpointMessageOut],
        names=_DELIVERY_NAMES,
    ),
    read(
        "message_attempt.list_attempted_destinations",
        APP + "/msg/{msg_id}/endpoint",
        endpoints,
        query=OfOneMessage,
        result=ListOut[MessageEndpointOut],
        names=_DELIVERY_NAMES,
    ),
    operate(
        "message_attempt.resend",
        APP + "/msg/{msg_id}/endpoint/{endpoint_id}/resend",
        resend,
        result=Empty,
        status=202,
    ),
)
