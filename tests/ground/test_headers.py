"""Which headers an endpoint may add: none that hookseal sets itself, and no value of more than one line."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Malformed
from hookseal.ground.wire import (
    MAX_ALL_CHARACTERS,
    MAX_HEADERS,
    MAX_NAME_CHARACTERS,
    MAX_VALUE_CHARACTERS,
    header_name,
    require_headers,
)

TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
CANARY = "Zq7-canary-value"


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("X-Tenant", "x-tenant"),
        ("authorization", "authorization"),
        ("AUTHORIZATION", "authorization"),
        ("x", "x"),
        ("a" * 64, "a" * 64),
        ("x_api.key~1!#$%&'*+-^`|", "x_api.key~1!#$%&'*+-^`|"),
        ("x-webhooks", "x-webhooks"),
        ("webhook", "webhook"),
        ("x-host", "x-host"),
    ],
)
def test_a_name_is_stored_in_lower_case(given: str, kept: str) -> None:
    """A name is a token that hookseal does not set itself, and is stored in lower case."""
    assert kept == header_name(given)


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    "name",
    [
        *("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-anything", "webhook-"),
        *("x-webhook-signature", "x-webhook-event", "x-hookseal-attempt", "x-tenant-id", "x-correlation-id"),
        "x-hookseal-event-id",
        *("host", "content-length", "content-type", "content-encoding", "user-agent", "accept-encoding", "expect"),
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
        *("traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "sentry-trace", "uber-trace-id"),
    ],
)
def test_a_protected_name_is_refused(name: str) -> None:
    """An endpoint cannot set a header of hookseal, of the connection or of tracing, in upper or lower case."""
    for spelled in (name, name.upper(), name.title()):
        with pytest.raises(Malformed, match=f"^header {name} is set by hookseal or by the HTTP connection") as caught:
            header_name(spelled)
        assert "headers" == caught.value.field


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.req("DEL-14", part="headers")
@pytest.mark.parametrize(
    "name",
    [
        *("", " x", "x ", "x y", "x:y", ":x", "x\n", "x\r\n", "x\0", "x\ty", "x(y)", "x,y", 'x"y', "x/y", "x@y", "x{}"),
        *("\u00fc", "x\u00e4", "\u212aey", "webhoo\u212a-id", "\u0130d", "x\ud800", "a" * 65),
    ],
)
def test_an_invalid_name_is_not_repeated(name: str) -> None:
    """A text that is not a header name is malformed and not repeated, even if its lower case would be valid."""
    with pytest.raises(Malformed, match="a header name must be 1 to 64") as caught:
        header_name(name)
    assert "headers" == caught.value.field
    assert len(name) < 2 or name not in str(caught.value)


@pytest.mark.req("DEL-13", part="rules")
@given(st.text(max_size=80))
def test_any_text_is_a_name_or_malformed(text: str) -> None:
    """For any text the result is a lower-case token of at most 64 characters, always the same, or `Malformed`."""
    try:
        name = header_name(text)
    except Malformed:
        return
    assert set(name) <= set(TOKEN) - set(string.ascii_uppercase)
    assert 1 <= len(name) <= MAX_NAME_CHARACTERS
    assert name == header_name(name) == text.lower()


@pytest.mark.req("DEL-13", part="rules")
@given(st.text(alphabet=TOKEN, min_size=1, max_size=40), st.sampled_from(["webhook-", "x-webhook-", "x-hookseal-"]))
def test_no_protected_prefix_gets_through(rest: str, prefix: str) -> None:
    """A name with a protected prefix is refused, whatever follows the prefix."""
    with pytest.raises(Malformed, match="is set by hookseal"):
        header_name(prefix.swapcase() + rest)


@pytest.mark.req("DEL-14", part="headers")
@pytest.mark.parametrize("value", ["x", "Bearer a.b-c", "a \t b", "!~", "v" * 4_096, '{"a": "b"}'])
def test_a_value_is_visible_ascii(value: str) -> None:
    """A value is visible ASCII, with spaces and tabs between other characters only."""
    require_headers({"x": value})


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.req("DEL-14", part="headers")
@pytest.mark.parametrize(
    "value",
    [
        *(f"{CANARY}\r\nwebhook-id: 1", f"{CANARY}\n", f"{CANARY}\r", f"{CANARY}\0", f"\n{CANARY}", f"{CANARY}\x0b1"),
        *(f" {CANARY}", f"{CANARY} ", f"{CANARY}\t", f"\t{CANARY}", f"{CANARY}\x7f", f"{CANARY}\x1b[2J"),
        *(f"{CANARY}\u00fc", f"{CANARY}\u2028x", f"{CANARY}\ud800", CANARY + "x" * 4_096),
    ],
)
def test_an_unsendable_value_is_not_repeated(value: str) -> None:
    """A line break, a NUL, a blank at either end or a non-ASCII character is refused by name, without the value."""
    with pytest.raises(Malformed, match="the value of header x-key must be 1 to 4096 visible") as caught:
        require_headers({"x-key": value})
    assert "headers" == caught.value.field
    assert CANARY not in str(caught.value)


def test_an_empty_value_is_refused() -> None:
    """An empty value is refused."""
    with pytest.raises(Malformed, match="the value of header x must be 1 to"):
        require_headers({"x": ""})


@pytest.mark.req("DEL-13", part="rules")
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\r\n\0\t ")), max_size=60))
def test_any_value_is_one_visible_line_or_malformed(value: str) -> None:
    """Every value that passes is one line of visible ASCII without blanks at its ends."""
    try:
        require_headers({"x": value})
    except Malformed:
        return
    assert set(value) <= {*VISIBLE, " ", "\t"}
    assert value == value.strip()
    assert value != ""


@pytest.mark.req("DEL-13", part="rules")
@given(
    st.text(alphabet=VISIBLE + " ", max_size=20),
    st.one_of(st.sampled_from(["\r", "\n", "\0", "\r\n", "\x7f"]), st.characters(min_codepoint=0x80)),
    st.text(alphabet=VISIBLE + " ", max_size=20),
)
def test_no_character_that_breaks_a_line_gets_through(before: str, bad: str, after: str) -> None:
    """One CR, LF, NUL, DEL or non-ASCII character anywhere in a value is enough to refuse it."""
    with pytest.raises(Malformed):
        require_headers({"x": before + bad + after})


@pytest.mark.req("DEL-14", part="headers")
@given(st.dictionaries(st.from_regex("own-[a-z]{1,8}", fullmatch=True), st.just("v"), max_size=30))
def test_the_number_of_headers_is_limited(headers: dict[str, str]) -> None:
    """Twenty headers pass, one more does not."""
    if len(headers) <= MAX_HEADERS:
        require_headers(headers)
    else:
        with pytest.raises(Malformed, match="at most 20 headers"):
            require_headers(headers)


@pytest.mark.req("DEL-14", part="headers")
def test_the_total_size_is_limited() -> None:
    """Names and values have a limit in total: at the limit they pass, with one more character they do not."""
    values = {f"h{number}": "v" * (MAX_VALUE_CHARACTERS - 2) for number in range(4)}
    assert sum(len(name) + len(value) for name, value in values.items()) == MAX_ALL_CHARACTERS
    require_headers(values)
    with pytest.raises(Malformed, match="at most 16384 characters"):
        require_headers(values | {"h0": values["h0"] + "v"})


@pytest.mark.req("DEL-14", part="headers")
def test_names_that_differ_in_case_are_one() -> None:
    """Stored and sent names are in lower case, so two that differ in case only are one."""
    require_headers({})
    with pytest.raises(Malformed, match="header X-Key must be in lower case"):
        require_headers({"X-Key": "v"})
    with pytest.raises(Malformed, match="is set by hookseal"):
        require_headers({"webhook-id": "v"})


def test_one_header_too_many_is_refused() -> None:
    """The largest number of headers is accepted, and one more is refused."""
    require_headers({f"x-{number}": "v" for number in range(MAX_HEADERS)})
    with pytest.raises(Malformed, match=f"at most {MAX_HEADERS} headers"):
        require_headers({f"x-{number}": "v" for number in range(MAX_HEADERS + 1)})
