"""The wire format: which bytes are signed, and which headers a request has.

Source of the scheme `standard`: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers". The scheme `svix`
has the same signature under the names that Svix sends, for receivers that read these. The scheme `x-webhook` is that of
the system which hookseal replaces, so that its receivers need no change.
"""

import re
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from hookseal.errors import Malformed

MAX_BODY_BYTES: Final = 262_144
MAX_URL_CHARACTERS: Final = 2_048


class Scheme(StrEnum):
    """How a request is signed, and which headers carry the signature."""

    STANDARD = "standard"
    SVIX = "svix"
    X_WEBHOOK = "x-webhook"


class Algorithm(StrEnum):
    """The algorithm that makes a signature."""

    HMAC = "hmac"
    ED25519 = "ed25519"


def signed_content(delivery_id: str, timestamp: int, body: bytes) -> bytes:
    """Return what `standard` and `svix` sign: `{id}.{unix seconds}.{body}`."""
    return b"%b.%d.%b" % (delivery_id.encode("ascii"), timestamp, body)


def standard_headers(delivery_id: str, timestamp: int, signatures: tuple[str, ...]) -> dict[str, str]:
    """Return the three headers of `standard`; the signature by the current secret comes first."""
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def svix_headers(delivery_id: str, timestamp: int, signatures: tuple[str, ...]) -> dict[str, str]:
    """Return the three headers of `svix`: those of `standard` under other names."""
    return {"svix-id": delivery_id, "svix-timestamp": str(timestamp), "svix-signature": " ".join(signatures)}


def x_webhook_content(timestamp: int, body: bytes) -> bytes:
    """Return what `x-webhook` signs: `{unix seconds}.{body}`."""
    return b"%d.%b" % (timestamp, body)


def x_webhook_signatures(signatures: tuple[str, ...], *, lead: str) -> dict[str, str]:
    """Return the signature headers of `x-webhook`, for the current secret or for the current and the previous one.

    Each of two signatures has its own header. The plain header repeats the one that `lead` names, so that a receiver
    which reads only the plain header keeps working.
    """
    current, previous = signatures[0], signatures[-1]
    plain = {"x-webhook-signature": current if lead == "current" else previous}
    if len(signatures) == 1:
        return plain
    return plain | {"x-webhook-signature-current": current, "x-webhook-signature-previous": previous}


def x_webhook_headers(*, tenant_id: str, delivery_id: str, event_type: str, timestamp: int) -> dict[str, str]:
    """Return the headers of `x-webhook` other than the signatures: time, event type, delivery and tenant."""
    return {
        "x-webhook-timestamp": str(timestamp),
        "x-webhook-event": event_type,
        "x-webhook-delivery-id": delivery_id,
        "x-tenant-id": tenant_id,
    }


MAX_HEADERS: Final = 20
MAX_NAME_CHARACTERS: Final = 64
MAX_VALUE_CHARACTERS: Final = 4_096
MAX_ALL_CHARACTERS: Final = 16_384

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
_SET_BY_HOOKSEAL: Final = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "user-agent", "accept", "accept-encoding", "expect"}
    | {"x-tenant-id", "x-correlation-id"}
)
# RFC 9110, 7.6.1, and the hop-by-hop headers of RFC 2616, 13.5.1: they describe the connection, not the request.
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)
_TRACING: Final = frozenset({"traceparent", "tracestate", "baggage", "b3", "sentry-trace", "uber-trace-id"})
_TRACEPARENT: Final = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PROTECTED: Final = _SET_BY_HOOKSEAL | _HOP_BY_HOP | _TRACING
_PROTECTED_PREFIXES: Final = ("webhook-", "svix-", "x-webhook-", "x-hookseal-", "x-b3-")


def is_traceparent(text: str) -> bool:
    """Return whether this is a `traceparent` of W3C Trace Context that names a span."""
    return _TRACEPARENT.fullmatch(text) is not None


def header_name(text: str) -> str:
    """Return the name in lower case, as it is stored and sent.

    Raises `Malformed` unless it is a token of at most 64 characters, and no header that hookseal itself sets.
    """
    name = text.lower()
    # Checks the text as given: the Kelvin sign becomes a plain k in lower case.
    if not (len(text) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(text)):
        raise Malformed(
            f"a header name must be 1 to {MAX_NAME_CHARACTERS} letters, digits and !#$%&'*+.^_`|~-", field="headers"
        )
    # CGI and WSGI do not distinguish `_` from `-` in header names.
    if (dashed := name.replace("_", "-")) in _PROTECTED or dashed.startswith(_PROTECTED_PREFIXES):
        raise Malformed(f"header {name} is set by hookseal, or by the HTTP connection: remove it", field="headers")
    return name


def require_headers(headers: Mapping[str, str]) -> None:
    """Raise `Malformed` unless these headers may be sent, with names as `header_name` returns them.

    The values must be visible and all must be within the limits. The error names a header, never its value.
    """
    if len(headers) > MAX_HEADERS:
        raise Malformed(f"an endpoint may have at most {MAX_HEADERS} headers", field="headers")
    for name, value in headers.items():
        if header_name(name) != name:
            raise Malformed(f"header {name} must be in lower case here", field="headers")
        _require_value(name, value)
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_ALL_CHARACTERS:
        raise Malformed(
            f"the headers of an endpoint may have at most {MAX_ALL_CHARACTERS} characters in total", field="headers"
        )


def _require_value(name: str, value: str) -> None:
    if not (len(value) <= MAX_VALUE_CHARACTERS and _VALUE.fullmatch(value)):
        raise Malformed(
            f"the value of header {name} must be 1 to {MAX_VALUE_CHARACTERS} visible ASCII characters, with spaces "
            "and tabs only between other characters",
            field="headers",
        )


_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")
_ABSENT: Final = b"\xff\xff\xff\xff"  # no part is that long; so an absent part differs from an empty one
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def framed(*parts: bytes | None) -> bytes:
    """Return the number of parts, then each part after its length: different parts give different bytes."""
    pieces = [_COUNT.pack(len(parts))]
    for part in parts:
        if part is None:
            pieces.append(_ABSENT)
        else:
            pieces += (_LENGTH.pack(len(part)), part)
    return b"".join(pieces)


def microseconds(moment: datetime) -> int:
    """Return the whole microseconds since 1970 in UTC. A time without a zone counts as UTC."""
    if moment.tzinfo is None:  # asyncpg returns an infinite timestamp without a zone
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // _MICROSECOND
