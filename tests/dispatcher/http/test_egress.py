"""Where requests may go: urls, addresses and names."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from hookseal.dispatcher.core.model import Failure, FailureKind, Reply
from hookseal.dispatcher.core.url import (
    AddressRules,
    AllowedNetwork,
    endpoint_url,
    loopback_allowed,
    origin,
    refusal,
    url_problem,
)
from hookseal.dispatcher.http import egress_guard
from hookseal.dispatcher.http.egress_guard import Addresses, Guard, LookUps, Names, is_of_this_machine
from hookseal.dispatcher.http.observation import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.errors import HooksealError, Malformed, Refused
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tests.dispatcher.http.test_transport import LOOPBACK, request_to
from tests.doubles.receivers import listening, status
from tests.worker.waiting import eventually

DISGUISED = [
    *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "127.0.0.1.", "0x", "1.2.3.04", "256.1.1.1"),
    *("127.0.0.1%2e", "%31%32%37.0.0.1", "127%2E0%2E0%2E1", "127%E3%80%820.0.1", "a.example%00.b.example"),
    *("[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1]x", "ok@127.0.0.1", "127.0.0.1@1.1.1.1", "1.1.1.1:80@127.0.0.1"),
    *("127.0.0.1\N{IDEOGRAPHIC FULL STOP}", "127\N{IDEOGRAPHIC FULL STOP}0.0.1", "\N{FULLWIDTH DIGIT ONE}.1.1.1"),
    *("\N{CIRCLED DIGIT ONE}27.0.0.1", "127.0.0.1\\@a.example", "a.example;127.0.0.1", "1.1.1.1 127.0.0.1"),
]
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
HERE_ONLY = AddressRules((AllowedNetwork(network=ip_network("127.0.0.1/32"), tenant=None),))
FORBIDDEN = Failure(
    kind=FailureKind.FORBIDDEN_ADDRESS, detail="the name resolves only to addresses that may not be dialled"
)


@pytest.mark.parametrize(
    "url",
    [
        *("https://a.example", "https://a.example:8443/x?y=z", "https://1.1.1.1/", "https://[2606:4700::1111]/"),
        *("HTTPS://A.Example:443/", "https://a.example./", "https://a_b.example/", "https://xn--bcher-kva.example/"),
        *("https://1.a.example/", "https://a-b.0x7f.example/", "https://a.example?x=@y", "https://a:1"),
    ],
)
def test_https_urls_are_accepted_unchanged(url: str) -> None:
    assert url == endpoint_url(url, allow_http=False, allowed=frozenset())


@pytest.mark.req("DEL-14", part="publish-limits")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "//a.example/",
        "ftp://a.example/",
        "https://",
        "https:///x",
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a.example:x/",
        "https://[::1",
        "https://a.example:",
        "https://a.example:+443/",
        "https://a..example/",
        "https://.a.example/",
        "https://-a.example/",
        "https://a.example../",
        "https://a,b.example/",
        "https://a.example\\.b.example/",
        "https://" + "a" * 64 + ".example/",
        "https://" + ".".join(["abcdefgh"] * 29) + "/",
        "https://[v1.x]/",
        "https://[1.1.1.1]/",
        "https://a.example/a b",
        "https://a.example/\r\nX: y",
        "https://a.example/\x00",
        "https://é.example/",
        "https://a.example/" + "x" * 2048,
    ],
)
def test_another_form_is_malformed(url: str) -> None:
    """A URL that is not of the form https://host[:port]/path is malformed."""
    with pytest.raises(Malformed) as caught:
        endpoint_url(url, allow_http=True, allowed=frozenset())

    assert "url" == caught.value.field


@pytest.mark.parametrize(
    "url", ["https://user:pass@a.example/", "https://user@a.example/", "https://@a.example/", "https://a.example/#x"]
)
def test_credentials_and_fragments_are_malformed(url: str) -> None:
    """Credentials, which would be stored unencrypted, and fragments, never sent, are malformed, and not repeated."""
    with pytest.raises(Malformed) as caught:
        endpoint_url(url, allow_http=True, allowed=frozenset())

    assert "pass@" not in str(caught.value)


