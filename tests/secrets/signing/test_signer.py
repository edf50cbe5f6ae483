"""Signing secrets and signers of both schemes with HMAC."""

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Defect, Malformed, SecretUnusable
from hookseal.ground.wire import Algorithm, Scheme, signed_content, x_webhook_content
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import (
    Signer,
    fits_standard,
    generate_signing_secret,
    parse_signing_secret,
    require_signing_secret,
)
from tests.secrets.samples import SECRET
from tests.vectors.reading import vectors

KEY = bytes(range(64, 128))


def _spelled(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@pytest.mark.req("DEL-04", part="standard-hmac")
@pytest.mark.parametrize("case", vectors("standard_v1.json")["tests"], ids=lambda case: case["comment"])
def test_known_standard_signatures_are_made(case: dict[str, Any]) -> None:
    """A signer makes the known signature of the signed bytes."""
    signer = Signer("ref", parse_signing_secret(case["secret"], Scheme.STANDARD), Scheme.STANDARD, Algorithm.HMAC)
    content = signed_content(case["id"], case["timestamp"], bytes.fromhex(case["body"]))

    assert case["signature"] == signer.sign(content)
    assert "ref" == signer.ref


@given(st.binary(min_size=24, max_size=64))
def test_a_key_of_24_to_64_bytes_is_stored_unchanged(key: bytes) -> None:
    """A key of 24 to 64 bytes is accepted; its text is stored byte for byte."""
    assert _spelled(key).encode() == parse_signing_secret(_spelled(key), Scheme.STANDARD).reveal()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "w",
        "whsec_",
        "whsec_%",
        "whsec_wronglength",
        "hwsec_" + _spelled(KEY[:24])[6:],
        "WHSEC_" + _spelled(KEY[:24])[6:],
        _spelled(KEY[:24])[6:],
        "bm90LXZhbGlkCg==",
        _spelled(KEY[:23]),
        _spelled(KEY + b"x"),
        _spelled(KEY[:25]).rstrip("="),
        _spelled(KEY[:25]) + "=",
        _spelled(KEY[:25])[:-3] + "B==",
        _spelled(KEY[:24]) + "\n",
        " " + _spelled(KEY[:24]),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 24).decode(),
        "whsec_" + "\u00e4" * 32,
        "whsec_" + "\udcff" * 32,
    ],
)
def test_an_invalid_standard_secret_is_not_repeated(text: str) -> None:
    """Another prefix, 23 or 65 bytes, and non-canonical base64 are refused without the value."""
    with pytest.raises(Malformed) as caught:
        parse_signing_secret(text, Scheme.STANDARD)

    assert "secret" == caught.value.field
    assert "signing secret must be whsec_ and the base64 of 24 to 64 bytes" == str(caught.value)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("case", vectors("x_webhook.json")["tests"], ids=lambda case: case["comment"])
def test_known_x_webhook_signatures_are_made(case: dict[str, Any]) -> None:
    """The key is the whole text including any prefix, and the signature is in hex."""
    signer = Signer("ref", parse_signing_secret(case["secret"], Scheme.X_WEBHOOK), Scheme.X_WEBHOOK, Algorithm.HMAC)

    assert case["signature"] == signer.sign(x_webhook_content(case["timestamp"], bytes.fromhex(case["body"])))
    assert Scheme.X_WEBHOOK is signer.scheme


@given(st.text(st.characters(codec="utf-8"), min_size=16, max_size=64))
def test_an_x_webhook_text_of_16_to_256_bytes_is_stored_unchanged(text: str) -> None:
    """The UTF-8 bytes of the text are stored, and are the key."""
    stored = parse_signing_secret(text, Scheme.X_WEBHOOK)
    expected = "sha256=" + hmac.new(text.encode(), b"content", hashlib.sha256).hexdigest()

    assert text.encode() == stored.reveal()
    assert expected == Signer("ref", stored, Scheme.X_WEBHOOK, Algorithm.HMAC).sign(b"content")


