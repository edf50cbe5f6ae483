"""Public keys at a receiver: what they verify, which are refused, and that no key works as another kind."""

import base64
import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from hookseal.ground.wire import Scheme, signed_content, x_webhook_content
from hookseal.receiver import (
    MalformedHeader,
    NoMatchingSignature,
    UntrimmedSecret,
    UnusableSecret,
    Verified,
    verify,
)
from tests.receiver.requests import AT, BODY, KNOWN, OTHER_SECRET, SECRET, X_SECRET, standard, x_webhook
from tests.vectors.reading import vectors

pytestmark = pytest.mark.req("SEC-20")

CASES: list[dict[str, Any]] = vectors("standard_v1a.json")["tests"]
ASYMMETRIC = CASES[0]
PUBLIC: str = ASYMMETRIC["public_key"]
PRIVATE: str = ASYMMETRIC["secret"]
OTHER_PUBLIC: str = CASES[-1]["public_key"]
SIGNATURE: str = ASYMMETRIC["signature"]
CONTENT = signed_content(KNOWN["id"], AT, BODY)
FIELD_PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
EIGHTH = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03"
OTHER_EIGHTH = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc"
SMALL_ORDER = [
    "01" + "00" * 31,
    "ec" + "ff" * 30 + "7f",
    "00" * 31 + "00",
    "00" * 31 + "80",
    EIGHTH + "7a",
    EIGHTH + "fa",
    OTHER_EIGHTH + "05",
    OTHER_EIGHTH + "85",
]
NOT_CANONICAL = [
    "01" + "00" * 30 + "80",
    "ec" + "ff" * 31,
    "ed" + "ff" * 30 + "7f",
    "ed" + "ff" * 31,
    "ee" + "ff" * 30 + "7f",
    "ee" + "ff" * 31,
]


def _spelled(prefix: str, value: bytes) -> str:
    return prefix + base64.b64encode(value).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text.replace(",", "_").partition("_")[2])


