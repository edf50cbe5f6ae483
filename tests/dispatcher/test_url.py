"""Which urls an endpoint may have."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.url import endpoint_url, url_problem
from hookseal.ground.errors import HooksealError, Malformed, Refused


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://a.example:8443/x?y=z", "https://1.1.1.1/", "https://[2606:4700::1111]/"]
)
def test_accepts(url: str) -> None:
    """Https urls to names and public literals are taken as they are."""
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
        "https://a.example/a b",
        "https://a.example/\r\nX: y",
        "https://a.example/\x00",
        "https://é.example/",
        "https://a.example/" + "x" * 2048,
    ],
)
def test_malformed(url: str) -> None:
    """What is not a url of the form https://host[:port]/path is malformed."""
    with pytest.raises(Malformed) as caught:
        endpoint_url(url, allow_http=True, allowed=frozenset())

    assert "url" == caught.value.field


@pytest.mark.parametrize(
    "url", ["https://user:pass@a.example/", "https://user@a.example/", "https://@a.example/", "https://a.example/#x"]
)
def test_credentials_and_fragments(url: str) -> None:
    """Credentials would be stored in the clear, a fragment is never sent: both are malformed, unsaid in the message."""
    with pytest.raises(Malformed) as caught:
        endpoint_url(url, allow_http=True, allowed=frozenset())

    assert "pass@" not in str(caught.value)


def test_http_only_where_allowed() -> None:
    """Http is refused by policy unless it is allowed."""
    with pytest.raises(Refused):
        endpoint_url("http://a.example/", allow_http=False, allowed=frozenset())

    assert endpoint_url("http://a.example/", allow_http=True, allowed=frozenset())


@pytest.mark.req("DEL-12", part="dial-check")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "10.0.0.1"])
def test_forbidden_literals(host: str) -> None:
    """A literal address that could never be dialled is refused when the endpoint is added."""
    with pytest.raises(Refused):
        endpoint_url(f"https://{host}/", allow_http=False, allowed=frozenset())


def test_allowed_literal() -> None:
    """A literal in an allowed network is taken."""
    assert endpoint_url("https://127.0.0.1/", allow_http=False, allowed=frozenset({ip_network("127.0.0.0/8")}))


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: f"https://{text}"))
def test_total(url: str) -> None:
    """Any text is taken or refused with our own errors, and what is taken has no problem."""
    try:
        assert url == endpoint_url(url, allow_http=False, allowed=frozenset())
    except HooksealError:
        return
    assert url_problem(url, allow_http=False) is None
