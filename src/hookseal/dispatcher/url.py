"""May this url be an endpoint's? Rules over its text, without I/O; addresses are checked again at the dial.

A host is a name or an address in its plain spelling, and nothing that two parsers may read differently: what some of
them take for an address in disguise (decimal, octal, hexadecimal, short, percent-encoded) has no other use.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from hookseal.dispatcher.address import Networks, loopback_allowed, refusal
from hookseal.ground.errors import Malformed, Refused
from hookseal.ground.wire import MAX_URL_CHARACTERS

_MAX_NAME_CHARACTERS: Final = 253
_MAX_PORT: Final = 65_535
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")  # WHATWG URL, "ends in a number checker"
_LOCAL: Final = ("localhost", "localhost.localdomain")  # RFC 6761, 6.3: loopback, whoever resolves it


def url_problem(url: str, *, allow_http: bool) -> str | None:
    """Return what is wrong with an endpoint's url, as the end of a sentence; None if nothing is."""
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
        return "holds credentials: they would be stored and logged in the clear"
    return _authority_problem(parts.netloc) or _policy_problem(parts, allow_http=allow_http)


def _authority_problem(authority: str) -> str | None:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return "must name a host of letters, digits, '.', '-' and '_', or an address, and at most a port"
    host, port = found.groups()
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


def endpoint_url(url: str, *, allow_http: bool, allowed: Networks) -> str:
    """Return the url if an endpoint may have it.

    Raises `Malformed`, or `Refused` for http where it is not allowed and for what is known already to be an address
    that may not be dialled: a literal one, and the name of the machine itself.
    """
    problem = url_problem(url, allow_http=allow_http)
    if problem is not None:
        refused = url_problem(url, allow_http=True) is None
        raise (Refused if refused else Malformed)(f"url {problem}", field="url")
    host = urlsplit(url).hostname or ""
    forbidden = _forbidden(host, allowed)
    if forbidden is not None:
        raise Refused(f"url names an address that may not be dialled ({forbidden})", field="url")
    return url


def _forbidden(host: str, allowed: Networks) -> str | None:
    try:
        ip_address(host)
    except ValueError:
        name = host.removesuffix(".")
        is_local = name in _LOCAL or name.endswith(".localhost")
        return "loopback, RFC 6761" if is_local and not loopback_allowed(allowed) else None
    return refusal(host, allowed)
