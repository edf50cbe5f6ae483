"""The value of a secret, in an object that does not show it."""

import hmac
from typing import ClassVar, Final, NoReturn

MASK: Final = "SecretMaterial([masked])"
MAX_BYTES: Final = 65_536  # the smallest limit of the providers


class SecretMaterial:
    """Bytes that mask themselves, refuse to be copied or pickled, and compare in constant time."""

    __slots__ = ("_value",)
    # Equal hashes would reveal equal secrets without a comparison.
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __init__(self, value: bytes) -> None:
        if not isinstance(value, bytes):
            raise TypeError("secret material is made from bytes")
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes. Nothing else returns them; do not keep them beyond the block that needs them."""
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
