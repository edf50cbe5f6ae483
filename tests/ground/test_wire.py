"""Bytes on the wire: framing, headers and TLS."""

import hmac
import ssl
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Malformed
from hookseal.ground.tls import goes_directly, is_beside_this_machine, verifying_context
from hookseal.ground.wire import (
    MAX_ALL_CHARACTERS,
    MAX_HEADERS,
    MAX_NAME_CHARACTERS,
    MAX_VALUE_CHARACTERS,
    header_name,
    is_traceparent,
    require_headers,
    signed_content,
    standard_headers,
    svix_headers,
    x_webhook_content,
    x_webhook_headers,
    x_webhook_signatures,
)
from tests.doubles.client_certificates import Authority
from tests.vectors.reading import vectors

TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
PREFIXES = ("webhook-", "svix-", "x-webhook-", "x-hookseal-")
CANARY = "Zq7-canary-value"


@pytest.mark.req("DEL-04", part="standard-hmac")
@pytest.mark.req("DEL-04", part="x-webhook")
def test_the_signed_bytes_are_those_of_the_scheme() -> None:
    assert b"msg_1.1614265330.\xff\xfe\x00" == signed_content("msg_1", 1614265330, b"\xff\xfe\x00")
    assert b"1614265330.\xff\xfe\x00" == x_webhook_content(1614265330, b"\xff\xfe\x00")


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_standard_signatures_are_space_separated() -> None:
    assert {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,aa v1,bb",
    } == standard_headers("msg_1", 1614265330, ("v1,aa", "v1,bb"))


@pytest.mark.req("DEL-21", part="svix")
def test_svix_has_the_headers_of_standard_under_its_own_names() -> None:
    made = ("msg_1", 1614265330, ("v1,aa", "v1,bb"))
    renamed = {name.replace("webhook-", "svix-"): value for name, value in standard_headers(*made).items()}

    assert {"svix-id", "svix-timestamp", "svix-signature"} == renamed.keys()
    assert renamed == svix_headers(*made)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("case", vectors("x_webhook.json")["tests"], ids=lambda case: case["comment"])
def test_x_webhook_content_gives_the_known_signatures(case: dict[str, Any]) -> None:
    """HMAC-SHA256 of these bytes, keyed by the text of the secret, is the signature that OpenSSL made."""
    content = x_webhook_content(case["timestamp"], bytes.fromhex(case["body"]))

    assert case["signature"] == "sha256=" + hmac.digest(case["secret"].encode(), content, "sha256").hex()


@pytest.mark.req("DEL-04", part="x-webhook")
def test_x_webhook_headers_have_time_type_delivery_and_tenant() -> None:
    assert {
        "x-webhook-timestamp": "1614265330",
        "x-webhook-event": "invoice.paid",
        "x-webhook-delivery-id": "msg_1",
        "x-tenant-id": "acme",
    } == x_webhook_headers(tenant_id="acme", delivery_id="msg_1", event_type="invoice.paid", timestamp=1614265330)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("lead", ["previous", "current"])
def test_outside_an_overlap_one_header_is_sent(lead: str) -> None:
    assert {"x-webhook-signature": "sha256=aa"} == x_webhook_signatures(("sha256=aa",), lead=lead)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.req("SEC-10")
@pytest.mark.parametrize(("lead", "plain"), [("previous", "sha256=old"), ("current", "sha256=new")])
def test_two_signatures_are_both_named(lead: str, plain: str) -> None:
    """In an overlap each signature has its own header, and the plain header repeats the one that `lead` names."""
    assert {
        "x-webhook-signature": plain,
        "x-webhook-signature-current": "sha256=new",
        "x-webhook-signature-previous": "sha256=old",
    } == x_webhook_signatures(("sha256=new", "sha256=old"), lead=lead)


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
    assert kept == header_name(given)


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.req("OPS-03", part="trace-context")
def test_a_traceparent_names_a_span() -> None:
    """As the standard defines it: lower case, no id of zeros, no version ff, and nothing behind it."""
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    wrong = (
        "",
        good.upper(),
        f"{good}\n",
        f"{good}-x",
        f"ff{good[2:]}",
        good.replace("a", "0"),
        good.replace("b", "0"),
    )

    assert [True, True] == [is_traceparent(each) for each in (good, f"01{good[2:]}")]
    assert [False] * len(wrong) == [is_traceparent(each) for each in wrong]


