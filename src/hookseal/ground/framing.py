"""One injective way to write several values as one run of bytes, for what is hashed, bound or signed."""

import struct
from datetime import UTC, datetime, timedelta
from typing import Final

_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")
_ABSENT: Final = b"\xff\xff\xff\xff"  # a length that no part has: an absent part is not an empty one
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def framed(*parts: bytes | None) -> bytes:
    """Return the count of the parts, then each with its length before it: different parts, different bytes."""
    written = [_COUNT.pack(len(parts))]
    for part in parts:
        if part is None:
            written.append(_ABSENT)
        else:
            written += (_LENGTH.pack(len(part)), part)
    return b"".join(written)


def microseconds(moment: datetime) -> int:
    """Return the moment as what is framed of it: whole microseconds since 1970, UTC. One without a zone is UTC."""
    if moment.tzinfo is None:  # so asyncpg gives a time that was set to infinity by hand
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND
