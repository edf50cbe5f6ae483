"""May this address be dialled? Rules over addresses, without I/O.

Refused is what the IANA special-purpose address registries list as not globally reachable, what is
multicast, and what wraps another address, unless the operator allowed its network. The tables are our
own: Python's `ipaddress` knows other networks in each of its releases.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from hookseal.ground.ids import TenantId

Address = IPv4Address | IPv6Address

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
        ("192.88.99.0/24", "6to4 relays, RFC 7526"),
        ("192.168.0.0/16", "private, RFC 1918"),
        ("198.18.0.0/15", "benchmarks, RFC 2544"),
        ("198.51.100.0/24", "documentation, RFC 5737"),
        ("203.0.113.0/24", "documentation, RFC 5737"),
        ("224.0.0.0/4", "multicast, RFC 5771"),
        ("240.0.0.0/4", "reserved, RFC 1112"),
    )
)
_GLOBAL_UNICAST_V6: Final = IPv6Network("2000::/3")  # RFC 4291, 2.4: nothing else is routed globally
_REFUSED_V6: Final = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("2001::/23", "IETF protocols, Teredo among them, RFC 2928 and RFC 4380"),
        ("2001:db8::/32", "documentation, RFC 3849"),
        ("2002::/16", "6to4, which wraps another address, RFC 3056"),
        ("3fff::/20", "documentation, RFC 9637"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedNetwork:
    """A network that may be dialled although it is not public: for one tenant, or for all (None)."""

    network: IPv4Network | IPv6Network
    tenant: TenantId | None


@dataclass(frozen=True, slots=True)
class AddressRules:
    """The rules of one installation: what is public, and what the operator allows besides."""

    allowed: tuple[AllowedNetwork, ...] = ()

    def networks_for(self, tenant: TenantId) -> frozenset[IPv4Network | IPv6Network]:
        """Return the networks that the operator allows this tenant besides the public ones."""
        return frozenset(rule.network for rule in self.allowed if rule.tenant in {None, tenant})


def refusal(address: str, allowed: frozenset[IPv4Network | IPv6Network]) -> str | None:
    """Return why this address, as the socket will be given it, may not be dialled; None if it may.

    An allowed network is matched against the address itself, never against one that it wraps.
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


def _not_public(ip: Address) -> str | None:
    if isinstance(ip, IPv4Address):
        return next((reason for network, reason in _REFUSED_V4 if ip in network), None)
    if ip not in _GLOBAL_UNICAST_V6:
        return "not global unicast, RFC 4291"
    return next((reason for network, reason in _REFUSED_V6 if ip in network), None)
