"""Signing secrets and key pairs: their text forms, which texts are refused, and known signatures."""

import base64
import copy
import hashlib
import hmac
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Defect, Malformed, SecretUnusable
from hookseal.ground.wire import Algorithm, Scheme, signed_content, x_webhook_content
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import (
    Ed25519Key,
    HmacKey,
    Signer,
    SigningKey,
    ed25519_key,
    fits_standard,
    generate_signing_secret,
    public_key_of,
    require_signing_secret,
    signing_key,
    spelled_pair,
)
from tests.secrets.samples import SECRET, signing_secret
from tests.vectors.reading import vectors

KEY = bytes(range(64, 128))


def _spelled(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


@pytest.mark.req("DEL-04", part="standard-hmac")
@pytest.mark.parametrize("case", vectors("standard_v1.json")["tests"], ids=lambda case: case["comment"])
def test_known_standard_signatures_are_made(case: dict[str, Any]) -> None:
    signer = Signer("ref", signing_secret(case["secret"], Scheme.STANDARD), Scheme.STANDARD, Algorithm.HMAC)
    content = signed_content(case["id"], case["timestamp"], bytes.fromhex(case["body"]))

    assert case["signature"] == signer.sign(content)
    assert "ref" == signer.ref


@given(st.binary(min_size=24, max_size=64))
def test_a_key_of_24_to_64_bytes_is_stored_unchanged(key: bytes) -> None:
    assert _spelled(key).encode() == signing_secret(_spelled(key), Scheme.STANDARD).reveal()


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
    with pytest.raises(Malformed) as caught:
        signing_secret(text, Scheme.STANDARD)

    assert "secret" == caught.value.field
    assert "signing secret must be whsec_ and the base64 of 24 to 64 bytes" == str(caught.value)


@pytest.mark.req("DEL-04", part="x-webhook")
@pytest.mark.parametrize("case", vectors("x_webhook.json")["tests"], ids=lambda case: case["comment"])
def test_known_x_webhook_signatures_are_made(case: dict[str, Any]) -> None:
    signer = Signer("ref", signing_secret(case["secret"], Scheme.X_WEBHOOK), Scheme.X_WEBHOOK, Algorithm.HMAC)

    assert case["signature"] == signer.sign(x_webhook_content(case["timestamp"], bytes.fromhex(case["body"])))
    assert Scheme.X_WEBHOOK is signer.scheme


@given(st.text(st.characters(codec="utf-8"), min_size=16, max_size=64))
def test_an_x_webhook_text_of_16_to_256_bytes_is_stored_unchanged(text: str) -> None:
    stored = signing_secret(text, Scheme.X_WEBHOOK)
    expected = "sha256=" + hmac.new(text.encode(), b"content", hashlib.sha256).hexdigest()

    assert text.encode() == stored.reveal()
    assert expected == Signer("ref", stored, Scheme.X_WEBHOOK, Algorithm.HMAC).sign(b"content")


@pytest.mark.parametrize(
    "text", ["", "x" * 15, "x" * 257, "\u00e4" * 129, "\u00e4" * 7 + "x", "x" * 16 + "\udcff"], ids=len
)
def test_an_invalid_x_webhook_secret_is_not_repeated(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        signing_secret(text, Scheme.X_WEBHOOK)

    assert "secret" == caught.value.field
    assert "signing secret must be a text of 16 to 256 bytes in UTF-8" == str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_generated_secret_is_the_base64_of_32_random_bytes() -> None:
    generated = generate_signing_secret(random_bytes=lambda count: bytes(range(count)))

    assert _spelled(bytes(range(32))).encode() == generated.reveal()
    for scheme in Scheme:
        assert generated == signing_secret(generated.reveal().decode(), scheme)


def test_each_generated_secret_is_different() -> None:
    assert generate_signing_secret() != generate_signing_secret()


@pytest.mark.parametrize("stored", [b"plain text of an older system", b"whsec_\xff\xff", b"whsec_AAAA", b""])
def test_a_stored_secret_of_another_form_cannot_sign(stored: bytes) -> None:
    with pytest.raises(SecretUnusable, match="scheme standard"):
        Signer("ref", SecretMaterial(stored), Scheme.STANDARD, Algorithm.HMAC)


@pytest.mark.req("SEC-12")
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=15))
def test_a_migrated_text_may_have_1_to_256_bytes(text: str) -> None:
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
    with pytest.raises(SecretUnusable, match="scheme x-webhook"):
        Signer("ref", SecretMaterial(stored), Scheme.X_WEBHOOK, Algorithm.HMAC)


