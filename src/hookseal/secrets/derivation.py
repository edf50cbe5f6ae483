"""Keys from keys: HKDF-SHA256, one label for each use."""

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
_SHA256: Final = SHA256()


def derived(key: bytes, length: int, *, salt: bytes | None, info: bytes) -> bytes:
    """Return that many bytes that only a holder of the key can make; another salt or info gives others."""
    return HKDF(_SHA256, length, salt, info).derive(key)