@pytest.mark.parametrize(
    "name",
    [
        *("webhook-id", "webhook-timestamp", "webhook-signature", "webhook-anything", "webhook-"),
        *("x-webhook-signature", "x-webhook-event", "x-hookseal-attempt", "x-tenant-id", "x-correlation-id"),
        *("x-hookseal-event-id", "svix-id", "svix-signature", "svix-anything"),
        *("host", "content-length", "content-type", "content-encoding", "user-agent", "accept-encoding", "expect"),
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
        *("traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "sentry-trace", "uber-trace-id"),
    ],
)
def test_a_protected_name_is_refused(name: str) -> None:
    """An endpoint cannot set a header of hookseal, of the connection or of tracing, in upper or lower case."""
    for spelled in (name, name.upper(), name.title()):
        with pytest.raises(Malformed, match=f"^header {name} is set by hookseal, or by the HTTP connection") as caught:
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
@given(st.text(alphabet=TOKEN, min_size=1, max_size=40), st.sampled_from(PREFIXES))
def test_no_protected_prefix_gets_through(rest: str, prefix: str) -> None:
    with pytest.raises(Malformed, match="is set by hookseal"):
        header_name(prefix.swapcase() + rest)


@pytest.mark.req("DEL-14", part="headers")
@pytest.mark.parametrize("value", ["x", "Bearer a.b-c", "a \t b", "!~", "v" * 4_096, '{"a": "b"}'])
def test_a_value_is_visible_ascii(value: str) -> None:
    require_headers({"x": value})
    with pytest.raises(Malformed):
        require_headers({"x": f"{value}\n"})


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
def test_the_total_size_is_limited() -> None:
    values = {f"h{number}": "v" * (MAX_VALUE_CHARACTERS - 2) for number in range(4)}
    assert sum(len(name) + len(value) for name, value in values.items()) == MAX_ALL_CHARACTERS
    require_headers(values)
    with pytest.raises(Malformed, match="at most 16384 characters"):
        require_headers(values | {"h0": values["h0"] + "v"})


@pytest.mark.req("DEL-14", part="headers")
def test_a_set_of_headers_has_lower_case_names_and_values() -> None:
    require_headers({})
    with pytest.raises(Malformed, match="header X-Key must be in lower case"):
        require_headers({"X-Key": "v"})
    with pytest.raises(Malformed, match="the value of header x must be 1 to"):
        require_headers({"x": ""})
    with pytest.raises(Malformed, match="is set by hookseal"):
        require_headers({"webhook-id": "v"})


@pytest.mark.req("DEL-14", part="headers")
def test_one_header_too_many_is_refused() -> None:
    require_headers({f"x-{number}": "v" for number in range(MAX_HEADERS)})
    with pytest.raises(Malformed, match=f"at most {MAX_HEADERS} headers"):
        require_headers({f"x-{number}": "v" for number in range(MAX_HEADERS + 1)})


@pytest.mark.parametrize("authorities", [None, Authority().pem.decode()])
def test_it_verifies_and_is_not_stricter_with_a_newer_python(authorities: str | None) -> None:
    """It verifies certificate and name; from Python 3.13 on others are stricter, and take a part of a chain for one."""
    context = verifying_context(authorities)

    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version
    assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).verify_flags == context.verify_flags


def test_it_writes_no_keys_of_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the keys that `SSLKEYLOGFILE` asks for, anybody could read the token that is sent to OpenBao."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    assert verifying_context(None).keylog_filename is None


def test_without_authorities_it_trusts_those_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "system.pem"
    file.write_bytes(Authority("system").pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    own = Authority("own").pem.decode()
    trusted = [verifying_context(each).get_ca_certs() for each in (None, own)]

    assert [[(("commonName", "system"),)], [(("commonName", "own"),)]] == [
        [name for each in found for name in each["subject"]] for found in trusted
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://169.254.169.254/x", True),
        ("http://[fe80::1]/", True),
        ("http://10.0.0.1/", False),
        ("http://[fe80", False),
    ],
)
def test_only_link_local_addresses_are_beside_this_machine(url: str, expected: bool) -> None:
    """No router passes a link-local address on; a url that cannot be read is none."""
    assert expected is is_beside_this_machine(url)


@pytest.mark.parametrize(
    ("settings", "host", "expected"),
    [
        ({}, "169.254.169.254", True),
        ({"HTTPS_PROXY": "http://p"}, "169.254.169.254", True),
        ({"HTTP_PROXY": "http://p"}, "169.254.169.254", False),
        ({"all_proxy": "http://p"}, "169.254.169.254", False),
        ({"http_proxy": "http://p", "NO_PROXY": "localhost,169.254.169.254"}, "169.254.169.254", True),
        ({"http_proxy": "http://p", "no_proxy": "127.0.0.1:1"}, "127.0.0.1:1", True),
        ({"http_proxy": "http://p", "no_proxy": "127.0.0.1:1"}, "127.0.0.1", False),
    ],
)
def test_a_proxy_carries_http_unless_no_proxy_has_the_host(
    settings: dict[str, str], host: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert expected is goes_directly(host)


@pytest.mark.parametrize("text", ["", "nothing"])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    """Text without a certificate is not taken for the authorities of the system."""
    with pytest.raises((ssl.SSLError, ValueError)):
        verifying_context(text)
