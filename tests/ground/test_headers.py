"""Which headers an endpoint may add: no name that is not its own to set, no value that is more than one line."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.ground.errors import Malformed
from hookseal.ground.headers import (
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
def test_names(given: str, kept: str) -> None:
    """A name is a token that is the endpoint's own to set, and is kept in lower case."""
    assert kept == header_name(given)


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    "name",
    [
        *("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-anything", "webhook-"),
        *("x-webhook-signature", "x-webhook-event", "x-hookseal-attempt", "x-tenant-id", "x-correlation-id"),
        *("host", "content-length", "content-type", "content-encoding", "user-agent", "accept-encoding", "expect"),
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
        *("traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "sentry-trace", "uber-trace-id"),
    ],
)
def test_protected_names(name: str) -> None:
    """What hookseal, the connection or tracing sets cannot be set by an endpoint, in whatever case it is spelled."""
    for spelled in (name, name.upper(), name.title()):
        with pytest.raises(Malformed, match=f"^header {name} is set by hookseal, or by the connection") as told:
            header_name(spelled)
        assert "header" == told.value.field


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.req("DEL-14", part="headers")
@pytest.mark.parametrize(
    "name",
    [
        *("", " x", "x ", "x y", "x:y", ":x", "x\n", "x\r\n", "x\0", "x\ty", "x(y)", "x,y", 'x"y', "x/y", "x@y", "x{}"),
        *("\u00fc", "x\u00e4", "\u212aey", "webhoo\u212a-id", "\u0130d", "x\ud800", "a" * 65),
    ],
)
def test_what_is_no_name(name: str) -> None:
    """Anything else is malformed and not repeated, a letter whose lower case is plain ASCII too."""
    with pytest.raises(Malformed, match="a header name must be 1 to 64") as told:
        header_name(name)
    assert "header" == told.value.field
    assert len(name) < 2 or name not in str(told.value)


@pytest.mark.req("DEL-13", part="rules")
@given(st.text(max_size=80))
def test_any_text_is_a_name_or_malformed(text: str) -> None:
    """Whatever is given, nothing comes back but a lower-case token of at most 64 characters, always the same."""
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
    """However a name goes on, with a prefix of ours it is refused."""
    with pytest.raises(Malformed, match="is set by hookseal"):
        header_name(prefix.swapcase() + rest)


@pytest.mark.req("DEL-14", part="headers")
@pytest.mark.parametrize("value", ["x", "Bearer a.b-c", "a \t b", "!~", "v" * 4_096, '{"a": "b"}'])
def test_values(value: str) -> None:
    """A value is visible ASCII, with spaces and tabs inside only."""
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
def test_values_that_may_not_be_sent(value: str) -> None:
    """A line break, a NUL, an edge of blanks or what is no visible ASCII is refused by name, without the value."""
    with pytest.raises(Malformed, match="the value of header x-key must be 1 to 4096 visible") as told:
        require_headers({"x-key": value})
    assert "header" == told.value.field
    assert CANARY not in str(told.value)


def test_an_empty_value() -> None:
    """A header without a value is none."""
    with pytest.raises(Malformed, match="the value of header x must be 1 to"):
        require_headers({"x": ""})


@pytest.mark.req("DEL-13", part="rules")
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\r\n\0\t ")), max_size=60))
def test_any_value_is_one_visible_line_or_malformed(value: str) -> None:
    """Whatever is given, what passes is one line of visible ASCII without blanks at its ends."""
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
    """One CR, LF, NUL, DEL or character beyond ASCII anywhere in a value is enough to refuse it."""
    with pytest.raises(Malformed):
        require_headers({"x": before + bad + after})


@pytest.mark.req("DEL-14", part="headers")
@given(st.dictionaries(st.from_regex("own-[a-z]{1,8}", fullmatch=True), st.just("v"), max_size=30))
def test_as_many_as_the_limit(headers: dict[str, str]) -> None:
    """Twenty headers pass, one more does not."""
    if len(headers) <= MAX_HEADERS:
        require_headers(headers)
    else:
        with pytest.raises(Malformed, match="at most 20 headers"):
            require_headers(headers)


@pytest.mark.req("DEL-14", part="headers")
def test_all_of_them_together() -> None:
    """Names and values together have a limit too: at it they pass, one character beyond it they do not."""
    values = {f"h{number}": "v" * (MAX_VALUE_CHARACTERS - 2) for number in range(4)}
    assert sum(len(name) + len(value) for name, value in values.items()) == MAX_ALL_CHARACTERS
    require_headers(values)
    with pytest.raises(Malformed, match="at most 16384 characters"):
        require_headers(values | {"h0": values["h0"] + "v"})


@pytest.mark.req("DEL-14", part="headers")
def test_names_that_were_not_kept_in_lower_case() -> None:
    """Where headers are kept or sent, their names are in lower case: two that differ in case are one."""
    require_headers({})
    with pytest.raises(Malformed, match="header X-Key must be in lower case"):
        require_headers({"X-Key": "v"})
    with pytest.raises(Malformed, match="is set by hookseal"):
        require_headers({"webhook-id": "v"})
