"""Signing secrets and signers of both schemes."""

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.ground.errors import Defect, Malformed
from hookseal.ground.wire import Algorithm, Scheme, signed_content, x_webhook_content
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signer import (
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
def test_signatures_are_as_known(case: dict[str, Any]) -> None:
    """A signer gives, for the bytes of the wire, the signature that is known for them."""
    signer = Signer("ref", parse_signing_secret(case["secret"], Scheme.STANDARD), Scheme.STANDARD, Algorithm.HMAC)
    content = signed_content(case["id"], case["timestamp"], bytes.fromhex(case["body"]))

    assert case["signature"] == signer.sign(content)
    assert "ref" == signer.ref


@given(st.binary(min_size=24, max_size=64))
def test_every_key_of_24_to_64_bytes_is_taken_and_kept_as_it_is_spelled(key: bytes) -> None:
    """What is stored is the text of the secret, byte for byte."""
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
def test_anything_else_is_malformed_and_not_repeated(text: str) -> None:
    """Another prefix, 23 or 65 bytes, and base64 that is not the one spelling are refused without the value."""
    with pytest.raises(Malformed) as caught:
        parse_signing_secret(text, Scheme.STANDARD)

    assert "secret" == caught.value.field
    assert "signing secret must be whsec_ and the base64 of 24 to 64 bytes" == str(caught.value)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("case", vectors("x_webhook.json")["tests"], ids=lambda case: case["comment"])
def test_x_webhook_signatures_are_as_known(case: dict[str, Any]) -> None:
    """The key is the whole text, prefix and all, and the signature is spelled in hex."""
    signer = Signer("ref", parse_signing_secret(case["secret"], Scheme.X_WEBHOOK), Scheme.X_WEBHOOK, Algorithm.HMAC)

    assert case["signature"] == signer.sign(x_webhook_content(case["timestamp"], bytes.fromhex(case["body"])))
    assert Scheme.X_WEBHOOK is signer.scheme


@given(st.text(st.characters(codec="utf-8"), min_size=16, max_size=64))
def test_for_x_webhook_every_text_of_16_to_256_bytes_is_taken_as_it_is(text: str) -> None:
    """What is stored, and what signs, is the UTF-8 of the text, byte for byte."""
    stored = parse_signing_secret(text, Scheme.X_WEBHOOK)
    expected = "sha256=" + hmac.new(text.encode(), b"content", hashlib.sha256).hexdigest()

    assert text.encode() == stored.reveal()
    assert expected == Signer("ref", stored, Scheme.X_WEBHOOK, Algorithm.HMAC).sign(b"content")


@pytest.mark.parametrize(
    "text", ["", "x" * 15, "x" * 257, "\u00e4" * 129, "\u00e4" * 7 + "x", "x" * 16 + "\udcff"], ids=len
)
def test_for_x_webhook_anything_else_is_malformed_and_not_repeated(text: str) -> None:
    """15 bytes, 257 bytes, and what is no UTF-8 are refused without the value."""
    with pytest.raises(Malformed) as caught:
        parse_signing_secret(text, Scheme.X_WEBHOOK)

    assert "secret" == caught.value.field
    assert "signing secret must be a text of 16 to 256 bytes in UTF-8" == str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_generated_secret_is_the_base64_of_32_random_bytes() -> None:
    """The bytes asked for are 32, they stand in the secret, and what is generated parses."""
    generated = generate_signing_secret(random_bytes=lambda count: bytes(range(count)))

    assert _spelled(bytes(range(32))).encode() == generated.reveal()
    for scheme in Scheme:
        assert generated == parse_signing_secret(generated.reveal().decode(), scheme)


def test_each_generated_secret_is_another() -> None:
    """Without chance given it is drawn from the machine."""
    assert generate_signing_secret() != generate_signing_secret()


@pytest.mark.parametrize("stored", [b"plain text of an older system", b"whsec_\xff\xff", b"whsec_AAAA", b""])
def test_a_stored_secret_of_another_form_cannot_sign(stored: bytes) -> None:
    """What is stored but is no `whsec_` secret gives a definitive error, not a wrong signature."""
    with pytest.raises(SecretUnusable, match="scheme standard"):
        Signer("ref", SecretMaterial(stored), Scheme.STANDARD, Algorithm.HMAC)


@pytest.mark.req("SEC-12")
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=15))
def test_a_short_text_of_an_older_system_signs_once_it_is_stored(text: str) -> None:
    """Migration and import take 1 to 256 bytes as they are, and they sign; nobody else may store fewer than 16."""
    stored = SecretMaterial(text.encode())
    require_signing_secret(stored, Scheme.X_WEBHOOK, is_older=True)
    expected = "sha256=" + hmac.new(text.encode(), b"content", hashlib.sha256).hexdigest()

    assert expected == Signer("ref", stored, Scheme.X_WEBHOOK, Algorithm.HMAC).sign(b"content")
    if len(stored) < 16:
        with pytest.raises(Malformed, match="16 to 256 bytes"):
            require_signing_secret(stored, Scheme.X_WEBHOOK)


@pytest.mark.req("SEC-12")
@pytest.mark.parametrize("text", [b"", b"x" * 257, b"\xff" * 16, b"whpk_x", b"whsk_x"])
def test_not_everything_of_an_older_system_may_be_stored(text: bytes) -> None:
    """Nothing, more than 256 bytes, what is no UTF-8, and what looks like a key of ed25519 are refused there, too."""
    with pytest.raises(Malformed):
        require_signing_secret(SecretMaterial(text), Scheme.X_WEBHOOK, is_older=True)


@pytest.mark.parametrize("stored", [b"x" * 257, b"\xff" * 16, b""])
def test_a_stored_secret_of_another_length_or_no_text_cannot_sign_for_x_webhook(stored: bytes) -> None:
    """The same holds for the other scheme, and the error names it."""
    with pytest.raises(SecretUnusable, match="scheme x-webhook"):
        Signer("ref", SecretMaterial(stored), Scheme.X_WEBHOOK, Algorithm.HMAC)


def test_the_scheme_of_a_signer_is_standard_unless_it_is_told() -> None:
    """Signers say in which scheme they sign."""
    assert Scheme.STANDARD is Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC).scheme


def test_a_signer_that_forgot_signs_nothing() -> None:
    """After `forget`, once or twice, signing is a fault of ours; the reference is still known."""
    signer = Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)
    signer.forget()
    signer.forget()

    with pytest.raises(Defect):
        signer.sign(b"content")
    assert "ref" == signer.ref


def test_a_signer_is_frozen() -> None:
    """Nothing about a signer can be set from outside."""
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
def test_which_text_would_be_a_secret_of_standard_webhooks(text: bytes, fits: bool) -> None:
    """It is `whsec_` and the base64 of 24 bytes or more; any other text is one of `x-webhook` alone."""
    assert fits is fits_standard(SecretMaterial(text))
