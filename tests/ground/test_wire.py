"""The bytes that are signed and the headers that say so."""

import pytest

from hookseal.ground.wire import signed_content, standard_headers


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_signed_content() -> None:
    """What is signed is id, seconds and body with dots between, byte for byte."""
    assert b"msg_1.1614265330.\xff\xfe\x00" == signed_content("msg_1", 1614265330, b"\xff\xfe\x00")


@pytest.mark.req("DEL-04", part="standard-hmac")
def test_standard_headers() -> None:
    """Signatures are a space-separated list in the order given."""
    assert {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,aa v1,bb",
    } == standard_headers("msg_1", 1614265330, ("v1,aa", "v1,bb"))
