"""Deliveries: what was sent to the endpoints of a customer, every attempt of it, and the form that sends it again."""

from collections.abc import Awaitable, Mapping
from typing import Any, Final

from hookseal.admin import Delivery, DeliveryDetails, Scope
from hookseal.admin import Page as ListPage
from hookseal.api import problems
from hookseal.api.paging import SEARCHED
from hookseal.errors import Conflict, NotFound, Refused
from hookseal.ground.wire import Scheme
from hookseal.pages import rendering, words
from hookseal.pages.page import Asked, Moved, Shown, act, listed, read
from hookseal.pages.views.secrets import version_of

_MOST_BODY_BYTES: Final = 65_536
MOST_ATTEMPTS: Final = 12  # of a page: each may have 2 KiB of an answer
MOST_ANSWER_BYTES: Final = 5_000  # as HTML
ONE: Final = "/delivery/{delivery_id}"
_ALWAYS: Final = ("content-type", "user-agent", "x-hookseal-attempt", "x-hookseal-event-id")
SIGNATURES: Final[Mapping[str, tuple[str, ...]]] = {
    Scheme.STANDARD: ("webhook-id", "webhook-timestamp", "webhook-signature"),
    Scheme.SVIX: ("svix-id", "svix-timestamp", "svix-signature"),
    Scheme.X_WEBHOOK: ("x-webhook-delivery-id", "x-webhook-timestamp", "x-webhook-event", "x-webhook-signature"),
}
_OF_A_LATER_VERSION: Final = ("and those of its scheme, which a later version set",)
_FILTERS: Final = frozenset({"event_type", "states", "since", "until", "cursor"})


async def listing(asked: Asked) -> Shown:
    """Show the deliveries that a state, a type, a time or an endpoint selects, the newest first."""
    query = asked.query
    state: Any = query.text("state")  # a form may have any text

    def found(**place: Any) -> Awaitable[ListPage[Delivery]]:
        return asked.admin.deliveries.list(
            tenant_id=asked.tenant,
            endpoint_id=query.text("endpoint") or None,
            event_type=query.text("type") or None,
            states=[state] if state in words.DELIVERY else None,
            since=query.moment("since", asked.look.zone),
            until=query.moment("until", asked.look.zone),
            searched=SEARCHED,
            **place,
        )

    chosen = {name: query.text(name) for name in ("endpoint", "state", "type", "since", "until")}
    values = await listed(asked, found, chosen=chosen, fields=_FILTERS)
    ids = list({each.endpoint_id for each in values["items"]})
    endpoints = await asked.admin.endpoints.find_all(tenant_id=asked.tenant, endpoint_ids=ids) if ids else {}
    return Shown(template="deliveries.html", values={**values, "endpoints": endpoints})


async def show(asked: Asked) -> Shown:
    """Show a delivery with its attempts."""
    return await _shown(asked, await _found(asked))


async def _found(asked: Asked) -> DeliveryDetails:
    return await asked.admin.deliveries.get(tenant_id=asked.tenant, delivery_id=asked.path["delivery_id"])


async def _shown(asked: Asked, delivery: DeliveryDetails, *, body: bytes | None = None) -> Shown:
    try:
        endpoint = await asked.admin.endpoints.get(tenant_id=asked.tenant, endpoint_id=delivery.endpoint_id)
    except NotFound:
        endpoint = None
    text, is_whole = (None, True) if body is None else body_text(body)
    own = () if endpoint is None else endpoint.header_names
    signed = () if endpoint is None else SIGNATURES.get(endpoint.scheme, _OF_A_LATER_VERSION)
    log, last = delivery.attempt_log, asked.query.number("last")
    earlier = [each for each in log if last is None or each.number <= last]
    attempts = earlier[-MOST_ATTEMPTS:][::-1]
    values = {
        "delivery": delivery,
        "endpoint": endpoint,
        "attempts": attempts,
        "answers": {each.number: rendering.fitting(each.snippet or "", MOST_ANSWER_BYTES)[0] for each in attempts},
        "versions": {each.number: [version_of(ref) for ref in each.signed_by] for each in attempts},
        "earlier": attempts[-1].number - 1 if len(earlier) > MOST_ATTEMPTS else None,
        "is_newest": len(earlier) == len(log),
        "header_names": (*_ALWAYS, *signed, *own),
        "body": text,
        "body_is_whole": is_whole,
        "may_be_sent": endpoint is not None and endpoint.enabled,
    }
    return Shown(template="delivery.html", values=values)


def body_text(body: bytes) -> tuple[str, bool]:
    """Return the beginning of a body as text, and whether that is all of it."""
    return rendering.fitting(body.decode("utf-8", errors="replace"), _MOST_BODY_BYTES)


async def body(asked: Asked) -> Shown:
    """Show a delivery with its body, which the audit log records."""
    delivery = await _found(asked)
    content = await asked.admin.events.payload(
        tenant_id=asked.tenant, event_id=delivery.event_id, actor=asked.access.actor
    )
    return await _shown(asked, delivery, body=content)


async def resend(asked: Asked) -> Moved:
    """Send a delivery again; one that waits for its next attempt is sent now."""
    try:
        await asked.admin.deliveries.replay(
            tenant_id=asked.tenant, delivery_id=asked.path["delivery_id"], actor=asked.access.actor
        )
    except Conflict:
        raise problems.conflict("it is on its way already, or waits for its endpoint") from None
    except Refused:
        raise problems.conflict("its endpoint is disabled: enable it first") from None
    return Moved(to=asked.link("delivery", {"done": "resent"}, delivery_id=asked.path["delivery_id"]))


PAGES: Final = (
    read("deliveries", "/deliveries", listing),
    read("delivery", ONE, show),
    act("delivery.body", ONE + "/body", body, Scope.READ),
    act("delivery.resend", ONE + "/resend", resend, Scope.READ, Scope.OPERATE),
)
