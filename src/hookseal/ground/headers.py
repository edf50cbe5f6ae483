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
_PROTECTED: Final = _SET_BY_HOOKSEAL | _HOP_BY_HOP | _TRACING
_PROTECTED_PREFIXES: Final = ("webhook-", "x-webhook-", "x-hookseal-", "x-b3-")


def header_name(text: str) -> str:
    """Return the name in lower case, as it is stored and sent.

    Raises `Malformed` unless it is a token of at most 64 characters, and no header that hookseal itself sets.
    """
    name = text.lower()
    # Checks the text as given: the Kelvin sign becomes a plain k in lower case.
    if not (len(text) <= MAX_NAME_CHARACTERS and _NAME.fullmatch(text)):
        raise Malformed(
            f"a header name must be 1 to {MAX_NAME_CHARACTERS} letters, digits and !#$%&'*+.^_`|~-", field="header"
        )
    # CGI and WSGI do not distinguish `_` from `-` in header names.
    if (dashed := name.replace("_", "-")) in _PROTECTED or dashed.startswith(_PROTECTED_PREFIXES):
        raise Malformed(f"header {name} is set by hookseal or by the HTTP connection: remove it", field="header")
    return name


def require_headers(headers: Mapping[str, str]) -> None:
    """Raise `Malformed` unless these headers may be sent, with names as `header_name` returns them.

    The values must be visible and all must be within the limits. The error names a header, never its value.
    """
    if len(headers) > MAX_HEADERS:
        raise Malformed(f"an endpoint may have at most {MAX_HEADERS} headers", field="header")
    for name, value in headers.items():
        if header_name(name) != name:
            raise Malformed(f"header {name} must be in lower case here", field="header")
        _require_value(name, value)
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_ALL_CHARACTERS:
        raise Malformed(
            f"the headers of an endpoint may have at most {MAX_ALL_CHARACTERS} characters in total", field="header"
        )


def _require_value(name: str, value: str) -> None:
    if not (len(value) <= MAX_VALUE_CHARACTERS and _VALUE.fullmatch(value)):
        raise Malformed(
            f"the value of header {name} must be 1 to {MAX_VALUE_CHARACTERS} visible ASCII characters, with spaces "
            "and tabs only between other characters",
            field="header",
        )