def test_a_signer_signs_nothing_after_forget() -> None:
    signer = Signer("ref", SECRET, Scheme.STANDARD, Algorithm.HMAC)
    signer.forget()
    signer.forget()

    with pytest.raises(Defect):
        signer.sign(b"content")
    assert "ref" == signer.ref


def test_a_signer_is_frozen() -> None:
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
    assert fits is fits_standard(SecretMaterial(text))


# Signing keys: their text forms, and which texts are refused.

KNOWN: list[dict[str, Any]] = vectors("standard_v1a.json")["tests"]
RFC_8032: list[dict[str, str]] = vectors("standard_v1a.json")["rfc8032"]
PAIR: str = KNOWN[0]["secret"]
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PUBLIC: str = KNOWN[0]["public_key"]
FORM = "signing key must be whsk_ and the base64 of 64 bytes, the seed and its public key"
NO_PUBLIC = "a whpk_ is a public key and signs nothing: give the whsk_ that it belongs to, for ed25519"


def _text_of(prefix: str, value: bytes) -> str:
    return prefix + base64.b64encode(value).decode()


def _bytes(spelled: str) -> bytes:
    return base64.b64decode(spelled.partition("_")[2])


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case["comment"])
def test_known_ed25519_signatures_are_made(case: dict[str, Any]) -> None:
    secret = signing_secret(case["secret"], Scheme.STANDARD, Algorithm.ED25519)
    signer = Signer("ref", secret, Scheme.STANDARD, Algorithm.ED25519)

    assert case["signature"] == signer.sign(signed_content(case["id"], case["timestamp"], bytes.fromhex(case["body"])))
    assert Algorithm.ED25519 is signer.algorithm
    assert case["public_key"] == public_key_of(secret)
    assert case["secret"].encode() == secret.reveal()


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("case", RFC_8032, ids=lambda case: case["message"])
def test_signatures_equal_those_of_rfc_8032(case: dict[str, str]) -> None:
    key = ed25519_key(spelled_pair(bytes.fromhex(case["seed"])))

    assert case["public_key"] == key.public_key.hex()
    assert case["signature"] == key.sign(bytes.fromhex(case["message"])).hex()


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_text_of("whsk_", b""), FORM),
        (_text_of("whsk_", _bytes(PAIR)[:32]), FORM),
        (_text_of("whsk_", _bytes(PAIR)[:63]), FORM),
        (_text_of("whsk_", _bytes(PAIR) + b"x"), FORM),
        (_text_of("whsk_", _bytes(PAIR) + _bytes(PUBLIC)), FORM),
        (PAIR + "\n", FORM),
        (" " + PAIR, FORM),
        (PAIR.removesuffix("=="), FORM),
        (PAIR[:-3] + "h==", FORM),
        (PAIR.replace("/", "_").replace("+", "-"), FORM),
        (PAIR.replace("whsk_", "WHSK_"), FORM),
        (PAIR.removeprefix("whsk_"), FORM),
        ("whsk_%", FORM),
        ("whsk_" + "\u00e4" * 86 + "==", FORM),
        ("", FORM),
        ("any text of an older system", FORM),
        (PUBLIC, NO_PUBLIC),
        ("whpk_", NO_PUBLIC),
        (" " + PUBLIC, NO_PUBLIC),
        (_text_of("whsec_", _bytes(PAIR)), FORM + ", and a whsec_ signs with hmac only"),
        (_text_of("whsec_", _bytes(PAIR)[:32]), FORM + ", and a whsec_ signs with hmac only"),
    ],
)
def test_an_invalid_key_pair_is_not_repeated(text: str, expected: str) -> None:
    with pytest.raises(Malformed) as caught:
        signing_secret(text, Scheme.STANDARD, Algorithm.ED25519)

    assert ("secret", expected) == (caught.value.field, str(caught.value))
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize(
    "public",
    [
        _bytes("_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlaaaaaaaaaaAJ6p9lMicMFs6Kvg==")[32:],
        _bytes(PAIR)[:32],
        bytes([_bytes(PUBLIC)[0] ^ 1]) + _bytes(PUBLIC)[1:],
        _bytes(PUBLIC)[:31] + bytes([_bytes(PUBLIC)[31] ^ 0x80]),
        bytes(32),
    ],
    ids=bytes.hex,
)
def test_a_seed_with_another_public_key_is_refused(public: bytes) -> None:
    text = _text_of("whsk_", _bytes(PAIR)[:32] + public)
    with pytest.raises(Malformed, match="the halves of the whsk_ do not belong together") as caught:
        signing_secret(text, Scheme.STANDARD, Algorithm.ED25519)
    with pytest.raises(SecretUnusable, match="in the scheme standard with ed25519: rotate it"):
        Signer("ref", SecretMaterial(text.encode()), Scheme.STANDARD, Algorithm.ED25519)

    assert text[5:15] not in str(caught.value)
    assert public_key_of(SecretMaterial(text.encode())) is None


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PAIR, ", and a whsk_ signs with ed25519 only"),
        (PAIR.upper(), ", and a whsk_ signs with ed25519 only"),
        ("whsk_ and any other text", ", and a whsk_ signs with ed25519 only"),
        (" '" + PAIR, ", and a whsk_ signs with ed25519 only"),
        (PUBLIC, NO_PUBLIC),
        (PUBLIC.upper(), NO_PUBLIC),
        ("whpk_ and any other text", NO_PUBLIC),
        ("\ufeff" + PUBLIC, NO_PUBLIC),
        ('"' + PUBLIC + '"', NO_PUBLIC),
    ],
)
def test_an_ed25519_key_is_never_an_hmac_key(scheme: Scheme, text: str, expected: str) -> None:
    """A `whsk_` or `whpk_`, however it is written, is never an HMAC key: the public key could then sign."""
    with pytest.raises(Malformed) as caught:
        signing_secret(text, scheme, Algorithm.HMAC)
    with pytest.raises(SecretUnusable, match=f"scheme {scheme} with hmac"):
        Signer("ref", SecretMaterial(text.encode()), scheme, Algorithm.HMAC)

    assert "secret" == caught.value.field
    assert str(caught.value).endswith(expected)
    assert text[6:16] not in str(caught.value)


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("text", [PAIR, WHSEC, "x" * 16, ""])
def test_x_webhook_has_no_ed25519(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        signing_secret(text, Scheme.X_WEBHOOK, Algorithm.ED25519)

    assert "algorithm" == caught.value.field
    assert "x-webhook signs with hmac only: for ed25519 take the scheme standard" == str(caught.value)
    with pytest.raises(SecretUnusable, match="scheme x-webhook with ed25519"):
        Signer("ref", SecretMaterial(text.encode()), Scheme.X_WEBHOOK, Algorithm.ED25519)


@pytest.mark.req("DEL-04", part="standard-ed25519")
def test_a_generated_pair_has_a_random_seed_of_32_bytes() -> None:
    seed = bytes.fromhex(RFC_8032[0]["seed"])
    asked: list[int] = []

    def chance(count: int) -> bytes:
        asked.append(count)
        return seed

    generated = generate_signing_secret(Algorithm.ED25519, chance)

    assert [32] == asked
    assert _text_of("whsk_", seed + bytes.fromhex(RFC_8032[0]["public_key"])).encode() == generated.reveal()
    assert generated == signing_secret(generated.reveal().decode(), Scheme.STANDARD, Algorithm.ED25519)
    assert generate_signing_secret(Algorithm.ED25519) != generate_signing_secret(Algorithm.ED25519)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_the_text_of_a_pair_is_stored_unchanged(seed: bytes, content: bytes) -> None:
    text = spelled_pair(seed).decode()
    stored = signing_secret(text, Scheme.STANDARD, Algorithm.ED25519)
    signed = {Signer("ref", stored, Scheme.STANDARD, Algorithm.ED25519).sign(content) for _ in range(2)}

    assert text.encode() == stored.reveal()
    assert (1, {"v1a"}) == (len(signed), {signature.partition(",")[0] for signature in signed})


@pytest.mark.parametrize("text", [WHSEC, "any other text of x-webhook", "whsk_AAAA", PUBLIC, ""])
def test_only_a_pair_has_a_public_key(text: str) -> None:
    assert public_key_of(SecretMaterial(text.encode())) is None


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize(
    "leave", [pickle.dumps, copy.copy, copy.deepcopy, lambda key: key.__reduce__(), lambda key: key.__getstate__()]
)
@pytest.mark.parametrize(
    "key",
    [
        signing_key(PAIR.encode(), Scheme.STANDARD, Algorithm.ED25519),
        signing_key(WHSEC.encode(), Scheme.STANDARD, Algorithm.HMAC),
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_key_is_masked_and_not_copied(leave: Callable[[object], object], key: SigningKey) -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        leave(key)

    assert isinstance(key, HmacKey | Ed25519Key)
    assert all(word not in f"{key!r} {key}" for word in ("MfKQ", repr(_bytes(WHSEC))[2:10], "6Xb"))
