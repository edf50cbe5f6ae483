"""May this url be an endpoint's? Rules over its text, without I/O; addresses are checked at the dial."""

from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from hookseal.dispatcher.address import refusal
from hookseal.ground.errors import Malformed, Refused
from hookseal.ground.wire import MAX_URL_CHARACTERS


def url_problem(url: str, *, allow_http: bool) -> str | None:
    """Return what is wrong with an endpoint's url, as the end of a sentence; None if nothing is."""
    if len(url) > MAX_URL_CHARACTERS:
        return f"is longer than {MAX_URL_CHARACTERS} characters"
    if not all("!" <= character <= "~" for character in url):
        return "holds a space, a control or a non-ASCII character: encode it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "cannot be parsed"
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        return "must be https://host[:port]/path"
    if port == 0:
        return "has port 0"
    return _policy_problem(parts, allow_http=allow_http)


def _policy_problem(parts: SplitResult, *, allow_http: bool) -> str | None:
    if parts.username is not None or parts.password is not None:
        return "holds credentials: they would be stored and logged in the clear"
    if parts.fragment:
        return "has a fragment, which is never sent"
    if parts.scheme == "http" and not allow_http:
        return "is http: only https is delivered to (HOOKSEAL_ALLOW_HTTP=true permits http outside production)"
    return None


def endpoint_url(url: str, *, allow_http: bool, allowed: frozenset[IPv4Network | IPv6Network]) -> str:
    """Return the url if an endpoint may have it.

    Raises `Malformed`, or `Refused` for http where it is not allowed and for a literal address that
    may not be dialled.
    """
    problem = url_problem(url, allow_http=allow_http)
    if problem is not None:
        refused = url_problem(url, allow_http=True) is None
        raise (Refused if refused else Malformed)(f"url {problem}", field="url")
    host = urlsplit(url).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return url
    forbidden = refusal(host, allowed)
    if forbidden is not None:
        raise Refused(
            f"url names an address that may not be dialled ({forbidden}): HOOKSEAL_EGRESS_ALLOW says which may",
            field="url",
        )
    return url
