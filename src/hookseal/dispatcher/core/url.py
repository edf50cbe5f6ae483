"""Checks whether an endpoint may have a url. Pure rules over the text; addresses are checked again when dialled.

A host is a name, or an address in its usual notation. Other notations of addresses (decimal, octal, hexadecimal, short,
percent-encoded) are refused, because parsers read them differently.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from hookseal.errors import Malformed, Refused
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import MAX_URL_CHARACTERS

Address = IPv4Address | IPv6Address
Networks = frozenset[IPv4Network | IPv6Network]

# The first network that contains an address gives the reason. Sources: every entry of the IANA IPv4 and IPv6
# Special-Purpose Address Space; multicast; networks that older RFCs reserved and later ones released.
_REFUSED_V4: Final = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this network, RFC 791"),
        ("10.0.0.0/8", "private, RFC 1918"),
        ("100.64.0.0/10", "shared by a carrier, RFC 6598"),
        ("127.0.0.0/8", "loopback, RFC 1122"),
        ("169.254.0.0/16", "link-local, RFC 3927"),
        ("172.16.0.0/12", "private, RFC 1918"),
        ("192.0.0.0/24", "IETF protocols, RFC 6890"),
        ("192.0.2.0/24", "documentation, RFC 5737"),
        ("192.31.196.0/24", "AS112, RFC 7535"),
        ("192.52.193.0/24", "multicast tunnelling, RFC 7450"),
        ("192.88.99.0/24", "6to4 relays, RFC 7526"),
        ("192.168.0.0/16", "private, RFC 1918"),
        ("192.175.48.0/24", "AS112, RFC 7534"),
        ("198.18.0.0/15", "benchmarks, RFC 2544"),
        ("198.51.100.0/24", "documentation, RFC 5737"),
        ("203.0.113.0/24", "documentation, RFC 5737"),
        ("224.0.0.0/4", "multicast, RFC 5771"),
        ("255.255.255.255/32", "broadcast, RFC 919"),
        ("240.0.0.0/4", "reserved, RFC 1112"),
    )
)
_GLOBAL_UNICAST_V6: Final = IPv6Network("2000::/3")  # RFC 4291, 2.4: nothing else is routed globally
_REFUSED_V6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "unspecified, RFC 4291"),
        ("::1/128", "loopback, RFC 4291"),
        ("::ffff:0:0/96", "IPv4-mapped, RFC 4291"),
        ("::ffff:0:0:0/96", "IPv4-translated, RFC 2765"),
        ("::/96", "IPv4-compatible, RFC 4291"),
        ("64:ff9b::/96", "NAT64, which wraps another address, RFC 6052"),
        ("64:ff9b:1::/48", "NAT64 of a network's own, RFC 8215"),
        ("100::/64", "discarded, RFC 6666"),
        ("100:0:0:1::/64", "a dummy prefix, RFC 9780"),
        ("2001::/32", "Teredo, which wraps another address, RFC 4380"),
        ("2001:1::1/128", "port control anycast, RFC 7723"),
        ("2001:1::2/128", "TURN anycast, RFC 8155"),
        ("2001:1::3/128", "service registration anycast, RFC 9665"),
        ("2001:2::/48", "benchmarks, RFC 5180"),
        ("2001:3::/32", "multicast tunnelling, RFC 7450"),
        ("2001:4:112::/48", "AS112, RFC 7535"),
        ("2001:10::/28", "ORCHID, RFC 4843"),
        ("2001:20::/28", "ORCHIDv2, RFC 7343"),
        ("2001:30::/28", "drone remote ids, RFC 9374"),
        ("2001::/23", "IETF protocols, RFC 2928"),
        ("2001:db8::/32", "documentation, RFC 3849"),
        ("2002::/16", "6to4, which wraps another address, RFC 3056"),
        ("2620:4f:8000::/48", "AS112, RFC 7534"),
        ("3ffe::/16", "6bone, given back, RFC 3701"),
        ("3fff::/20", "documentation, RFC 9637"),
        ("5f00::/16", "segment routing, RFC 9602"),
        ("fc00::/7", "unique local, RFC 4193"),
        ("fe80::/10", "link-local, RFC 4291"),
        ("fec0::/10", "site-local, RFC 3879"),
        ("ff00::/8", "multicast, RFC 4291"),
    )
)
# RFC 5214, 6.1: an interface identifier of ISATAP contains an IPv4 address, after any prefix.
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedNetwork:
    """A network that may be dialled although it is not public: for one tenant, or for all (None)."""

    network: IPv4Network | IPv6Network
    tenant: TenantId | None


@dataclass(frozen=True, slots=True)
class AddressRules:
    """The rules of one installation: public addresses, and the networks that the operator allows in addition."""

    allowed: tuple[AllowedNetwork, ...] = ()
    _networks: Mapping[TenantId | None, Networks] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        networks = {
            tenant: frozenset(rule.network for rule in self.allowed if rule.tenant in {None, tenant})
            for tenant in {None, *(rule.tenant for rule in self.allowed)}
        }
        object.__setattr__(self, "_networks", networks)  # computed once, because every request needs them

    def networks_for(self, tenant: TenantId) -> Networks:
        """Return the networks that the operator allows this tenant besides the public ones."""
        return self._networks.get(tenant, self._networks[None])


def refusal(address: str, allowed: Networks) -> str | None:
    """Return why this address must not be dialled, None if it may be. It is the text that the socket gets.

    An allowed network is compared with the address itself, never with an address that it contains.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return "not an IP address"
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        return "has a zone"
    if any(ip in network for network in allowed):
        return None
    return _not_public(ip)


