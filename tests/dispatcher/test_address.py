"""Which addresses may be dialled (vectors: the special-purpose registries, and known bypasses of other programs)."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork, loopback_allowed, refusal
from hookseal.ground.ids import TenantId

REFUSED = [
    *("10.254.0.0", "192.168.10.65", "172.16.10.65", "172.31.255.255", "0.1.2.3", "0.0.0.0"),  # noqa: S104 -- refused
    *("127.0.0.1", "127.254.254.254", "169.254.45.1", "169.254.169.254", "255.255.255.255", "240.240.240.240"),
    *("224.1.2.3", "239.255.255.255", "192.0.0.0", "192.0.0.9", "192.0.0.10", "192.0.2.255", "198.51.100.65"),
    *("203.0.113.6", "100.64.0.1", "100.100.0.0", "100.127.255.255", "192.88.99.3", "198.18.0.0", "198.19.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:0.0.0.1", "::ffff:8.8.8.8"),
    *("2001:db8::1", "3fff::dead:beef", "fe80::", "fe80::1%eth0", "febf:ffff::", "fc00::1", "fd7a:115c:a1e0::1"),
    *("fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1", "2002:c000:0204::", "2002:c0a8:0001::", "2002:808:808::"),
    *("64:ff9b::c0a8:0", "64:ff9b::808:808", "64:ff9b:1::", "2001::1", "2001:0:4136::1", "2001:20::1", "5f00::1"),
    *("100::1", "4000::1"),
    *("192.31.196.1", "192.52.193.1", "192.175.48.1", "2620:4f:8000::1", "2001:4:112::1", "100:0:0:1::1", "3ffe::1"),
    *("::ffff:0:127.0.0.1", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:10.0.0.1", "fdff:ffff::1", "ff02::1"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.0", "2001:4860:4860::8888", "2606:4700::1111"]


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize("address", REFUSED)
def test_special_addresses_are_refused(address: str) -> None:
    """A special-purpose or multicast address, or one that embeds another address, is refused with a reason."""
    assert refusal(address, frozenset())


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    """A globally routable address may be dialled."""
    assert refusal(address, frozenset()) is None


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.1.1.1 "])
def test_only_standard_forms_are_addresses(text: str) -> None:
    """A text that is not an address in its standard form is refused, so it never reaches a socket."""
    assert "not an IP address" == refusal(text, frozenset())


@pytest.mark.req("DEL-12")
def test_an_allowed_network_may_be_dialled() -> None:
    """An address in an allowed network may be dialled, but not in the IPv6 form that embeds it."""
    loopback = frozenset({ip_network("127.0.0.0/8")})

    assert refusal("127.9.9.9", loopback) is None
    assert refusal("::ffff:127.0.0.1", loopback)
    assert refusal("10.0.0.1", loopback)


@pytest.mark.req("DEL-12")
def test_a_network_is_allowed_for_one_tenant() -> None:
    """A network that is allowed for one tenant is not allowed for another; one without a tenant is allowed for all."""
    everyone, acme_only, globex_only = map(ip_network, ("10.0.0.0/8", "127.0.0.0/8", "192.168.0.0/16"))
    allowed = [(everyone, None), (acme_only, TenantId("acme")), (globex_only, TenantId("globex"))]
    rules = AddressRules(tuple(AllowedNetwork(network=network, tenant=tenant) for network, tenant in allowed))

    assert {everyone, acme_only} == rules.networks_for(TenantId("acme"))
    assert {everyone, globex_only} == rules.networks_for(TenantId("globex"))
    assert {everyone} == rules.networks_for(TenantId("other"))


@pytest.mark.req("DEL-12")
@given(st.ip_addresses())
def test_addresses_that_python_calls_private_are_refused(address: object) -> None:
    """Every address that Python calls private, loopback, link-local, multicast or unspecified is refused."""
    ip = ip_address(str(address))
    special = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast
    if special:
        assert refusal(str(ip), frozenset())


# IANA, IPv4 and IPv6 Special-Purpose Address Space, as of 2025-10-09: every entry with its RFC.
REGISTRY = {
    "0.0.0.0/8": 791,
    "10.0.0.0/8": 1918,
    "100.64.0.0/10": 6598,
    "127.0.0.0/8": 1122,
    "169.254.0.0/16": 3927,
    "172.16.0.0/12": 1918,
    "192.0.0.0/24": 6890,
    "192.0.2.0/24": 5737,
    "192.31.196.0/24": 7535,
    "192.52.193.0/24": 7450,
    "192.88.99.0/24": 7526,
    "192.168.0.0/16": 1918,
    "192.175.48.0/24": 7534,
    "198.18.0.0/15": 2544,
    "198.51.100.0/24": 5737,
    "203.0.113.0/24": 5737,
    "240.0.0.0/4": 1112,
    "255.255.255.255/32": 919,
    "::1/128": 4291,
    "::/128": 4291,
    "::ffff:0:0/96": 4291,
    "64:ff9b::/96": 6052,
    "64:ff9b:1::/48": 8215,
    "100::/64": 6666,
    "100:0:0:1::/64": 9780,
    "2001::/32": 4380,
    "2001:1::1/128": 7723,
    "2001:1::2/128": 8155,
    "2001:1::3/128": 9665,
    "2001:2::/48": 5180,
    "2001:3::/32": 7450,
    "2001:4:112::/48": 7535,
    "2001:10::/28": 4843,
    "2001:20::/28": 7343,
    "2001:30::/28": 9374,
    "2001::/23": 2928,
    "2001:db8::/32": 3849,
    "2002::/16": 3056,
    "2620:4f:8000::/48": 7534,
    "3fff::/20": 9637,
    "5f00::/16": 9602,
    "fc00::/7": 4193,
    "fe80::/10": 4291,
}


@pytest.mark.req("DEL-12")
@given(st.data(), st.sampled_from(sorted(REGISTRY)))
def test_every_registered_address_is_refused(data: st.DataObject, entry: str) -> None:
    """Every address of every registry entry is refused; the RFC in the reason is that of an entry that covers it."""
    network = ip_network(entry)
    last = int(network.broadcast_address)
    offsets = st.sampled_from([int(network.network_address), last]) | st.integers(int(network.network_address), last)
    address = ip_address(data.draw(offsets)) if network.version == 4 else IPv6Address(data.draw(offsets))
    reason = refusal(str(address), frozenset())

    assert reason is not None
    covering = {f"RFC {rfc}" for name, rfc in REGISTRY.items() if address in ip_network(name)}
    assert reason.rpartition(", ")[2] in covering


@pytest.mark.req("DEL-12")
@given(st.integers(0, 2**32 - 1))
def test_embedded_addresses_are_refused(number: int) -> None:
    """An IPv4 address, private or public, is refused in every IPv6 form that embeds it."""
    for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "2606:4700::5efe:0:0", "2606:4700::200:5efe:0:0"):
        assert refusal(str(IPv6Address(int(IPv6Address(prefix)) + number)), frozenset())
    assert refusal(str(IPv6Address((0x2002 << 112) + (number << 80) + 1)), frozenset())
    assert refusal(str(IPv6Address((0x2001_0000 << 96) + (number ^ 0xFFFF_FFFF))), frozenset())


@pytest.mark.req("DEL-12")
@given(st.ip_addresses(v=6))
def test_every_spelling_of_an_address_has_one_answer(address: IPv6Address) -> None:
    """The answer for an IPv6 address does not depend on its spelling: full, short or in capitals."""
    answers = {refusal(text, frozenset()) for text in (str(address), address.exploded, address.exploded.upper())}

    assert 1 == len(answers)


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ((), False),
        (("10.0.0.0/8", "2001:db8::/32"), False),
        (("127.0.0.1/32",), True),
        (("0.0.0.0/0",), True),
        (("::1/128",), True),
    ],
)
def test_loopback_counts_as_allowed_if_one_address_is(allowed: tuple[str, ...], expected: bool) -> None:
    """Loopback counts as allowed if any loopback address is allowed."""
    assert expected is loopback_allowed(frozenset(map(ip_network, allowed)))