@pytest.mark.parametrize(
    "text", ["", "x" * 15, "x" * 257, "\u00e4" * 129, "\u00e4" * 7 + "x", "x" * 16 + "\udcff"], ids=len
)
def test_an_invalid_x_webhook_secret_is_not_repeated(text: str) -> None:
    """15 bytes, 257 bytes, and text that is not UTF-8 are refused without the value."""
    with pytest.raises(Malformed) as caught:
        parse_signing_secret(text, Scheme.X_WEBHOOK)

    assert "secret" == caught.value.field
    assert "signing secret must be a text of 16 to 256 bytes in UTF-8" == str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_generated_secret_is_the_base64_of_32_random_bytes() -> None:
    """A generated secret has 32 random bytes and is valid in both schemes."""
    generated = generate_signing_secret(random_bytes=lambda count: bytes(range(count)))

    assert _spelled(bytes(range(32))).encode() == generated.reveal()
    for scheme in Scheme:
        assert generated == parse_signing_secret(generated.reveal().decode(), scheme)


def test_each_generated_secret_is_different() -> None:
    """By default the random bytes come from the system, so each secret differs."""
    assert generate_signing_secret() != generate_signing_secret()


@pytest.mark.parametrize("stored", [b"plain text of an older system", b"whsec_\xff\xff", b"whsec_AAAA", b""])
def test_a_stored_secret_of_another_form_cannot_sign(stored: bytes) -> None:
    """A stored secret that is not a valid `whsec_` is a definitive error, not a wrong signature."""
    with pytest.raises(SecretUnusable, match="scheme standard"):
        Signer("ref", SecretMaterial(stored), Scheme.STANDARD, Algorithm.HMAC)


@pytest.mark.req("SEC-12")
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=15))
def test_a_migrated_text_may_have_1_to_256_bytes(text: str) -> None:
    """Migration and import accept texts of 1 to 256 bytes; new secrets need at least 16."""
    stored = SecretMaterial(text.encode())
    require_signing_secret(stored, Scheme.X_WEBHOOK, is_older=True)
    expected = "sha256=" + hmac.new(text.encode(), b"content", hashlib.sha256).hexdigest()

    assert expected == Signer("ref", stored, Scheme.X_WEBHOOK, Algorithm.HMAC).sign(b"content")
    if len(stored) < 16:
        with pytest.raises(Malformed, match="16 to 256 bytes"):
            require_signing_secret(stored, Scheme.X_WEBHOOK)


@pytest.mark.req("SEC-12")
@pytest.mark.parametrize("text", [b"", b"x" * 257, b"\xff" * 16, b"whpk_x", b"whsk_x"])
def test_an_unusable_text_is_not_migrated(text: bytes) -> None:
    """Empty text, more than 256 bytes, non-UTF-8 and ed25519 keys are refused for older systems, too."""
    with pytest.raises(Malformed):
        require_signing_secret(SecretMaterial(text), Scheme.X_WEBHOOK, is_older=True)


@pytest.mark.parametrize("stored", [b"x" * 257, b"\xff" * 16, b""])
def test_an_invalid_stored_secret_cannot_sign_for_x_webhook(stored: bytes) -> None:
    """A stored secret that is invalid for `x-webhook` is a definitive error, which names the scheme."""
    with pytest.raises(SecretUnusable, match="scheme x-webhook"):
        Signer("ref", SecretMaterial(stored), Scheme.X_WEBHOOK, Algorithm.HMAC)


def test_a_signer_states_its_scheme() -> None:
    """A signer states its scheme, by default `standard`."""
    assert Scheme.STANDARD is Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC).scheme


def test_a_signer_signs_nothing_after_forget() -> None:
    """After `forget`, which may be repeated, signing is a `Defect`; the ref is still known."""
    signer = Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)
    signer.forget()
    signer.forget()

    with pytest.raises(Defect):
        signer.sign(b"content")
    assert "ref" == signer.ref


def test_a_signer_is_frozen() -> None:
    """No attribute of a signer can be set."""
    signer = Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)

    with pytest.raises(AttributeError):
        signer.ref = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        signer.extra = 1  # type: ignore[attr-defined]


@pytest.mark.req("SEC-12")
@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (b"whsec_" + base64.b64encode(bytes(24)), True),
        (b"whsec_" + base64.b64encode(bytes(23)), False),
        (base64.b64encode(bytes(24)), False),
    ],
)
def test_only_whsec_with_24_or_more_bytes_fits_standard(text: bytes, fits: bool) -> None:
    """`whsec_` with the base64 of 24 or more bytes fits `standard`; any other text fits only `x-webhook`."""
    assert fits is fits_standard(SecretMaterial(text))
