"""Signing secrets, and the signer of one secret.

The stored bytes are the text of the secret, as its owner writes it, for HMAC and ed25519 (`signing_key.py`).
"""

import base64
import os
from collections.abc import Callable
from typing import Final, NoReturn, assert_never

from hookseal.ground.errors import Defect, Malformed
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signing.signing_key import (
    HMAC_PREFIX,
    LEAST_OLDER_TEXT_BYTES,
    LEAST_TEXT_BYTES,
    PUBLIC_PREFIX,
    SEED_BYTES,
    SigningKey,
    ed25519_key,
    signing_key,
    spelled_pair,
)

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
            case Scheme.STANDARD:
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


def parse_signing_secret(text: str, scheme: Scheme, algorithm: Algorithm = Algorithm.HMAC) -> SecretMaterial:
    """Return the secret of a text as it is stored: the UTF-8 bytes of the text.

    For `standard` it must be `whsec_` and the base64 of 24 to 64 bytes (HMAC), or `whsk_` and the base64 of a seed and
    its public key (ed25519); for `x-webhook`, a text of 16 to 256 bytes (HMAC only). Otherwise raises `Malformed`: it
    names the expected form, never the value.
    """
    secret = SecretMaterial(text.encode(errors="surrogatepass"))  # text that is not UTF-8 is refused below
    require_signing_secret(secret, scheme, algorithm)
    return secret


def require_signing_secret(
    secret: SecretMaterial, scheme: Scheme, algorithm: Algorithm = Algorithm.HMAC, *, is_older: bool = False
) -> None:
    """Raise `Malformed`, without the value, unless the secret can sign in the scheme with the algorithm.

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

    For HMAC it is a `whsec_`, which suits every scheme; for ed25519 a `whsk_`, for `standard` only.
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
