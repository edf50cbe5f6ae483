"""A request with an endpoint's own headers shows none of their values and cannot be copied out of the process."""

import copy
import pickle
from collections.abc import Callable

import msgspec
import pytest

from hookseal.dispatcher.core.model import Request
from hookseal.ground.ids import TenantId
from hookseal.secrets.core.material import SecretMaterial

CANARY = "canary-4f1d"
REQUEST = Request(
    tenant_id=TenantId("acme"),
    url="https://receiver.example/hook",
    headers={"webhook-id": "d1"},
    body=b"{}",
    start_by=2,
    timeout_seconds=5,
    sealed_headers={"authorization": SecretMaterial(f"Bearer {CANARY}".encode())},
)


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    "shown",
    [
        *(repr, str, "{}".format, "{0!r}".format, lambda it: repr(it.sealed_headers)),
        lambda it: msgspec.json.encode(it, enc_hook=str).decode(),
    ],
)
def test_no_text_form_shows_a_value(shown: Callable[[Request], str]) -> None:
    """No text form of a request contains a value of the endpoint's own headers."""
    text = shown(REQUEST)

    assert CANARY not in text
    assert CANARY.encode().hex() not in text


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_request_is_not_pickled_or_copied(copied: Callable[[Request], object]) -> None:
    """A request with such values can be neither pickled nor copied."""
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copied(REQUEST)


def test_the_default_is_no_own_headers() -> None:
    """By default a request has no own headers, and no two requests share the empty mapping."""
    one, other = (
        Request(tenant_id=TenantId("acme"), url="u", headers={}, body=b"", start_by=2, timeout_seconds=5)
        for _ in range(2)
    )

    assert {} == one.sealed_headers
    assert one.sealed_headers is not other.sealed_headers
