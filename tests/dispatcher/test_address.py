"""Which addresses may be dialled (vectors: the special-purpose registries, and what others let through)."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.address import AddressRules, AllowedNetwork, refusal
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
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.0", "2001:4860:4860::8888", "2606:4700::1111"]


@pytest.mark.req("DEL-12", part="dial-check")
@pytest.mark.parametrize("address", REFUSED)
def test_refused(address: str) -> None:
    """What is special, multicast or wraps another address is refused, with a reason."""
    assert refusal(address, frozenset())


@pytest.mark.req("DEL-12", part="dial-check")
@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """What is globally routable may be dialled."""
    assert refusal(address, frozenset()) is None


@pytest.mark.req("DEL-12", part="dial-check")
@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.1.1.1 "])
def test_only_plain_addresses(text: str) -> None:
    """A text that is not an address in its plain spelling is refused: the socket is never given one."""
    assert "not an IP address" == refusal(text, frozenset())


@pytest.mark.req("DEL-12", part="dial-check")
def test_allowed_network() -> None:
    """An allowed network may be dialled, in its own spelling only."""
    loopback = frozenset({ip_network("127.0.0.0/8")})

    assert refusal("127.9.9.9", loopback) is None
    assert refusal("::ffff:127.0.0.1", loopback)
    assert refusal("10.0.0.1", loopback)


@pytest.mark.req("DEL-12", part="dial-check")
def test_allowed_for_one_tenant() -> None:
    """A network allowed for one tenant is not allowed for another; one without a tenant is for all."""
    everyone, acme_only = ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8")
    rules = AddressRules(
        (AllowedNetwork(network=everyone, tenant=None), AllowedNetwork(network=acme_only, tenant=TenantId("acme")))
    )

    assert {everyone, acme_only} == rules.networks_for(TenantId("acme"))
    assert {everyone} == rules.networks_for(TenantId("other"))


@pytest.mark.req("DEL-12", part="dial-check")
@given(st.ip_addresses())
def test_what_python_calls_private_is_refused(address: object) -> None:
    """No address that is private, loopback, link-local, reserved or unspecified is ever let through."""
    ip = ip_address(str(address))
    special = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast
    if special:
        assert refusal(str(ip), frozenset())
