"""Signing secrets of the `standard` scheme, and the thing that signs with one.

What is stored is the secret as its owner spells it, `whsec_` and base64; the HMAC key is what that
base64 stands for. Source: Standard Webhooks 1.0.0, "Signature scheme".
"""

import base64
import binascii
import hmac
import os
from collections.abc import Callable
from typing import Final, NoReturn

from hookseal.ground.errors import Defect, Malformed
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial

PREFIX: Final = b"whsec_"
LEAST_KEY_BYTES: Final = 24
MOST_KEY_BYTES: Final = 64
_GENERATED_KEY_BYTES: Final = 32
_EXPECTED: Final = f"signing secret must be whsec_ and the base64 of {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes"


class Signer:
    """Signs with one secret version while the block that gave it lasts. It shows the reference, never the key."""

    __slots__ = ("_key", "_ref")

    def __init__(self, ref: str, secret: SecretMaterial) -> None:
        """Hold the key of a stored `whsec_` secret. Raises `SecretUnusable` if the secret is not of that form."""
        key = _key(secret.reveal())
        if key is None:
            raise SecretUnusable("the stored secret is not a whsec_ signing secret")
        self._ref = ref
        self._key: SecretMaterial | None = SecretMaterial(key)

    @property
    def ref(self) -> str:
        """The secret reference that this signs with."""
        return self._ref

    def sign(self, content: bytes) -> str:
        """Return `v1,` and the base64 HMAC-SHA256 of the content. Raises `Defect` once the key was forgotten."""
        if self._key is None:
            raise Defect("a signer was used outside the block that gave it")
        return "v1," + base64.b64encode(hmac.digest(self._key.reveal(), content, "sha256")).decode("ascii")

    def forget(self) -> None:
        """Let go of the key: from now on this signs nothing. Called twice it changes nothing."""
        self._key = None

    def __repr__(self) -> str:
        return f"Signer({self._ref})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a signer is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a signer is neither copied nor pickled")


def parse_signing_secret(text: str) -> SecretMaterial:
    """Return the `whsec_` secret that was given, as it is to be stored: the UTF-8 bytes of its text.

    Raises `Malformed`, without the value, unless it is the prefix and the base64 of 24 to 64 bytes.
    """
    if not text.isascii():
        raise Malformed(_EXPECTED, field="secret")
    stored = text.encode("ascii")
    if _key(stored) is None:
        raise Malformed(_EXPECTED, field="secret")
    return SecretMaterial(stored)


def generate_signing_secret(random_bytes: Callable[[int], bytes] = os.urandom) -> SecretMaterial:
    """Return a new `whsec_` secret of 32 random bytes, as it is to be stored."""
    return SecretMaterial(PREFIX + base64.b64encode(random_bytes(_GENERATED_KEY_BYTES)))


def _key(stored: bytes) -> bytes | None:
    """Return the HMAC key that the stored text stands for, None if it is not of the form."""
    if not stored.startswith(PREFIX):
        return None
    digits = stored.removeprefix(PREFIX)
    try:
        key = base64.b64decode(digits, validate=True)
    except binascii.Error:
        return None
    is_the_one_spelling = base64.b64encode(key) == digits
    return key if is_the_one_spelling and LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES else None
