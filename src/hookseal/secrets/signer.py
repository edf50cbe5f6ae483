"""Signing secrets, and the thing that signs with one.

What is stored is the secret as its owner spells it, for HMAC and for ed25519 alike (`secrets/signing_key.py`).
"""

import base64
import os
from collections.abc import Callable
from typing import Final, NoReturn, assert_never

from hookseal.ground.errors import Defect, Malformed
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signing_key import (
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
    """Signs with one secret version while the block that gave it lasts. It shows the reference, never the key."""

    __slots__ = ("_algorithm", "_key", "_ref", "_scheme")

    def __init__(self, ref: str, secret: SecretMaterial, scheme: Scheme, algorithm: Algorithm) -> None:
        """Hold the key of a stored secret. Raises `SecretUnusable` if the secret is not of the form that both need."""
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
        """The secret reference that this signs with."""
        return self._ref

    @property
    def scheme(self) -> Scheme:
        """The scheme that this signs in."""
        return self._scheme

    @property
    def algorithm(self) -> Algorithm:
        """What this signs with."""
        return self._algorithm

    def sign(self, content: bytes) -> str:
        """Return the signature of the content as the scheme spells it: `v1,` or `v1a,` and base64, `sha256=` and hex.

        Raises `Defect` once the key was forgotten.
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
        """Let go of the key: from now on this signs nothing. Called twice it changes nothing."""
        self._key = None

    def __repr__(self) -> str:
        return f"Signer({self._ref})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a signer is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a signer is neither copied nor pickled")


def parse_signing_secret(text: str, scheme: Scheme, algorithm: Algorithm = Algorithm.HMAC) -> SecretMaterial:
    """Return the secret that was given for both, as it is to be stored: the UTF-8 bytes of its text.

    Raises `Malformed`, without the value and naming what is expected, unless it is, for `standard`, `whsec_` and
    the base64 of 24 to 64 bytes (HMAC) or `whsk_` and the base64 of a seed and its public key (ed25519), or, for
    `x-webhook`, a text of 16 to 256 bytes (HMAC only).
    """
    secret = SecretMaterial(text.encode(errors="surrogatepass"))  # what is no UTF-8 then is refused, with all else
    require_signing_secret(secret, scheme, algorithm)
    return secret


def require_signing_secret(
    secret: SecretMaterial, scheme: Scheme, algorithm: Algorithm = Algorithm.HMAC, *, is_older: bool = False
) -> None:
    """Return only if what is to be stored can sign so. Raises `Malformed`, without the value.

    A secret that an older system made may be shorter than what is taken from now on.
    """
    least = LEAST_OLDER_TEXT_BYTES if is_older else LEAST_TEXT_BYTES
    signing_key(secret.reveal(), scheme, algorithm, least_text_bytes=least)


def fits_standard(secret: SecretMaterial) -> bool:
    """Return whether the secret would sign in `standard` with HMAC: `whsec_` and the base64 of 24 to 64 bytes."""
    try:
        require_signing_secret(secret, Scheme.STANDARD)
    except Malformed:
        return False
    return True


def generate_signing_secret(
    algorithm: Algorithm = Algorithm.HMAC, random_bytes: Callable[[int], bytes] = os.urandom
) -> SecretMaterial:
    """Return a new secret, as it is to be stored, from 32 random bytes.

    For HMAC it is `whsec_` and their base64, good for every scheme; for ed25519 a `whsk_`, for `standard` alone.
    """
    match algorithm:
        case Algorithm.HMAC:
            return SecretMaterial(HMAC_PREFIX + base64.b64encode(random_bytes(_GENERATED_KEY_BYTES)))
        case Algorithm.ED25519:
            return SecretMaterial(spelled_pair(random_bytes(SEED_BYTES)))
        case _:
            assert_never(algorithm)


def public_key_of(secret: SecretMaterial) -> str | None:
    """Return the `whpk_` that receivers verify with, for a `whsk_`; None for any other secret."""
    try:
        key = ed25519_key(secret.reveal())
    except Malformed:
        return None
    return (PUBLIC_PREFIX + base64.b64encode(key.public_key)).decode("ascii")