def test_http_is_accepted_only_where_allowed() -> None:
    with pytest.raises(Refused):
        endpoint_url("http://a.example/", allow_http=False, allowed=frozenset())

    assert endpoint_url("http://a.example/", allow_http=True, allowed=frozenset())


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "10.0.0.1", "[::ffff:169.254.169.254]"),
        *("localhost", "LOCALHOST", "localhost.", "a.localhost", "localhost.localdomain", "[fd00:ec2::254]"),
    ],
)
def test_a_forbidden_literal_is_refused(host: str) -> None:
    with pytest.raises(Refused):
        endpoint_url(f"https://{host}/", allow_http=False, allowed=frozenset())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_allowed_literal_is_accepted(host: str) -> None:
    assert endpoint_url(f"https://{host}/", allow_http=False, allowed=frozenset({ip_network("127.0.0.0/8")}))


@pytest.mark.req("DEL-12")
def test_a_disguised_address_is_refused() -> None:
    """An address in any but its standard form is refused when the endpoint is added, whatever is allowed."""
    everything, accepted = frozenset({ip_network("0.0.0.0/0"), ip_network("::/0")}), []
    for host in DISGUISED:
        with suppress(Malformed):
            accepted.append(endpoint_url(f"https://{host}/", allow_http=False, allowed=everything))

    assert [] == accepted


@pytest.mark.req("DEL-12")
@given(
    st.ip_addresses(v=4).map(int),
    st.lists(st.sampled_from(["d", "o", "x"]), min_size=4, max_size=4),
    st.integers(1, 4),
    st.sampled_from(["", "."]),
)
def test_only_one_spelling_of_an_address_is_accepted(number: int, bases: list[str], parts: int, dot: str) -> None:
    """Of the notations that inet_aton accepts (1 to 4 parts, decimal, octal, hexadecimal) only a.b.c.d is accepted."""
    pieces = [number >> (24 - 8 * place) & 0xFF for place in range(parts - 1)]
    pieces.append(number & (2 ** (8 * (5 - parts)) - 1))
    spelled = ".".join(
        {"d": "%d", "o": "0%o", "x": "0x%x"}[base] % piece for base, piece in zip(bases, pieces, strict=False)
    )
    taken = url_problem(f"https://{spelled}{dot}/", allow_http=False) is None

    assert int(ip_address(socket.inet_aton(spelled))) == number
    assert taken == (f"{spelled}{dot}" == str(ip_address(number)))


@pytest.mark.req("DEL-12")
@given(st.text("aA0x1.:-_%[]@\\/?#", max_size=20).map(lambda text: f"https://{text}"))
def test_every_parser_sees_the_same_host(url: str) -> None:
    """For an accepted URL, the parser that checks and the one that dials agree on host and port."""
    if url_problem(url, allow_http=False) is None:
        seen, dialled = urlsplit(url), URL(url, encoded=True)

        assert (seen.hostname, seen.port or 443) == ((dialled.raw_host or "").lower(), dialled.port)


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: f"https://{text}"))
def test_any_text_is_accepted_or_refused(url: str) -> None:
    try:
        assert url == endpoint_url(url, allow_http=False, allowed=frozenset())
    except HooksealError:
        return
    assert url_problem(url, allow_http=False) is None


@pytest.mark.req("DEL-12")
def test_special_addresses_are_refused_and_public_ones_allowed() -> None:
    assert [] == [address for address in REFUSED if refusal(address, frozenset()) is None]
    assert [] == [address for address in PUBLIC if refusal(address, frozenset()) is not None]


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.1.1.1 "])
def test_only_standard_forms_are_addresses(text: str) -> None:
    """A text that is not an address in its standard form is refused, so it never reaches a socket."""
    assert "not an IP address" == refusal(text, frozenset())


@pytest.mark.req("DEL-12")
def test_an_allowed_network_may_be_dialled() -> None:
    loopback = frozenset({ip_network("127.0.0.0/8")})

    assert refusal("127.9.9.9", loopback) is None
    assert refusal("::ffff:127.0.0.1", loopback)
    assert refusal("10.0.0.1", loopback)


@pytest.mark.req("DEL-12")
def test_a_network_is_allowed_for_one_tenant() -> None:
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


@pytest.mark.req("DEL-12")
@given(st.data(), st.sampled_from(sorted(REGISTRY)))
def test_every_registered_address_is_refused(data: st.DataObject, entry: str) -> None:
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
    assert expected is loopback_allowed(frozenset(map(ip_network, allowed)))


def transport(rules: AddressRules, look_up: Callable[[str], Addresses], limits: Limits | None = None) -> HttpTransport:
    """Return a transport whose resolver is this one."""
    limits = limits or Limits()
    return HttpTransport(rules, limits=limits, look_ups=LookUps(limits, look_up))


