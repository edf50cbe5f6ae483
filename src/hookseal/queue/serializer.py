"""Jobs in Redis are plain msgpack, never pickle. Every arq pool that rings hookseal must set both functions."""

from typing import Any, Final

import msgspec

_ENCODER: Final = msgspec.msgpack.Encoder(enc_hook=lambda value: type(value).__name__)
_DECODER: Final = msgspec.msgpack.Decoder(dict[str, Any])


def job_serializer(job: dict[str, Any]) -> bytes:
    """Return the job as msgpack. A value that msgpack cannot encode (an exception) becomes the name of its class."""
    return _ENCODER.encode(job)


def job_deserializer(raw: bytes) -> dict[str, Any]:
    """Return the job. Raises `msgspec.DecodeError` unless it is a msgpack map."""
    return _DECODER.decode(raw)
