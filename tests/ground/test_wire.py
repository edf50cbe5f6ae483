"""The bytes that are signed, and the headers of a request."""

import hmac
from typing import Any

import pytest

from hookseal.ground.wire import (
    signed_content,
    standard_headers,
    x_webhook_content,
    x_webhook_headers,
    x_webhook_signatures,
)
from tests.vectors.reading import vectors


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_the_signed_bytes_are_id_time_and_body() -> None:
    """The signed bytes are id, seconds and body, with dots between."""
    assert b"msg_1.1614265330.\xff\xfe\x00" == signed_content("msg_1", 1614265330, b"\xff\xfe\x00")


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_standard_signatures_are_space_separated() -> None:
    """Signatures are a space-separated list in the given order."""
    assert {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,aa v1,bb",
    } == standard_headers("msg_1", 1614265330, ("v1,aa", "v1,bb"))


@pytest.mark.req("DEL-04", part="x-webhook")
def test_the_x_webhook_bytes_are_time_and_body() -> None:
    """The signed bytes are seconds and body, with a dot between: the id is not signed."""
    assert b"1614265330.\xff\xfe\x00" == x_webhook_content(1614265330, b"\xff\xfe\x00")


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("case", vectors("x_webhook.json")["tests"], ids=lambda case: case["comment"])
def test_x_webhook_content_gives_the_known_signatures(case: dict[str, Any]) -> None:
    """HMAC-SHA256 of these bytes, keyed by the text of the secret, is the signature that OpenSSL made."""
    content = x_webhook_content(case["timestamp"], bytes.fromhex(case["body"]))

    assert case["signature"] == "sha256=" + hmac.digest(case["secret"].encode(), content, "sha256").hex()


@pytest.mark.req("DEL-04", part="x-webhook")
def test_x_webhook_headers_have_time_type_delivery_and_tenant() -> None:
    """The headers have the signed time, the event type, the delivery and the tenant."""
    assert {
        "x-webhook-timestamp": "1614265330",
        "x-webhook-event": "invoice.paid",
        "x-webhook-delivery-id": "msg_1",
        "x-tenant-id": "acme",
    } == x_webhook_headers(tenant_id="acme", delivery_id="msg_1", event_type="invoice.paid", timestamp=1614265330)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("lead", ["previous", "current"])
def test_outside_an_overlap_one_header_is_sent(lead: str) -> None:
    """Outside an overlap there is one signature header, whatever `lead` is."""
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