def loopback_allowed(allowed: Networks) -> bool:
    """Return whether any loopback address may be dialled."""
    return any(
        network.version == loopback.version and network.overlaps(loopback)
        for network in allowed
        for loopback in _LOOPBACK
    )


def _not_public(ip: Address) -> str | None:
    if isinstance(ip, IPv4Address):
        return next((reason for network, reason in _REFUSED_V4 if ip in network), None)
    if (reason := next((reason for network, reason in _REFUSED_V6 if ip in network), None)) is not None:
        return reason
    if ip not in _GLOBAL_UNICAST_V6:
        return "not global unicast, RFC 4291"
    if int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return "ISATAP, which wraps another address, RFC 5214"
    return None


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
        return f"must be {'https:// or http://' if allow_http else 'https://'}host[:port]/path"
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
        return "is http, and only https is delivered to"
    return None


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a valid url, each in one spelling: what decides who gets its requests.

    Names have only ASCII characters (`xn--...` for others), and differ with a dot at their end.
    """
    parts = urlsplit(url)
    host, default = parts.hostname or "", {"https": 443, "http": 80}.get(parts.scheme)
    with suppress(ValueError):
        host = str(ip_address(host))
    return parts.scheme, host, parts.port or default


def is_plain_http(url: str) -> bool:
    """Return whether the url would be valid if http were allowed, and is not because it is http."""
    return url_problem(url, allow_http=True) is None and url_problem(url, allow_http=False) is not None


def endpoint_url(url: str, *, allow_http: bool, allowed: Networks) -> str:
    """Return the url if an endpoint may have it.

    Raises `Malformed`. Raises `Refused` for http where it is not allowed, and for a host that is a forbidden address or
    a name of this machine.
    """
    problem = url_problem(url, allow_http=allow_http)
    if problem is not None and is_plain_http(url):
        raise Refused(f"url {problem}", field="url", advice="HOOKSEAL_ALLOW_HTTP=true permits http outside production")
    if problem is not None:
        raise Malformed(f"url {problem}", field="url")
    host = urlsplit(url).hostname or ""
    forbidden = _forbidden(host, allowed)
    if forbidden is not None:
        raise Refused(
            f"url names an address that may not be dialled ({forbidden})",
            field="url",
            advice="HOOKSEAL_EGRESS_ALLOW says which may",
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
