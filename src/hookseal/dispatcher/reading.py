"""Reads an answer: its status, and as much of the rest as is kept.

At most 64 KiB of a body are read and 2 KiB kept, as text that may be stored in the clear. No encoding is asked for
(the request says `identity`). What comes compressed all the same is decompressed only as far as it is kept: a bomb
costs what any other answer does.
"""

import asyncio
import zlib
from collections.abc import Iterable
from typing import Final, Protocol

import aiohttp
from multidict import CIMultiDictProxy

from hookseal.dispatcher.model import Reply
from hookseal.ground.echo import without_echo
from hookseal.ground.log import masked_text

RESPONSE_BYTES_READ: Final = 65_536
SNIPPET_BYTES: Final = 2_048
RETRY_AFTER_VALUES: Final = 4
RETRY_AFTER_CHARACTERS: Final = 64  # the longest HTTP date has 33
_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib: 16 more reads a gzip header
_PLAIN: Final = frozenset({"", "identity"})


class Received(Protocol):
    """An answer whose head came."""

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
        """What comes behind the head."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class _Keeping(Protocol):
    """Takes the bytes of a body, and keeps at most 2 KiB of what they say."""

    kept: bytearray

    def take(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...


class _Plain:
    """A body that says what it is."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def take(self, chunk: bytes) -> None:
        self.kept += chunk[: SNIPPET_BYTES - len(self.kept)]


class _Compressed:
    """A body that zlib reads; what it cannot read is not kept."""

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


class _Unread:
    """A body in an encoding that was not asked for: what it says is not known, so nothing of it is kept."""

    def __init__(self) -> None:
        self.kept = bytearray()

    def take(self, chunk: bytes) -> None:
        """Keep nothing."""


def _keeping(encoding: str) -> _Keeping:
    if encoding in _PLAIN:
        return _Plain()
    window = _WINDOWS.get(encoding)
    return _Unread() if window is None else _Compressed(window)


async def read(response: Received, own_values: Iterable[str], *, seconds: float) -> Reply:
    """Return the answer. The status counts, whatever becomes of the body and however long it takes.

    What the body repeats of the endpoint's own headers is masked, and signing secrets: some receivers show theirs on
    an error page.
    """
    if response.content.at_eof():  # most answers say nothing more
        return Reply(status=response.status, snippet="", retry_after=_retry_after(response))
    keeping = _keeping(response.headers.get("content-encoding", "").strip().lower())
    await _taken(response, keeping, seconds)
    snippet = _short(without_echo(masked_text(_text(bytes(keeping.kept))), own_values))
    return Reply(status=response.status, snippet=snippet, retry_after=_retry_after(response))


async def _taken(response: Received, keeping: _Keeping, seconds: float) -> None:
    """Read the body to its end, so that the connection can be used again; cut it off where it is too long or slow."""
    read = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in response.content.iter_any():
                read += len(chunk)
                keeping.take(chunk)
                if read >= RESPONSE_BYTES_READ:
                    response.close()
                    return
    except (aiohttp.ClientError, OSError):
        response.close()


def _retry_after(response: Received) -> tuple[str, ...]:
    """Return the first values of the header that are not too long; a longer one says nothing that is waited for."""
    values = response.headers.getall("retry-after", ())
    return tuple(value for value in values if len(value) <= RETRY_AFTER_CHARACTERS)[:RETRY_AFTER_VALUES]


def _text(raw: bytes) -> str:
    """Return text that PostgreSQL takes and that is at most 2 KiB as UTF-8."""
    return _short(raw.decode("utf-8", errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}"))


def _short(text: str) -> str:
    return text.encode("utf-8")[:SNIPPET_BYTES].decode("utf-8", errors="ignore")