def always_resolving_to(address: str) -> Callable[[str], Addresses]:
    return lambda _host: (address,)


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize(
    "found", [("10.0.0.1", "127.0.0.1"), ("127.0.0.1", "10.0.0.1"), ("::1", "fd00::1", "127.0.0.1")]
)
async def test_only_allowed_addresses_of_a_name_are_dialled(found: Addresses) -> None:
    async with listening(status(204)) as listener, transport(HERE_ONLY, lambda _: found) as sending:
        answer = await sending.send(request_to(f"http://both.example:{listener.port}/"))

    assert Reply(status=204, snippet="") == answer


@pytest.mark.req("DEL-12")
async def test_a_rebinding_name_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that first resolves to an allowed address, and then to a forbidden one, is not dialled the second time."""
    monkeypatch.setattr(egress_guard, "KNOWN_SECONDS", 0)
    found = iter([("127.0.0.1",), ("127.0.0.2",)])
    arrived: list[asyncio.StreamWriter] = []
    async with listening(status(204, headers=b"connection: close\r\n")) as listener:
        other = await asyncio.start_server(lambda _, writer: arrived.append(writer), "127.0.0.2", listener.port)
        async with other, transport(HERE_ONLY, lambda _: next(found)) as sending:
            url = f"http://rebinding.example:{listener.port}/"
            answers = [await sending.send(request_to(url)) for _ in range(2)]

    assert [Reply(status=204, snippet=""), FORBIDDEN] == answers
    assert [] == arrived


def own_addresses() -> list[str]:
    """Return addresses of this machine: loopback, and the source addresses of its outgoing connections."""
    found = {"127.0.0.1", "127.0.0.53"}
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((far, 9))
            except OSError:
                continue
            found.add(probe.getsockname()[0])
    return sorted(found)


@pytest.mark.req("DEL-12")
async def test_nothing_reaches_this_machine() -> None:
    arrived: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: arrived.append(writer), "0.0.0.0", 0)  # noqa: S104 -- all addresses are tested
    port = server.sockets[0].getsockname()[1]
    answers = []
    async with server:
        for address in [*own_addresses(), "0.0.0.0", "::1", "::ffff:127.0.0.1"]:  # noqa: S104 -- refused
            literal = f"[{address}]" if ":" in address else address
            async with transport(AddressRules(), always_resolving_to(address)) as sending:
                answers += [await sending.send(request_to(f"http://{host}:{port}/")) for host in (literal, "a.example")]

    assert {FailureKind.FORBIDDEN_ADDRESS} == {answer.kind for answer in answers if isinstance(answer, Failure)}
    assert [] == arrived
    assert len(answers) == sum(isinstance(answer, Failure) for answer in answers)


@pytest.mark.req("DEL-12")
def test_an_address_of_this_machine_is_refused_though_it_is_public() -> None:
    own = next(address for address in own_addresses() if ":" not in address)
    lenient = Guard(frozenset(), refuses=lambda _address, _allowed: None)
    allowing = Guard(frozenset({ip_network(own)}), refuses=lambda _address, _allowed: None)

    assert "an address of this machine" == lenient.refusal_of(own)
    assert allowing.refusal_of(own) is None
    assert lenient.refusal_of("192.0.2.1") is None
    assert not is_of_this_machine("255.255.255.255")


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Yield an event that slow name servers wait for; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.req("DEL-12")
async def test_a_slow_look_up_is_a_failed_attempt(hanging: threading.Event) -> None:
    """A name that is not resolved in time is a failed attempt: the delivery is not given back again and again."""

    def look_up(_host: str) -> Addresses:
        hanging.wait()
        return ("127.0.0.1",)

    async with transport(HERE_ONLY, look_up, Limits(name_seconds=0.1)) as sending:
        answer = await sending.send(request_to("http://slow.example/"))

    assert Failure(kind=FailureKind.DNS, detail="the host name was not resolved within 0.1 s") == answer
    assert Limits().name_seconds < 2, "else no request to this name would begin in time"


@pytest.mark.req("DEL-11", part="bounds")
async def test_hanging_look_ups_delay_no_other_tenant(hanging: threading.Event) -> None:
    """While the look-ups of one tenant hang, those of another are answered; the number of threads is bounded."""
    asked: Counter[str] = Counter()

    def look_up(host: str) -> Addresses:
        asked[host.partition(".")[2]] += 1
        if host.endswith("hostile.example"):
            hanging.wait()
        return ("127.0.0.1",)

    limits = Limits(name_seconds=3.0, look_ups_each=4, look_ups=8)
    async with listening(status(204)) as listener, transport(HERE_ONLY, look_up, limits) as sending:
        hostile = [
            asyncio.create_task(
                sending.send(
                    request_to(
                        f"http://{number}.hostile.example/", tenant="globex", start_by=SystemClock().monotonic() + 9
                    )
                )
            )
            for number in range(100)
        ]
        answers = [
            await sending.send(request_to(f"http://{number}.example:{listener.port}/", timeout_seconds=30))
            for number in range(20)
        ]
        held = asked["hostile.example"]
        found = await asyncio.gather(*hostile)

    assert [Reply(status=204, snippet="")] * 20 == answers
    assert 4 == held == asked["hostile.example"]
    assert {FailureKind.DNS} == {answer.kind for answer in found if isinstance(answer, Failure)}
    assert 100 == sum(isinstance(answer, Failure) for answer in found)


@pytest.mark.req("DEL-11", part="bounds")
def test_only_the_first_addresses_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the addresses that a name server returns, only the first MAX_ADDRESSES are used, in their order."""
    many = [f"1.1.{number // 250}.{number % 250}" for number in range(4_000)]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in many for _ in range(2)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert tuple(many[: egress_guard.MAX_ADDRESSES]) == egress_guard.system_look_up("many.example")


