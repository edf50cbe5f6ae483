"""The key that the stored text of a signing secret contains.

Signing secrets are stored as their owner writes them (Standard Webhooks 1.0.0, "Signature scheme"):
`whsec_` and base64 for HMAC, `whsk_` and base64 of seed and public key for ed25519. For `x-webhook` the bytes
of the whole text are the HMAC key. A `whpk_`, the public half, signs nothing.
"""

import base64
import binascii
import hmac
import re
from typing import Final, NoReturn, assert_never

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hookseal.ground.errors import Malformed
from hookseal.ground.wire import Algorithm, Scheme

HMAC_PREFIX: Final = b"whsec_"
PRIVATE_PREFIX: Final = b"whsk_"
PUBLIC_PREFIX: Final = b"whpk_"
LEAST_KEY_BYTES: Final = 24
MOST_KEY_BYTES: Final = 64
LEAST_TEXT_BYTES: Final = 16
LEAST_OLDER_TEXT_BYTES: Final = 1  # in an older system users chose the length
MOST_TEXT_BYTES: Final = 256
SEED_BYTES: Final = 32
_PAIR_BYTES: Final = 64
# The same pattern as in the verifier for receivers: a text that it refuses as an ed25519 key must not be an HMAC key.
_ASYMMETRIC: Final = re.compile(rb"[^0-9A-Za-z]*wh([ps])k_", re.IGNORECASE)
_HMAC_FORM: Final = f"signing secret must be whsec_ and the base64 of {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes"
_PAIR_FORM: Final = f"signing key must be whsk_ and the base64 of {_PAIR_BYTES} bytes, the seed and its public key"


class _NotCopied:
    """Refuses to be copied or pickled."""

    __slots__ = ()

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a signing key is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a signing key is neither copied nor pickled")


class HmacKey(_NotCopied):
    """Signs with HMAC-SHA256."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, content: bytes) -> bytes:
        """Return the signature of the content, 32 bytes."""
        return hmac.digest(self._key, content, "sha256")


class Ed25519Key(_NotCopied):
    """Signs with ed25519 (RFC 8032, the pure variant)."""

    __slots__ = ("_key",)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, content: bytes) -> bytes:
        """Return the signature of the content, 64 bytes. The same content always gives the same signature."""
        return self._key.sign(content)


SigningKey = HmacKey | Ed25519Key


def signing_key(
    stored: bytes, scheme: Scheme, algorithm: Algorithm, *, least_text_bytes: int = LEAST_OLDER_TEXT_BYTES
) -> SigningKey:
    """Return the key for the scheme and the algorithm. Raises `Malformed`, without the value, if the text has none.

    A text for `x-webhook` needs `least_text_bytes`, by default as few as in an older system.
    """
    match algorithm:
        case Algorithm.HMAC:
            return HmacKey(_hmac_key(stored) if scheme is Scheme.STANDARD else _text_key(stored, least_text_bytes))
        case Algorithm.ED25519:
            if scheme is not Scheme.STANDARD:
                raise Malformed(
                    f"{scheme} signs with hmac only: for ed25519 take the scheme standard", field="algorithm"
                )
            return ed25519_key(stored)
        case _:
            assert_never(algorithm)


def ed25519_key(stored: bytes) -> Ed25519Key:
    """Return the key of a `whsk_`. Raises `Malformed`, without the value."""
    pair = _decoded(stored, PRIVATE_PREFIX)
    if pair is None or len(pair) != _PAIR_BYTES:
        _refuse_public(stored)
        raise _malformed(_PAIR_FORM + (", and a whsec_ signs with hmac only" if stored.startswith(HMAC_PREFIX) else ""))
    key = Ed25519Key(Ed25519PrivateKey.from_private_bytes(pair[:SEED_BYTES]))
    if key.public_key != pair[SEED_BYTES:]:
        # A receiver that verifies with this public key would refuse every request.
        raise _malformed("the halves of the whsk_ do not belong together: give a seed followed by its own public key")
    return key


def spelled_pair(seed: bytes) -> bytes:
    """Return the `whsk_` of a seed of 32 bytes."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PRIVATE_PREFIX + base64.b64encode(seed + public)


def _hmac_key(stored: bytes) -> bytes:
    key = _decoded(stored, HMAC_PREFIX)
    if key is not None and LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES:
        return key
    _refuse_asymmetric(stored, _HMAC_FORM)
    raise _malformed(_HMAC_FORM)


def _text_key(stored: bytes, least_bytes: int) -> bytes:
    form = f"signing secret must be a text of {least_bytes} to {MOST_TEXT_BYTES} bytes in UTF-8"
    _refuse_asymmetric(stored, form)
    if least_bytes <= len(stored) <= MOST_TEXT_BYTES and _is_text(stored):
        return stored
    raise _malformed(form)


def _refuse_asymmetric(stored: bytes, form: str) -> None:
    """Raise `Malformed` if this looks like an ed25519 key: anybody could sign if a public key were the HMAC key."""
    _refuse_public(stored)
    if _ASYMMETRIC.match(stored):
        raise _malformed(form + ", and a whsk_ signs with ed25519 only")


def _refuse_public(stored: bytes) -> None:
    match = _ASYMMETRIC.match(stored)
    if match and match[1] in b"pP":
        raise _malformed("a whpk_ is a public key and signs nothing: give the whsk_ that it belongs to, for ed25519")


def _malformed(message: str) -> Malformed:
    return Malformed(message, field="secret")


def _decoded(stored: bytes, prefix: bytes) -> bytes | None:
    """Return the bytes of the base64 after the prefix; None without the prefix, or if it is not canonical base64."""
    if not stored.startswith(prefix):
        return None
    digits = stored.removeprefix(prefix)
    try:
        decoded = base64.b64decode(digits, validate=True)
    except binascii.Error:
        return None
    return decoded if base64.b64encode(decoded) == digits else None


def _is_text(stored: bytes) -> bool:
    try:
        stored.decode()
    except UnicodeDecodeError:
        return False
    return True
