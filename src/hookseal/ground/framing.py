"""An injective encoding of several values as one byte string, for values that are hashed, authenticated or signed."""

import struct
from datetime import UTC, datetime, timedelta
from typing import Final

_COUNT: Final = struct.Struct(">H")
_LENGTH: Final = struct.Struct(">I")
_ABSENT: Final = b"\xff\xff\xff\xff"  # no part is that long; so an absent part differs from an empty one
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def framed(*parts: bytes | None) -> bytes:
    """Return the number of parts, then each part after its length: different parts give different bytes."""
    written = [_COUNT.pack(len(parts))]
    for part in parts:
        if part is None:
            written.append(_ABSENT)
        else:
            written += (_LENGTH.pack(len(part)), part)
    return b"".join(written)


def microseconds(moment: datetime) -> int:
    """Return the whole microseconds since 1970 in UTC. A time without a zone counts as UTC."""
    if moment.tzinfo is None:  # asyncpg returns an infinite timestamp without a zone
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // _MICROSECOND
