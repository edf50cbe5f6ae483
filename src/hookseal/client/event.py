"""What a producer gives, checked before PostgreSQL is asked: its own transaction is not touched by a typing error."""

import re
from typing import Final

from hookseal.dispatcher.publish import Event
from hookseal.ground import ids
from hookseal.ground.errors import Malformed

_VISIBLE: Final = re.compile(r"[!-~]{1,128}")


def event(
    *,
    tenant_id: str,
    event_type: str,
    event_id: str | None = None,
    correlation_id: str | None = None,
    traceparent: str | None = None,
) -> Event:
    """Return the event. Raises `Malformed`, naming the field."""
    return Event(
        tenant_id=ids.tenant_id(tenant_id),
        event_type=ids.event_type(event_type),
        event_id=None if event_id is None else ids.event_id(event_id),
        correlation_id=_visible(correlation_id, "correlation_id"),
        traceparent=_visible(traceparent, "traceparent"),
    )


def _visible(text: str | None, field: str) -> str | None:
    if text is not None and not _VISIBLE.fullmatch(text):
        raise Malformed(f"{field} must be 1 to 128 visible ASCII characters", field=field)
    return text