async def test_look_ups_are_limited() -> None:
    """A look-up above the limit per tenant, or in all, waits until another one has ended, and then starts."""
    turns = {name: threading.Event() for name in ("a", "b", "c", "d")}
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        turns[host].wait()
        return (host,)

    async def have_started(hosts: set[str]) -> bool:
        return set(asked) == hosts

    known = Names(LookUps(Limits(look_ups_each=1, look_ups=2), look_up))
    acme, globex = TenantId("acme"), TenantId("globex")
    try:
        waiting = [
            asyncio.create_task(known.addresses(tenant, host))
            for tenant, host in ((acme, "a"), (acme, "b"), (globex, "c"), (None, "d"))
        ]
        await eventually(lambda: have_started({"a", "c"}))
        turns["a"].set()
        await eventually(lambda: have_started({"a", "b", "c"}))
        turns["c"].set()
        await eventually(lambda: have_started({"a", "b", "c", "d"}))
    finally:
        for turn in turns.values():
            turn.set()

    assert [("a",), ("b",), ("c",), ("d",)] == await asyncio.gather(*waiting)


def started(look_ups: LookUps, tenant: str) -> int:
    """Begin look-ups of this tenant, as many as it may have, and return their number."""
    count = 0
    while look_ups.has_room(TenantId(tenant)):
        look_ups.begin(TenantId(tenant), f"{count}.{tenant}.example")
        count += 1
    return count


@pytest.mark.req("DEL-11", part="bounds")
async def test_look_ups_that_hang_leave_room_for_other_tenants(hanging: threading.Event) -> None:
    """One tenant has at most a quarter of all; the next ones have half of what is left of the shared ones, or 4."""

    def look_up(host: str) -> Addresses:
        hanging.wait()
        return (host,)

    look_ups = LookUps(Limits(), look_up)
    found = [started(look_ups, f"tenant-{number}") for number in range(40)]
    hanging.set()

    assert [64, 32, 16, 8, *([4] * 34), 0, 0] == found
    assert Limits().look_ups == sum(found)


async def test_tenants_that_wait_for_a_look_up_take_turns() -> None:
    """While every thread is busy, a tenant with many names does not come before one that asks later for a few."""
    asked: list[str] = []
    go_on = threading.Semaphore(0)

    def look_up(host: str) -> Addresses:
        asked.append(host)
        go_on.acquire()
        return (host,)

    known = Names(LookUps(Limits(look_ups_each=1, look_ups=1), look_up))
    names = [("acme", "a1"), ("acme", "a2"), ("acme", "a3"), ("globex", "g1"), ("globex", "g2")]
    waiting = [asyncio.create_task(known.addresses(TenantId(tenant), host)) for tenant, host in names]
    await asyncio.sleep(0)
    for _ in names:
        go_on.release()
    await asyncio.gather(*waiting)

    assert ["a1", "a2", "g1", "a3", "g2"] == asked


async def test_a_thread_does_many_look_ups() -> None:
    """A look-up starts a thread only if every thread is busy; the threads end with the transport."""
    used: list[threading.Thread] = []

    def look_up(host: str) -> Addresses:
        used.append(threading.current_thread())
        return (host,)

    look_ups = LookUps(Limits(), look_up)
    known = Names(look_ups)
    for number in range(20):
        await known.addresses(TenantId("acme"), str(number))
    look_ups.close()
    used[0].join(20)

    assert 1 == len(set(used))
    assert not used[0].is_alive()


