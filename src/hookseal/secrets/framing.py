"""One injective way to write several values as one run of bytes, for what is hashed, bound or signed."""

import struct
from typing import Final

_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")
_ABSENT: Final = b"\xff\xff\xff\xff"  # a length that no part has: an absent part is not an empty one


def framed(*parts: bytes | None) -> bytes:
    """Return the count of the parts, then each with its length before it: different parts, different bytes."""
    return _COUNT.pack(len(parts)) + b"".join(
        _ABSENT if part is None else _LENGTH.pack(len(part)) + part for part in parts
    )
