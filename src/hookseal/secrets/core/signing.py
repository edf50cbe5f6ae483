"""Signing keys and signers: the material of a secret, and the signatures that it makes."""

import base64
import binascii
import hmac
import os
import re
from collections.abc import Callable
from typing import Final, NoReturn, assert_never

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hookseal.errors import Defect, Malformed, SecretUnusable
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.material import SecretMaterial

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
            return HmacKey(_text_key(stored, least_text_bytes) if scheme is Scheme.X_WEBHOOK else _hmac_key(stored))
        case Algorithm.ED25519:
            if scheme is Scheme.X_WEBHOOK:
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


_GENERATED_KEY_BYTES: Final = 32


class Signer:
    """Signs with one secret version, only within the block that gave it. It shows the reference, never the key."""

    __slots__ = ("_algorithm", "_key", "_ref", "_scheme")

    def __init__(self, ref: str, secret: SecretMaterial, scheme: Scheme, algorithm: Algorithm) -> None:
        """Take the key from a stored secret. Raises `SecretUnusable` if it cannot sign in this way."""
        try:
            key = signing_key(secret.reveal(), scheme, algorithm)
        except Malformed:
            raise SecretUnusable(
                f"the stored secret cannot sign in the scheme {scheme} with {algorithm}: rotate it"
            ) from None
        self._ref = ref
        self._scheme = scheme
        self._algorithm = algorithm
        self._key: SigningKey | None = key

    @property
    def ref(self) -> str:
        """The reference of the secret version."""
        return self._ref

    @property
    def scheme(self) -> Scheme:
        """The signature scheme."""
        return self._scheme

    @property
    def algorithm(self) -> Algorithm:
        """The signature algorithm."""
        return self._algorithm

    def sign(self, content: bytes) -> str:
        """Return the signature in the form of the scheme: `v1,` or `v1a,` and base64, or `sha256=` and hex.

        Raises `Defect` after `forget`.
        """
        if self._key is None:
            raise Defect("a signer was used outside the block that gave it")
        signature = self._key.sign(content)
        match self._scheme:
            case Scheme.STANDARD | Scheme.SVIX:
                version = "v1," if self._algorithm is Algorithm.HMAC else "v1a,"
                return version + base64.b64encode(signature).decode("ascii")
            case Scheme.X_WEBHOOK:
                return "sha256=" + signature.hex()
            case _:
                assert_never(self._scheme)

    def forget(self) -> None:
        """Discard the key: from now on this signs nothing. A second call changes nothing."""
        self._key = None

    def __repr__(self) -> str:
        return f"Signer({self._ref})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a signer is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a signer is neither copied nor pickled")


def require_signing_secret(
    secret: SecretMaterial, scheme: Scheme, algorithm: Algorithm = Algorithm.HMAC, *, is_older: bool = False
) -> None:
    """Raise `Malformed`, which names the expected form and never the value, unless the secret can sign.

    For `standard` and `svix` it must be `whsec_` and the base64 of 24 to 64 bytes (HMAC), or `whsk_` and the base64 of
    a seed and its public key (ed25519); for `x-webhook`, a text of 16 to 256 bytes in UTF-8 (HMAC only).
    `is_older`: the secret comes from an older system, and may be shorter than a new one.
    """
    least = LEAST_OLDER_TEXT_BYTES if is_older else LEAST_TEXT_BYTES
    signing_key(secret.reveal(), scheme, algorithm, least_text_bytes=least)


def fits_standard(secret: SecretMaterial) -> bool:
    """Return whether the secret can sign in `standard` with HMAC: `whsec_` and the base64 of 24 to 64 bytes."""
    try:
        require_signing_secret(secret, Scheme.STANDARD)
    except Malformed:
        return False
    return True


def generate_signing_secret(
    algorithm: Algorithm = Algorithm.HMAC, random_bytes: Callable[[int], bytes] = os.urandom
) -> SecretMaterial:
    """Return a new secret from 32 random bytes, in the form that is stored.

    For HMAC it is a `whsec_`, which suits every scheme; for ed25519 a `whsk_`, for `standard` and `svix`.
    """
    match algorithm:
        case Algorithm.HMAC:
            return SecretMaterial(HMAC_PREFIX + base64.b64encode(random_bytes(_GENERATED_KEY_BYTES)))
        case Algorithm.ED25519:
            return SecretMaterial(spelled_pair(random_bytes(SEED_BYTES)))
        case _:
            assert_never(algorithm)


def public_key_of(secret: SecretMaterial) -> str | None:
    """Return the `whpk_` of a `whsk_`, with which receivers verify; None for any other secret."""
    try:
        key = ed25519_key(secret.reveal())
    except Malformed:
        return None
    return (PUBLIC_PREFIX + base64.b64encode(key.public_key)).decode("ascii")