@pytest.mark.req("SEC-08")
async def test_look_ups_are_shared_within_a_tenant_only() -> None:
    turn = threading.Barrier(3, timeout=10)
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        turn.wait()
        return (f"{len(asked)}",)

    known = Names(LookUps(Limits(), look_up))
    acme, globex = TenantId("acme"), TenantId("globex")
    waiting = [asyncio.create_task(known.addresses(tenant, "one.example")) for tenant in (acme, globex, acme)]
    await asyncio.to_thread(turn.wait)
    assert [("2",)] * 3 == await asyncio.gather(*waiting)


async def test_a_cancelled_look_up_is_never_started(hanging: threading.Event) -> None:
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        hanging.wait()
        return (host,)

    known = Names(LookUps(Limits(look_ups_each=1, look_ups=2), look_up))
    waiting = [asyncio.create_task(known.addresses(TenantId("acme"), str(number))) for number in range(100)]
    await asyncio.wait(waiting, timeout=0.1)
    for task in waiting[1:]:
        task.cancel()
    await asyncio.wait(waiting[1:])
    hanging.set()

    assert ("0",) == await waiting[0]
    assert ("last",) == await known.addresses(TenantId("acme"), "last")
    assert ["0", "last"] == asked


async def test_an_answer_is_cached_and_an_error_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent callers share a look-up, and later ones its cached answer; an error is not cached."""
    asked: list[str] = []

    def look_up(host: str) -> Addresses:
        asked.append(host)
        if host == "bad":
            raise socket.gaierror(socket.EAI_NONAME, "no")
        return (host,)

    monkeypatch.setattr(egress_guard, "MAX_KNOWN", 1)
    known = Names(LookUps(Limits(), look_up))
    acme = TenantId("acme")
    for _ in range(2):
        assert [("a",)] * 3 == await asyncio.gather(*[known.addresses(acme, "a") for _ in range(3)])
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await known.addresses(acme, "bad")
    for host in ("b", "a"):
        await known.addresses(acme, host)

    assert ["a", "bad", "bad", "b", "a"] == asked


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "x"), FailureKind.DNS),
        (UnicodeError("label too long"), FailureKind.INVALID_URL),
        (OSError("x"), FailureKind.CONNECTION),
    ],
)
async def test_a_failed_look_up_is_a_value(error: Exception, kind: FailureKind) -> None:
    """Any exception of a look-up becomes a failure of the right kind, and is not raised."""

    def look_up(_host: str) -> Addresses:
        raise error

    async with transport(AddressRules(LOOPBACK), look_up) as sending:
        answer = await sending.send(request_to("http://a.example/"))

    assert isinstance(answer, Failure)
    assert kind is answer.kind


@pytest.mark.parametrize(
    ("allow_http", "said"),
    [(False, "url must be https://host[:port]/path"), (True, "url must be https:// or http://host[:port]/path")],
)
def test_a_url_of_no_protocol_of_ours_is_told_which_there_are(*, allow_http: bool, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        endpoint_url("ftp://receiver.example/hook", allow_http=allow_http, allowed=frozenset())

    assert said == str(caught.value)


@pytest.mark.req("DEL-13")
def test_an_origin_is_scheme_host_and_port() -> None:
    """Case, a default port and the spelling of an address make no other origin; each of the three does."""
    one = "https://receiver.example/hook"
    same = [
        (one, "https://receiver.example/other?a=b"),
        (one, "HTTPS://Receiver.EXAMPLE:443/hook"),
        ("http://receiver.example", "http://receiver.example:80/"),
        ("https://xn--bcher-kva.example/", "https://XN--BCHER-KVA.example/x"),
        ("https://[2001:db8::1]/", "https://[2001:DB8:0:0:0:0:0:1]:443/x"),
    ]
    other = [
        (one, "https://other.example/hook"),
        (one, "http://receiver.example/hook"),
        (one, "https://receiver.example:8443/hook"),
        (one, "https://receiver.example./hook"),
        (one, "https://a.receiver.example/hook"),
        ("https://192.0.2.1/", "https://192.0.2.10/"),
        ("http://receiver.example:443/", "https://receiver.example:443/"),
        ("https://receiver.example:80/", "http://receiver.example/"),
        ("https://xn--bcher-kva.example/", "https://bucher.example/"),
    ]
    assert [] == [pair for pair in same if origin(pair[0]) != origin(pair[1])]
    assert [] == [pair for pair in other if origin(pair[0]) == origin(pair[1])]
