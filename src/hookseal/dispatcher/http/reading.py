"""Reads an answer: its status, `Retry-After`, and the beginning of its body.

At most 64 KiB of a body are read and 2 KiB are kept, as text without secrets. The request asks for an answer without
compression. If the answer is compressed, it is decompressed only until 2 KiB are there, so that a decompression bomb
costs no more than any other answer.
"""

import asyncio
import zlib
from collections.abc import Iterable
from typing import Final, Protocol

import aiohttp
from multidict import CIMultiDictProxy

from hookseal.dispatcher.model import Reply
from hookseal.ground.log import mask_text
from hookseal.ground.redact_echo import redact_echo

RESPONSE_BYTES_READ: Final = 65_536
SNIPPET_BYTES: Final = 2_048
RETRY_AFTER_VALUES: Final = 4
RETRY_AFTER_CHARACTERS: Final = 64  # the longest HTTP date has 33
_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib: 16 more reads a gzip header
_PLAIN: Final = frozenset({"", "identity"})


class Received(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int:
        """Its status."""
        ...

    @property
    def headers(self) -> "CIMultiDictProxy[str]":
        """Its headers."""
        ...

    @property
    def content(self) -> aiohttp.StreamReader:
        """The body."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class _BodyReader(Protocol):
    """Takes the bytes of a body, and keeps at most 2 KiB of its content."""

    kept: bytearray

    def take(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...


class _Plain:
    """A body without compression."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def take(self, chunk: bytes) -> None:
        self.kept += chunk[: SNIPPET_BYTES - len(self.kept)]


class _Compressed:
    """A body that zlib decompresses; what it cannot decompress is not kept."""

    def __init__(self, window: int) -> None:
        self.kept = bytearray()
        self._reader = zlib.decompressobj(window)
        self._ended = False

    def take(self, chunk: bytes) -> None:
        room = SNIPPET_BYTES - len(self.kept)
        if self._ended or not room:
            return
        try:
            self.kept += self._reader.decompress(chunk, room)
        except zlib.error:
            self._ended = True


class _UnknownEncoding:
    """A body in an encoding that hookseal does not read: nothing of it is kept."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def take(self, chunk: bytes) -> None:
        """Keep nothing."""


def _body_reader(encoding: str) -> _BodyReader:
    if encoding in _PLAIN:
        return _Plain()
    window = _WINDOWS.get(encoding)
    return _UnknownEncoding() if window is None else _Compressed(window)


async def read(response: Received, own_values: Iterable[str], *, seconds: float, deadline: float) -> Reply:
    """Return the answer. The status counts even if the body fails, takes too long or has not ended at the deadline.

    The body may take `seconds`. `deadline` is a time of the event loop.

    Signing secrets and values of the endpoint's own headers are masked in the body: some receivers show them on an
    error page.
    """
    if response.content.at_eof():  # most answers have no body
        return Reply(status=response.status, snippet="", retry_after=_retry_after(response))
    body = _body_reader(response.headers.get("content-encoding", "").strip().lower())
    await _read_body(response, body, min(asyncio.get_running_loop().time() + seconds, deadline))
    snippet = _short(redact_echo(mask_text(_text(bytes(body.kept))), own_values))
    return Reply(status=response.status, snippet=snippet, retry_after=_retry_after(response))


async def _read_body(response: Received, body: _BodyReader, deadline: float) -> None:
    """Read the body to its end, so that the connection can be used again; close it if the body is too long or slow."""
    read = 0
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in response.content.iter_any():
                read += len(chunk)
                body.take(chunk)
                if read >= RESPONSE_BYTES_READ:
                    response.close()
                    return
    except (aiohttp.ClientError, OSError):
        response.close()


def _retry_after(response: Received) -> tuple[str, ...]:
    """Return the first values of the header, without those that are too long to be a number or a date."""
    values = response.headers.getall("retry-after", ())
    if not values:
        return ()
    return tuple(value for value in values if len(value) <= RETRY_AFTER_CHARACTERS)[:RETRY_AFTER_VALUES]


def _text(raw: bytes) -> str:
    """Return text that PostgreSQL accepts and that has at most 2 KiB as UTF-8."""
    return _short(raw.decode("utf-8", errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}"))


def _short(text: str) -> str:
    return text.encode("utf-8")[:SNIPPET_BYTES].decode("utf-8", errors="ignore")
