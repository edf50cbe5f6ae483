"""How jobs are written in Redis: plain msgpack, never pickle. Any arq pool that rings us sets both."""

from typing import Any, Final

import msgspec

_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=lambda value: type(value).__name__)
_DECODER: Final = msgspec.msgpack.Decoder(dict[str, Any])


def job_serializer(job: dict[str, Any]) -> bytes:
    """Return the job as msgpack. What msgpack does not know (an exception) is written as its class name."""
    return _ENCODER.encode(job)


def job_deserializer(raw: bytes) -> dict[str, Any]:
    """Return the job. Raises `msgspec.DecodeError` for anything else than a msgpack map."""
    return _DECODER.decode(raw)
