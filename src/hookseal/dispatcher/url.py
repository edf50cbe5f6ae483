"""Checks whether an endpoint may have a url. Pure rules over the text; addresses are checked again when dialled.

A host is a name, or an address in its usual notation. Other notations of addresses (decimal, octal, hexadecimal, short,
percent-encoded) are refused, because parsers read them differently.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from hookseal.dispatcher.address import Networks, loopback_allowed, refusal
from hookseal.ground.errors import Malformed, Refused
from hookseal.ground.wire import MAX_URL_CHARACTERS

# Why a delivery waits that is not sent because of its endpoint's url alone.
PLAIN_HTTP: Final = (
    "the endpoint's url is http, and the worker may send only to https: give the endpoint an https url, or, outside of "
    "production, the workers HOOKSEAL_ALLOW_HTTP=true"
)
_MAX_NAME_CHARACTERS: Final = 253
_URLS_REMEMBERED: Final = 1_024  # each delivery checks the url of its endpoint
_MAX_PORT: Final = 65_535
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")  # WHATWG URL, "ends in a number checker"
_LOCAL: Final = ("localhost", "localhost.localdomain")  # RFC 6761, 6.3: always loopback


@lru_cache(maxsize=_URLS_REMEMBERED)
def url_problem(url: str, *, allow_http: bool) -> str | None:
    """Return what is wrong with an endpoint's url, as the end of a sentence; None if it is valid."""
    if len(url) > MAX_URL_CHARACTERS:
        return f"is longer than {MAX_URL_CHARACTERS} characters"
    if not all("!" <= character <= "~" for character in url):
        return "holds a space, a control or a non-ASCII character: encode it"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "cannot be parsed"
    if parts.scheme not in {"https", "http"} or not parts.netloc:
        return "must be https://host[:port]/path"
    if "@" in parts.netloc:
        return "holds credentials, which would be stored and logged in the clear: send them in a header of the endpoint"
    return _authority_problem(parts.netloc) or _policy_problem(parts, allow_http=allow_http)


def _authority_problem(authority: str) -> str | None:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return "must name a host of letters, digits, '.', '-' and '_', or an address, and at most a port"
    host, port = match.groups()
    if port is not None and not 0 < int(port) <= _MAX_PORT:
        return "has a port that is not from 1 to 65535"
    if host.startswith("["):
        return None if _is_address(host[1:-1], IPv6Address) else "has an address in brackets that is not IPv6"
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return None if _is_address(host, IPv4Address) else "has an address in another spelling than a.b.c.d"
    if len(host) > _MAX_NAME_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        return "has a host that is no name: labels of 1 to 63 letters, digits, '-' and '_', 253 characters in all"
    return None


def _is_address(text: str, kind: type[IPv4Address] | type[IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _policy_problem(parts: SplitResult, *, allow_http: bool) -> str | None:
    if parts.fragment:
        return "has a fragment, which is never sent"
    if parts.scheme == "http" and not allow_http:
        return "is http: only https is delivered to (HOOKSEAL_ALLOW_HTTP=true permits http outside production)"
    return None


def is_plain_http(url: str) -> bool:
    """Return whether the url would be valid if http were allowed, and is not because it is http."""
    return url_problem(url, allow_http=True) is None and url_problem(url, allow_http=False) is not None


def endpoint_url(url: str, *, allow_http: bool, allowed: Networks) -> str:
    """Return the url if an endpoint may have it.

    Raises `Malformed`. Raises `Refused` for http where it is not allowed, and for a host that is a forbidden address or
    a name of this machine.
    """
    problem = url_problem(url, allow_http=allow_http)
    if problem is not None:
        raise (Refused if is_plain_http(url) else Malformed)(f"url {problem}", field="url")
    host = urlsplit(url).hostname or ""
    forbidden = _forbidden(host, allowed)
    if forbidden is not None:
        raise Refused(
            f"url names an address that may not be dialled ({forbidden}): HOOKSEAL_EGRESS_ALLOW says which may",
            field="url",
        )
    return url


def _forbidden(host: str, allowed: Networks) -> str | None:
    try:
        ip_address(host)
    except ValueError:
        name = host.removesuffix(".")
        is_local = name in _LOCAL or name.endswith(".localhost")
        return "loopback, RFC 6761" if is_local and not loopback_allowed(allowed) else None
    return refusal(host, allowed)
