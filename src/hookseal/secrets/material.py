"""The value of a secret, as something that does not show itself."""

import hmac
from typing import Final, NoReturn

MASK: Final = "SecretMaterial([masked])"
MAX_BYTES: Final = 65_536  # the least of what the providers take


class SecretMaterial:
    """Bytes that mask themselves, refuse to be copied or pickled, and compare in constant time."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a hash would tell equal secrets without a comparison

    def __init__(self, value: bytes) -> None:
        if not isinstance(value, bytes):
            raise TypeError("secret material is made from bytes")
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes. This is the one way out; keep what you get inside the block that asked for it."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretMaterial):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        return MASK

    def __format__(self, _specification: str) -> str:
        return MASK

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("secret material is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("secret material is neither copied nor pickled")