def _fits(key: bytes, signature: bytes, content: bytes) -> bool:
    """Return what the cipher library says by itself."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, content)
    except InvalidSignature:
        return False
    return True


@pytest.mark.req("DEL-04", part="standard-ed25519")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["comment"])
def test_known_signatures_verify(case: dict[str, Any]) -> None:
    """The public key verifies known ed25519 signatures of other programs, for any bytes of a body."""
    verified = verify(bytes.fromhex(case["body"]), standard(case), [case["public_key"]], now=case["timestamp"])

    assert (
        Verified(delivery_id=case["id"], timestamp=case["timestamp"], scheme=Scheme.STANDARD, secret_number=1)
        == verified
    )


@given(
    st.binary(min_size=32, max_size=32),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1, max_size=64),
    st.integers(0, 2**37),
    st.binary(max_size=100),
)
def test_every_private_keys_signature_verifies(seed: bytes, delivery: str, at: int, body: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    signature = _spelled("v1a,", key.sign(f"{delivery}.{at}.".encode() + body))
    headers = {"webhook-id": delivery, "webhook-timestamp": str(at), "webhook-signature": signature}
    public = _spelled("whpk_", key.public_key().public_bytes_raw())

    assert delivery == verify(body, headers, [public], now=at, tolerance_seconds=0).delivery_id


def test_a_list_may_have_keys_of_every_kind() -> None:
    """A list may hold secrets, texts and public keys; the number of the matching one is returned, from 1."""
    keys = [OTHER_PUBLIC, "not the secret, and no base64", X_SECRET, SECRET, PUBLIC]

    assert 4 == verify(BODY, standard(), keys, now=AT).secret_number
    assert 5 == verify(BODY, standard(ASYMMETRIC), keys, now=AT).secret_number
    assert 3 == verify(BODY, x_webhook(), keys, now=AT).secret_number


@pytest.mark.parametrize(
    "entries",
    [
        [KNOWN["signature"], SIGNATURE],
        [SIGNATURE, KNOWN["signature"]],
        ["v1a,AAAA", "v2,AAAA", SIGNATURE, KNOWN["signature"], "v1a", "", "v1a,\u00e9"],
    ],
)
def test_in_a_change_of_algorithm_either_key_suffices(entries: list[str]) -> None:
    """While a secret and a private key both sign, the receiver needs only one of the two."""
    headers = standard(signature=" ".join(entries))

    for secrets in ([SECRET], [PUBLIC], [OTHER_SECRET, PUBLIC], [OTHER_PUBLIC, SECRET]):
        assert len(secrets) == verify(BODY, headers, secrets, now=AT).secret_number
    with pytest.raises(NoMatchingSignature):
        verify(BODY, headers, [OTHER_SECRET, OTHER_PUBLIC], now=AT)


def test_in_an_overlap_each_public_key_verifies() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    other = _spelled("whpk_", key.public_key().public_bytes_raw())
    headers = standard(signature=f"{_spelled('v1a,', key.sign(CONTENT))} {SIGNATURE}")

    assert [1, 1, 1] == [
        verify(BODY, headers, keys, now=AT).secret_number for keys in ([other], [PUBLIC], [PUBLIC, other])
    ]


def _flipped(value: bytes) -> Iterator[bytes]:
    for n in range(len(value) * 8):
        yield bytes([*value[: n // 8], value[n // 8] ^ 1 << n % 8, *value[n // 8 + 1 :]])


def test_a_flipped_bit_does_not_match() -> None:
    for body in (*_flipped(BODY), BODY + b"\n", BODY[:-1], b""):
        with pytest.raises(NoMatchingSignature):
            verify(body, standard(ASYMMETRIC), [PUBLIC], now=AT)
    for signature in _flipped(_decoded(SIGNATURE)):
        with pytest.raises(NoMatchingSignature):
            verify(BODY, standard(signature=_spelled("v1a,", signature)), [PUBLIC], now=AT)
    for headers in (standard(ASYMMETRIC, timestamp=str(AT + 1)), standard(ASYMMETRIC, id="msg_other")):
        with pytest.raises(NoMatchingSignature):
            verify(BODY, headers, [PUBLIC], now=AT)


@pytest.mark.parametrize(
    "signature",
    [
        "v1a,",
        "v1a",
        SIGNATURE[:-1],
        SIGNATURE[:-2],
        SIGNATURE + "=",
        SIGNATURE + "\n",
        SIGNATURE[:-3] + "R==",
        SIGNATURE.removeprefix("v1a,"),
        SIGNATURE.replace("v1a,", "v1,"),
        SIGNATURE.replace("v1a,", "v1b,"),
        SIGNATURE.replace("v1a,", "V1A,"),
        SIGNATURE.replace("v1a,", "v1a, "),
        SIGNATURE.replace("+", "-").replace("/", "_"),
        _spelled("v1a,", _decoded(SIGNATURE)[:63]),
        _spelled("v1a,", _decoded(SIGNATURE) + b"\0"),
        "v1a,Zo\u00eb \udcff",
        "v1a," + "\u00e4" * 88,
    ],
)
def test_a_malformed_signature_does_not_match(signature: str) -> None:
    """A truncated signature, or one of another version or encoding, does not match, and no other error occurs."""
    with pytest.raises(NoMatchingSignature):
        verify(BODY, standard(signature=signature), [PUBLIC], now=AT)


@pytest.mark.parametrize("key", [PRIVATE, PRIVATE.upper(), "whsk_AAAA", f" {PRIVATE}", f"{PRIVATE}\n", f'"{PRIVATE}"'])
@pytest.mark.parametrize("headers", [standard(ASYMMETRIC), standard(), x_webhook()])
def test_a_private_key_is_refused(key: str, headers: dict[str, str]) -> None:
    """No receiver may have a private key: the error says what to use instead, and does not repeat the key."""
    with pytest.raises(UnusableSecret, match=r"^secret 2 is a private key .* use the public key \(whpk_\)") as caught:
        verify(BODY, headers, [SECRET, key], now=AT)

    assert PRIVATE[5:20].lower() not in str(caught.value).lower()


@pytest.mark.parametrize(
    "key",
    [
        "whpk_",
        "whpk_%",
        PUBLIC[:-1],
        PUBLIC + "=",
        PUBLIC[:-2] + "5=",
        PUBLIC.replace("whpk_", "WHPK_"),
        f"'{PUBLIC}'",
        f"\ufeff{PUBLIC}",
        _spelled("whpk_", _decoded(PUBLIC)[:31]),
        _spelled("whpk_", _decoded(PUBLIC) + b"\0"),
        _spelled("whpk_", _decoded(PRIVATE)),
        "whpk_" + "\u00e4" * 43 + "=",
    ],
)
@pytest.mark.parametrize("headers", [standard(ASYMMETRIC), standard(), x_webhook()])
def test_a_public_key_has_one_form(key: str, headers: dict[str, str]) -> None:
    """A public key has one valid form; similar texts are neither ignored nor used as an HMAC text."""
    with pytest.raises(UnusableSecret, match=r"^secret 3 is not a public key .* base64 of 32 bytes"):
        verify(BODY, headers, [SECRET, X_SECRET, key], now=AT)


@pytest.mark.parametrize("padded", ["{}\n", "{}\r\n", " {}", "\t{} "], ids=repr)
def test_white_space_around_a_public_key_is_named(padded: str) -> None:
    with pytest.raises(UntrimmedSecret, match="secret 1 is a public key with white space around it: strip it"):
        verify(BODY, standard(ASYMMETRIC), [padded.format(PUBLIC)], now=AT)


@pytest.mark.parametrize(
    "key",
    [PUBLIC.encode(), PUBLIC.removeprefix("whpk_").encode(), _decoded(PUBLIC), _decoded(PRIVATE), PRIVATE.encode()],
)
def test_a_public_key_is_no_key_of_hmac(key: bytes) -> None:
    """An HMAC keyed with the text or the bytes of a public key is refused, in each scheme and version."""
    digest = hmac.digest(key, CONTENT, "sha256")
    forged = [
        standard(signature=_spelled("v1,", digest)),
        standard(signature=_spelled("v1a,", digest)),
        standard(signature=_spelled("v1a,", digest * 2)),
        standard(signature=_spelled("v1a,", hmac.digest(key, CONTENT, "sha512"))),
        x_webhook(signature="sha256=" + hmac.new(key, x_webhook_content(AT, BODY), "sha256").hexdigest()),
    ]
    for headers in forged:
        for secrets in ([PUBLIC], [PUBLIC, SECRET], [PUBLIC, X_SECRET]):
            with pytest.raises((NoMatchingSignature, UnusableSecret)):
                verify(BODY, headers, secrets, now=AT)


@pytest.mark.parametrize("prefix", ["whsec_", ""])
@pytest.mark.parametrize("half", [slice(0, 32), slice(32, 64), slice(0, 64)])
def test_a_key_of_hmac_verifies_no_ed25519(prefix: str, half: slice) -> None:
    """A secret whose bytes are a seed or a public key does not verify what the private key signed."""
    secret = _spelled(prefix, _decoded(PRIVATE)[half])
    with pytest.raises(NoMatchingSignature):
        verify(BODY, standard(ASYMMETRIC), [secret], now=AT)
    with pytest.raises(NoMatchingSignature):
        verify(BODY, standard(signature=SIGNATURE.replace("v1a,", "v1,")), [secret, PUBLIC], now=AT)


def test_a_key_of_the_other_kind_names_the_missing_one() -> None:
    """If keys and signatures are of different kinds, the error says which key is missing."""
    with pytest.raises(
        NoMatchingSignature, match=r"with ed25519 only \(v1a\): pass the endpoint's public key \(whpk_\)"
    ):
        verify(BODY, standard(ASYMMETRIC), [SECRET, X_SECRET], now=AT)
    with pytest.raises(NoMatchingSignature, match=r"with HMAC only \(v1\): pass the endpoint's secret \(whsec_\)"):
        verify(BODY, standard(), [PUBLIC, OTHER_PUBLIC], now=AT)
    with pytest.raises(UnusableSecret, match="none of the secrets has the form that the scheme of this request needs"):
        verify(BODY, x_webhook(), [PUBLIC, OTHER_PUBLIC], now=AT)
    with pytest.raises(NoMatchingSignature, match="no signature of a kind that this verifier knows"):
        verify(BODY, standard(signature="v2,AAAA"), [PUBLIC, SECRET], now=AT)


def test_the_number_of_signatures_is_limited() -> None:
    """16 signatures are tried; with 17 the header is refused before the first is verified, but not for HMAC."""
    wrong = [_spelled("v1a,", bytes([n]) * 64) for n in range(16)]
    headers = standard(signature=" ".join([*wrong[:15], SIGNATURE]))
    too_many = standard(signature=" ".join([*wrong, SIGNATURE, KNOWN["signature"]]))

    assert AT == verify(BODY, headers, [PUBLIC], now=AT).timestamp
    with pytest.raises(MalformedHeader, match="webhook-signature must hold at most 16 signatures of v1a"):
        verify(BODY, too_many, [SECRET, PUBLIC], now=AT)
    assert AT == verify(BODY, too_many, [SECRET], now=AT).timestamp


def _forged(key: bytes) -> tuple[str, bytes] | None:
    """Return an id and a forged signature of it that the cipher library accepts."""
    for n in range(64):
        content = signed_content(f"forged_{n}", AT, BODY)
        for point in SMALL_ORDER:
            signature = bytes.fromhex(point) + bytes(32)
            if _fits(key, signature, content):
                return f"forged_{n}", signature
    return None


@pytest.mark.parametrize("key", [*SMALL_ORDER, *NOT_CANONICAL])
def test_a_key_of_small_order_is_refused(key: str) -> None:
    """A key of small order, in any encoding, is refused: the cipher library accepts it, and anybody can sign for it."""
    forged = _forged(bytes.fromhex(key))
    assert forged is not None
    headers = standard(id=forged[0], signature=_spelled("v1a,", forged[1]))

    with pytest.raises(UnusableSecret, match="secret 1 is a public key for ed25519 for which anybody can sign"):
        verify(BODY, headers, [_spelled("whpk_", bytes.fromhex(key)), SECRET], now=AT)


@pytest.mark.parametrize("sign", [0, 1 << 255])
@pytest.mark.parametrize("y", range(FIELD_PRIME, 2**255))
def test_a_non_canonical_key_is_refused(y: int, sign: int) -> None:
    """A y that is not below the prime of the field is refused, as in RFC 8032, 5.1.3."""
    with pytest.raises(UnusableSecret, match="for which anybody can sign"):
        verify(BODY, standard(ASYMMETRIC), [_spelled("whpk_", (y | sign).to_bytes(32, "little"))], now=AT)


def test_a_key_off_the_curve_verifies_nothing() -> None:
    """A key that is not a point of the curve verifies nothing: the cipher library refuses every signature."""
    with pytest.raises(NoMatchingSignature):
        verify(BODY, standard(ASYMMETRIC), [_spelled("whpk_", (2).to_bytes(32, "little"))], now=AT)


@pytest.mark.parametrize("times", range(1, 15))
def test_a_large_scalar_is_refused(times: int) -> None:
    """A signature whose scalar is not below the order of the group is refused, as in RFC 8032, 5.1.7."""
    genuine = _decoded(SIGNATURE)
    scalar = int.from_bytes(genuine[32:], "little") + times * ORDER
    altered = genuine[:32] + scalar.to_bytes(32, "little")

    with pytest.raises(NoMatchingSignature):
        verify(BODY, standard(signature=_spelled("v1a,", altered)), [PUBLIC], now=AT)


def _with_neutral_point(point: bytes) -> bytes:
    """Return the signature of the known private key with the one-time scalar 0, for this encoding of R."""
    seed, public = _decoded(PRIVATE)[:32], _decoded(PRIVATE)[32:]
    private = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little") & (2**254 - 8) | 2**254
    challenge = int.from_bytes(hashlib.sha512(point + public + CONTENT).digest(), "little")
    return point + (challenge * private % ORDER).to_bytes(32, "little")


def test_a_non_canonical_point_is_refused() -> None:
    one_spelling = _with_neutral_point((1).to_bytes(32, "little"))
    headers = standard(signature=_spelled("v1a,", one_spelling))
    assert AT == verify(BODY, headers, [PUBLIC], now=AT).timestamp

    for other in (FIELD_PRIME + 1, 1 | 1 << 255, (FIELD_PRIME + 1) | 1 << 255):
        altered = _with_neutral_point(other.to_bytes(32, "little"))
        with pytest.raises(NoMatchingSignature):
            verify(BODY, standard(signature=_spelled("v1a,", altered)), [PUBLIC], now=AT)
