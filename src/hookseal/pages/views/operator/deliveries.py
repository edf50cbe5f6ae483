"""Endpoints, deliveries and events of every tenant: why a delivery waits, and what an operator does about it."""

from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

from hookseal.admin import Delivery, DeliveryDetails, Trouble
from hookseal.admin import Page as ListPage
from hookseal.api import problems
from hookseal.api.paging import SEARCHED
from hookseal.errors import Conflict, NotFound, Refused
from hookseal.ground.ids import EVERY_TENANT
from hookseal.pages import rendering
from hookseal.pages.page import Asked, Moved, Shown, act, listed, read
from hookseal.pages.views.deliveries import body_text
from hookseal.pages.views.operator.overview import TENANT, TROUBLES

MOST_ATTEMPTS: Final = 20  # the newest
MOST_ANSWER_BYTES: Final = 4_096  # as HTML: 2 KiB of usual text
_DELIVERY: Final = TENANT + "/delivery/{delivery_id}"
_EVENT: Final = TENANT + "/event/{event_id}"
_FIELDS: Final = ("tenant", "endpoint", "state", "type", "since", "until")
_FILTERS: Final = frozenset({"tenant_id", "endpoint_id", "event_type", "states", "since", "until", "cursor"})


async def endpoints(asked: Asked) -> Shown:
    """Show endpoints of one tenant or all, those in one state, in trouble (`state=trouble`), or all of them."""
    chosen: dict[str, Any] = {name: asked.query.text(name) for name in ("state", "tenant")}  # any text: it is checked
    state = chosen["state"]
    states = {"": None, "trouble": [*TROUBLES]}.get(state, [state])
    found = partial(asked.admin.endpoints.list, tenant_id=chosen["tenant"] or EVERY_TENANT, states=states)
    values = await listed(asked, found, chosen=chosen, fields=_FILTERS)
    return Shown(template="operator/endpoints.html", values={**values, "states": ["trouble", *Trouble]})


async def deliveries(asked: Asked) -> Shown:
    """Show the deliveries of one tenant or all that a state, a type, a time or an endpoint selects, newest first."""
    query = asked.query
    chosen: dict[str, Any] = {name: query.text(name) for name in _FIELDS}  # the same

    def found(**place: Any) -> Awaitable[ListPage[Delivery]]:
        return asked.admin.deliveries.list(
            tenant_id=chosen["tenant"] or EVERY_TENANT,
            endpoint_id=chosen["endpoint"] or None,
            event_type=chosen["type"] or None,
            states=[chosen["state"]] if chosen["state"] else None,
            since=query.moment("since", asked.look.zone),
            until=query.moment("until", asked.look.zone),
            searched=SEARCHED,
            **place,
        )

    values = await listed(asked, found, chosen=chosen, fields=_FILTERS)
    return Shown(template="operator/deliveries.html", values=values)


def _delivery(asked: Asked) -> dict[str, Any]:
    return {"tenant_id": asked.path["tenant_id"], "delivery_id": asked.path["delivery_id"]}


async def delivery(asked: Asked) -> Shown:
    """Show a delivery: why it stands where it does, and each attempt."""
    found = await asked.admin.deliveries.get(**_delivery(asked))
    why = await asked.admin.deliveries.why(**_delivery(asked))
    try:
        endpoint = await asked.admin.endpoints.find(tenant_id=found.tenant_id, endpoint_id=found.endpoint_id)
    except NotFound:
        endpoint = None
    values: dict[str, Any] = {
        "delivery": found,
        "why": why,
        "endpoint": endpoint,
        "attempts": [
            (each, *rendering.fitting(each.snippet or "", MOST_ANSWER_BYTES))
            for each in found.attempt_log[-MOST_ATTEMPTS:][::-1]
        ],
        "is_all": len(found.attempt_log) <= MOST_ATTEMPTS,
        "stops": endpoint is not None and endpoint.stopped_by == found.delivery_id,
        "may_be_sent": _may_be_sent(found, is_enabled=endpoint is not None and endpoint.enabled),
    }
    return Shown(template="operator/delivery.html", values=values)


def _may_be_sent(found: DeliveryDetails, *, is_enabled: bool) -> bool:
    return is_enabled and found.state != "sending"


async def replay(asked: Asked) -> Moved:
    """Send a delivery again, or one that waits for its time now."""
    try:
        await asked.admin.deliveries.replay(**_delivery(asked), actor=asked.access.actor)
    except (Conflict, Refused) as error:
        raise problems.conflict(str(error)) from None
    return Moved(to=asked.link("operator.delivery", {"done": "resent"}, **_delivery(asked)))


async def skip(asked: Asked) -> Moved:
    """Let the endpoint go on behind a delivery that was given up and stops it."""
    try:
        await asked.admin.deliveries.skip(**_delivery(asked), actor=asked.access.actor)
    except Conflict as error:
        raise problems.conflict(str(error)) from None
    return Moved(to=asked.link("operator.delivery", {"done": "skipped"}, **_delivery(asked)))


async def event(asked: Asked) -> Shown:
    """Show an event with its deliveries, without its payload."""
    return await _event(asked, None)


async def payload(asked: Asked) -> Shown:
    """Show an event with its payload, which the audit log records."""
    content = await asked.admin.events.payload(
        tenant_id=asked.path["tenant_id"], event_id=asked.path["event_id"], actor=asked.access.actor
    )
    return await _event(asked, content)


async def _event(asked: Asked, content: bytes | None) -> Shown:
    found = await asked.admin.events.get(tenant_id=asked.path["tenant_id"], event_id=asked.path["event_id"])
    text, is_whole = (None, True) if content is None else body_text(content)
    values = {
        "event": found,
        "deliveries": found.deliveries[:100],
        "are_all": len(found.deliveries) <= 100,  # noqa: PLR2004 -- of a thousand at most
        "body": text,
        "body_is_whole": is_whole,
    }
    return Shown(template="operator/event.html", values=values)


PAGES: Final = (
    read(".endpoints", "/endpoints", endpoints),
    read(".deliveries", "/deliveries", deliveries),
    read(".delivery", _DELIVERY, delivery),
    act(".delivery.replay", _DELIVERY + "/replay", replay),
    act(".delivery.skip", _DELIVERY + "/skip", skip),
    read(".event", _EVENT, event),
    act(".event.payload", _EVENT + "/payload", payload),
)
