"""Signing secrets, and the thing that signs with one.

What is stored is the secret as its owner spells it. For the scheme `standard` that is `whsec_` and base64,
and the HMAC key is what the base64 stands for (Standard Webhooks 1.0.0, "Signature scheme"); for
`x-webhook` any text will do, and its bytes are the key.
"""

import base64
import binascii
import hmac
import os
from collections.abc import Callable
from typing import Final, NoReturn, assert_never

from hookseal.ground.errors import Defect, Malformed
from hookseal.ground.wire import Scheme
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial

PREFIX: Final = b"whsec_"
LEAST_KEY_BYTES: Final = 24
MOST_KEY_BYTES: Final = 64
LEAST_TEXT_BYTES: Final = 16
MOST_TEXT_BYTES: Final = 256
_GENERATED_KEY_BYTES: Final = 32
_EXPECTED: Final = {
    Scheme.STANDARD: f"signing secret must be whsec_ and the base64 of {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes",
    Scheme.X_WEBHOOK: f"signing secret must be a text of {LEAST_TEXT_BYTES} to {MOST_TEXT_BYTES} bytes in UTF-8",
}


class Signer:
    """Signs with one secret version while the block that gave it lasts. It shows the reference, never the key."""

    __slots__ = ("_key", "_ref", "_scheme")

    def __init__(self, ref: str, secret: SecretMaterial, scheme: Scheme) -> None:
        """Hold the key of a stored secret. Raises `SecretUnusable` if the secret is not of the scheme's form."""
        key = _key(secret.reveal(), scheme)
        if key is None:
            raise SecretUnusable(f"the stored secret cannot sign in the scheme {scheme}: rotate it")
        self._ref = ref
        self._scheme = scheme
        self._key: SecretMaterial | None = SecretMaterial(key)

    @property
    def ref(self) -> str:
        """The secret reference that this signs with."""
        return self._ref

    @property
    def scheme(self) -> Scheme:
        """The scheme that this signs in."""
        return self._scheme

    def sign(self, content: bytes) -> str:
        """Return the HMAC-SHA256 of the content: `v1,` and base64, or `sha256=` and hex, as the scheme spells it.

        Raises `Defect` once the key was forgotten.
        """
        if self._key is None:
            raise Defect("a signer was used outside the block that gave it")
        signature = hmac.digest(self._key.reveal(), content, "sha256")
        match self._scheme:
            case Scheme.STANDARD:
                return "v1," + base64.b64encode(signature).decode("ascii")
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


def parse_signing_secret(text: str, scheme: Scheme) -> SecretMaterial:
    """Return the secret that was given for the scheme, as it is to be stored: the UTF-8 bytes of its text.

    Raises `Malformed`, without the value, unless it is `whsec_` and the base64 of 24 to 64 bytes, or, for
    `x-webhook`, a text of 16 to 256 bytes.
    """
    secret = SecretMaterial(text.encode(errors="surrogatepass"))  # what is no UTF-8 then is refused, with all else
    require_signing_secret(secret, scheme)
    return secret


def require_signing_secret(secret: SecretMaterial, scheme: Scheme) -> None:
    """Return only if the scheme can sign with what is to be stored. Raises `Malformed`, without the value."""
    if _key(secret.reveal(), scheme) is None:
        raise Malformed(_EXPECTED[scheme], field="secret")


def generate_signing_secret(random_bytes: Callable[[int], bytes] = os.urandom) -> SecretMaterial:
    """Return a new secret, as it is to be stored: `whsec_` and the base64 of 32 random bytes, good for every scheme."""
    return SecretMaterial(PREFIX + base64.b64encode(random_bytes(_GENERATED_KEY_BYTES)))


def _key(stored: bytes, scheme: Scheme) -> bytes | None:
    """Return the HMAC key that the stored text stands for, None if it is not of the scheme's form."""
    match scheme:
        case Scheme.STANDARD:
            return _decoded(stored)
        case Scheme.X_WEBHOOK:
            return stored if LEAST_TEXT_BYTES <= len(stored) <= MOST_TEXT_BYTES and _is_text(stored) else None
        case _:
            assert_never(scheme)


def _decoded(stored: bytes) -> bytes | None:
    if not stored.startswith(PREFIX):
        return None
    digits = stored.removeprefix(PREFIX)
    try:
        key = base64.b64decode(digits, validate=True)
    except binascii.Error:
        return None
    is_the_one_spelling = base64.b64encode(key) == digits
    return key if is_the_one_spelling and LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES else None


def _is_text(stored: bytes) -> bool:
    try:
        stored.decode()
    except UnicodeDecodeError:
        return False
    return True
