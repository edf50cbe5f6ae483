"""Checks the arguments of a publish before the database is asked, so that an error cannot fail a transaction."""

import re
from typing import Final

from hookseal.dispatcher.core.payload import encoded
from hookseal.dispatcher.store.publish import Event
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import MAX_BODY_BYTES

UNSET: Final = object()  # None is valid data, the JSON null
_VISIBLE: Final = re.compile(r"[!-~]{1,128}")


def check_tenant(text: str) -> TenantId:
    """Return the tenant id. Raises `Malformed`, whose field is the argument's name, `tenant_id`."""
    try:
        return ids.tenant_id(_text(text, "tenant_id"))
    except Malformed as error:
        raise Malformed(str(error), field="tenant_id") from None


def event(
    *,
    tenant_id: str,
    event_type: str,
    event_id: str | None = None,
    correlation_id: str | None = None,
    traceparent: str | None = None,
) -> Event:
    """Return the event. Raises `Malformed` with the field."""
    return Event(
        tenant_id=ids.tenant_id(tenant_id),
        event_type=ids.event_type(_text(event_type, "event_type")),
        event_id=None if event_id is None else ids.event_id(_text(event_id, "event_id")),
        correlation_id=_visible(correlation_id, "correlation_id"),
        traceparent=_visible(traceparent, "traceparent"),
    )


def encode_payload(data: object, body: object) -> str | bytes:
    """Return the data as JSON text, or the body. Raises `Malformed` with the field and the path of the faulty value."""
    if (data is UNSET) == (body is None):
        raise Malformed("pass exactly one of data and body", field="data")
    if body is None:
        return encoded(data)
    if not isinstance(body, bytes | bytearray | memoryview):
        raise Malformed("body must be bytes: pass `data` for a payload that is to be sent as JSON", field="body")
    if memoryview(body).nbytes > MAX_BODY_BYTES:
        raise Malformed(f"body must be at most {MAX_BODY_BYTES} bytes as sent", field="body")
    return bytes(body)


def _visible(text: str | None, field: str) -> str | None:
    if text is not None and not _VISIBLE.fullmatch(_text(text, field)):
        raise Malformed(f"{field} must be 1 to 128 visible ASCII characters", field=field)
    return text


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{field} must be text, not {type(value).__name__}", field=field)
    return value
