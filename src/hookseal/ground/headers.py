"""Which headers an endpoint may add to its requests, and what their values may be. Pure.

Source of the grammar: RFC 9110, 5.1 (a name is a token) and 5.5 (visible ASCII, spaces and tabs inside a value).
"""

import re
from collections.abc import Mapping
from typing import Final

from hookseal.ground.errors import Malformed

MAX_HEADERS: Final = 20
MAX_NAME_CHARACTERS: Final = 64
MAX_VALUE_CHARACTERS: Final = 4_096
MAX_ALL_CHARACTERS: Final = 16_384

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "user-agent", "accept", "accept-encoding", "expect"}
    | {"x-tenant-id", "x-correlation-id"}
)
# RFC 9110, 7.6.1, and what RFC 2616, 13.5.1 called hop-by-hop: they speak of the connection, not of the request.
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)
_TRACING: Final = frozenset({"traceparent", "tracestate", "baggage", "b3", "sentry-trace", "uber-trace-id"})
_PROTECTED: Final = _OURS | _HOP_BY_HOP | _TRACING
_PROTECTED_PREFIXES: Final = ("webhook-", "x-webhook-", "x-hookseal-", "x-b3-")


def header_name(text: str) -> str:
    """Return the name in lower case, as it is kept and sent.

    Raises `Malformed` unless it is a token of at most 64 characters that hookseal does not set itself.
    """
    name = text.lower()
    # What was given, not its lower case: that of the Kelvin sign is a plain k.
    if not (len(text) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(text)):
        raise Malformed(
            f"a header name must be 1 to {MAX_NAME_CHARACTERS} letters, digits and !#$%&'*+.^_`|~-", field="header"
        )
    # Receivers behind CGI or WSGI cannot tell `_` from `-`: for them it is the same header.
    if (spelled := name.replace("_", "-")) in _PROTECTED or spelled.startswith(_PROTECTED_PREFIXES):
        raise Malformed(f"header {name} is set by hookseal, or by the connection: leave it out", field="header")
    return name


def require_headers(headers: Mapping[str, str]) -> None:
    """Return only if these may be sent: names as `header_name` gives them, values visible, all within the limits.

    Raises `Malformed`, which names a header and never its value.
    """
    if len(headers) > MAX_HEADERS:
        raise Malformed(f"an endpoint has at most {MAX_HEADERS} headers", field="header")
    for name, value in headers.items():
        if header_name(name) != name:
            raise Malformed(f"header {name} must be in lower case here", field="header")
        _require_value(name, value)
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_ALL_CHARACTERS:
        raise Malformed(f"the headers of an endpoint have at most {MAX_ALL_CHARACTERS} characters", field="header")


def _require_value(name: str, value: str) -> None:
    if not (len(value) <= MAX_VALUE_CHARACTERS and _VALUE.fullmatch(value)):
        raise Malformed(
            f"the value of header {name} must be 1 to {MAX_VALUE_CHARACTERS} visible ASCII characters, with spaces "
            "and tabs only between them",
            field="header",
        )
