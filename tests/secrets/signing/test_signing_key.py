"""Signing keys: their text forms, and which texts are refused."""

import base64
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Malformed, SecretUnusable
from hookseal.ground.wire import Algorithm, Scheme, signed_content
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import (
    Ed25519Key,
    HmacKey,
    Signer,
    SigningKey,
    ed25519_key,
    generate_signing_secret,
    parse_signing_secret,
    public_key_of,
    signing_key,
    spelled_pair,
)
from tests.vectors.reading import vectors

KNOWN: list[dict[str, Any]] = vectors("standard_v1a.json")["tests"]
RFC_8032: list[dict[str, str]] = vectors("standard_v1a.json")["rfc8032"]
PAIR: str = KNOWN[0]["secret"]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PUBLIC: str = KNOWN[0]["public_key"]
FORM = "signing key must be whsk_ and the base64 of 64 bytes, the seed and its public key"
NO_PUBLIC = "a whpk_ is a public key and signs nothing: give the whsk_ that it belongs to, for ed25519"


def _spelled(prefix: str, value: bytes) -> str:
    return prefix + base64.b64encode(value).decode()


def _bytes(spelled: str) -> bytes:
    return base64.b64decode(spelled.partition("_")[2])


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case["comment"])
def test_known_ed25519_signatures_are_made(case: dict[str, Any]) -> None:
    """An ed25519 signer makes the known `v1a` signature, and the secret gives the known public key."""
    secret = parse_signing_secret(case["secret"], Scheme.STANDARD, Algorithm.ED25519)
    signer = Signer("ref", secret, Scheme.STANDARD, Algorithm.ED25519)

    assert case["signature"] == signer.sign(signed_content(case["id"], case["timestamp"], bytes.fromhex(case["body"])))
    assert Algorithm.ED25519 is signer.algorithm
    assert case["public_key"] == public_key_of(secret)
    assert case["secret"].encode() == secret.reveal()


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("case", RFC_8032, ids=lambda case: case["message"])
def test_signatures_equal_those_of_rfc_8032(case: dict[str, str]) -> None:
    """Public key and signature of a seed are those of RFC 8032, 7.1."""
    key = ed25519_key(spelled_pair(bytes.fromhex(case["seed"])))

    assert case["public_key"] == key.public_key.hex()
    assert case["signature"] == key.sign(bytes.fromhex(case["message"])).hex()


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_spelled("whsk_", b""), FORM),
        (_spelled("whsk_", _bytes(PAIR)[:32]), FORM),
        (_spelled("whsk_", _bytes(PAIR)[:63]), FORM),
        (_spelled("whsk_", _bytes(PAIR) + b"x"), FORM),
        (_spelled("whsk_", _bytes(PAIR) + _bytes(PUBLIC)), FORM),
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
        (_spelled("whsec_", _bytes(PAIR)), FORM + ", and a whsec_ signs with hmac only"),
        (_spelled("whsec_", _bytes(PAIR)[:32]), FORM + ", and a whsec_ signs with hmac only"),
    ],
)
def test_an_invalid_key_pair_is_not_repeated(text: str, expected: str) -> None:
    """Another prefix or length, and non-canonical base64, are refused; the error says what to give instead."""
    with pytest.raises(Malformed) as caught:
        parse_signing_secret(text, Scheme.STANDARD, Algorithm.ED25519)

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
    """A seed with another public key than its own is refused, both when given and when stored."""
    text = _spelled("whsk_", _bytes(PAIR)[:32] + public)
    with pytest.raises(Malformed, match="the halves of the whsk_ do not belong together") as caught:
        parse_signing_secret(text, Scheme.STANDARD, Algorithm.ED25519)
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
        parse_signing_secret(text, scheme, Algorithm.HMAC)
    with pytest.raises(SecretUnusable, match=f"scheme {scheme} with hmac"):
        Signer("ref", SecretMaterial(text.encode()), scheme, Algorithm.HMAC)

    assert "secret" == caught.value.field
    assert str(caught.value).endswith(expected)
    assert text[6:16] not in str(caught.value)


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("text", [PAIR, SECRET, "x" * 16, ""])
def test_x_webhook_has_no_ed25519(text: str) -> None:
    """For any secret, the error names the algorithm and the scheme that supports it."""
    with pytest.raises(Malformed) as caught:
        parse_signing_secret(text, Scheme.X_WEBHOOK, Algorithm.ED25519)

    assert "algorithm" == caught.value.field
    assert "x-webhook signs with hmac only: for ed25519 take the scheme standard" == str(caught.value)
    with pytest.raises(SecretUnusable, match="scheme x-webhook with ed25519"):
        Signer("ref", SecretMaterial(text.encode()), Scheme.X_WEBHOOK, Algorithm.ED25519)


@pytest.mark.req("DEL-04", part="standard-ed25519")
def test_a_generated_pair_has_a_random_seed_of_32_bytes() -> None:
    """A generated pair has a seed of 32 random bytes with its public key, and is valid."""
    seed = bytes.fromhex(RFC_8032[0]["seed"])
    asked: list[int] = []

    def chance(count: int) -> bytes:
        asked.append(count)
        return seed

    generated = generate_signing_secret(Algorithm.ED25519, chance)

    assert [32] == asked
    assert _spelled("whsk_", seed + bytes.fromhex(RFC_8032[0]["public_key"])).encode() == generated.reveal()
    assert generated == parse_signing_secret(generated.reveal().decode(), Scheme.STANDARD, Algorithm.ED25519)
    assert generate_signing_secret(Algorithm.ED25519) != generate_signing_secret(Algorithm.ED25519)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_the_text_of_a_pair_is_stored_unchanged(seed: bytes, content: bytes) -> None:
    """The text of a pair is stored byte for byte, and its signatures are deterministic."""
    text = spelled_pair(seed).decode()
    stored = parse_signing_secret(text, Scheme.STANDARD, Algorithm.ED25519)
    signed = {Signer("ref", stored, Scheme.STANDARD, Algorithm.ED25519).sign(content) for _ in range(2)}

    assert text.encode() == stored.reveal()
    assert (1, {"v1a"}) == (len(signed), {signature.partition(",")[0] for signature in signed})


@pytest.mark.parametrize("text", [SECRET, "any other text of x-webhook", "whsk_AAAA", PUBLIC, ""])
def test_only_a_pair_has_a_public_key(text: str) -> None:
    """A text that is not a valid `whsk_` has no public key."""
    assert public_key_of(SecretMaterial(text.encode())) is None


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize(
    "leave",
    [pickle.dumps, copy.copy, copy.deepcopy, lambda key: key.__reduce__(), lambda key: key.__getstate__()],
)
@pytest.mark.parametrize(
    "key",
    [
        signing_key(PAIR.encode(), Scheme.STANDARD, Algorithm.ED25519),
        signing_key(SECRET.encode(), Scheme.STANDARD, Algorithm.HMAC),
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_key_is_masked_and_not_copied(leave: Callable[[object], object], key: SigningKey) -> None:
    """A key of either kind can be neither copied nor pickled, and its text forms are masked."""
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        leave(key)

    assert isinstance(key, HmacKey | Ed25519Key)
    assert all(word not in f"{key!r} {key}" for word in ("MfKQ", repr(_bytes(SECRET))[2:10], "6Xb"))
