"""Which URLs an endpoint may have."""

import socket
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from hookseal.dispatcher.core.url import endpoint_url, url_problem
from hookseal.errors import HooksealError, Malformed, Refused


@pytest.mark.parametrize(
    "url",
    [
        *("https://a.example", "https://a.example:8443/x?y=z", "https://1.1.1.1/", "https://[2606:4700::1111]/"),
        *("HTTPS://A.Example:443/", "https://a.example./", "https://a_b.example/", "https://xn--bcher-kva.example/"),
        *("https://1.a.example/", "https://a-b.0x7f.example/", "https://a.example?x=@y", "https://a:1"),
    ],
)
def test_https_urls_are_accepted_unchanged(url: str) -> None:
    """HTTPS URLs to names and public literals are accepted unchanged."""
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
    """Plain HTTP is refused unless it is allowed."""
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
    """A literal address that may not be dialled is refused when the endpoint is added."""
    with pytest.raises(Refused):
        endpoint_url(f"https://{host}/", allow_http=False, allowed=frozenset())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_allowed_literal_is_accepted(host: str) -> None:
    """A literal in an allowed network is accepted, and `localhost` where loopback is allowed."""
    assert endpoint_url(f"https://{host}/", allow_http=False, allowed=frozenset({ip_network("127.0.0.0/8")}))


DISGUISED = [
    *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "127.0.0.1.", "0x", "1.2.3.04", "256.1.1.1"),
    *("127.0.0.1%2e", "%31%32%37.0.0.1", "127%2E0%2E0%2E1", "127%E3%80%820.0.1", "a.example%00.b.example"),
    *("[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1]x", "ok@127.0.0.1", "127.0.0.1@1.1.1.1", "1.1.1.1:80@127.0.0.1"),
    *("127.0.0.1\N{IDEOGRAPHIC FULL STOP}", "127\N{IDEOGRAPHIC FULL STOP}0.0.1", "\N{FULLWIDTH DIGIT ONE}.1.1.1"),
    *("\N{CIRCLED DIGIT ONE}27.0.0.1", "127.0.0.1\\@a.example", "a.example;127.0.0.1", "1.1.1.1 127.0.0.1"),
]


@pytest.mark.req("DEL-12")
@pytest.mark.parametrize("host", DISGUISED)
def test_a_disguised_address_is_refused(host: str) -> None:
    """An address in any but its standard form is refused when the endpoint is added, whatever is allowed."""
    everything = frozenset({ip_network("0.0.0.0/0"), ip_network("::/0")})
    with pytest.raises(Malformed):
        endpoint_url(f"https://{host}/", allow_http=False, allowed=everything)


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
    """Any text is accepted or refused with an error of ours, and an accepted one has no problem."""
    try:
        assert url == endpoint_url(url, allow_http=False, allowed=frozenset())
    except HooksealError:
        return
    assert url_problem(url, allow_http=False) is None
