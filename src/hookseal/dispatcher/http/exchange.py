"""Writes one POST on a connection and reads the answer. aiohttp parses the answer, but its client is not used.

The client of aiohttp takes three times as long as the request itself, because of features that a webhook does not need:
cookies, redirects, proxies, traces and encodings.
"""

import asyncio
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, Protocol, cast

import aiohttp
import msgspec
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import BaseConnector, Connection
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDictProxy
from yarl import URL

from hookseal.dispatcher.core.model import Reply
from hookseal.errors import Defect
from hookseal.ground.log import mask_text
from hookseal.ground.redact_echo import redact_echo

MOMENT_SECONDS: Final = 0.1


class Deadlines:
    """The deadlines of one event loop. Deadlines in the same 0.1 s share a timer, which is never cancelled."""

    def __init__(self) -> None:
        self._waiting: dict[int, set[Deadline]] = {}

    def at(self, when: float) -> "Deadline":
        """Return a block that is cancelled at this time of the event loop."""
        return Deadline(self, when)

    def add(self, deadline: "Deadline") -> set["Deadline"]:
        """Add a deadline; return the set of its 0.1 s, from which the deadline must be removed when its block ends."""
        moment = int(deadline.when / MOMENT_SECONDS)
        together = self._waiting.get(moment)
        if together is None:
            together = self._waiting[moment] = set()
            asyncio.get_running_loop().call_at(moment * MOMENT_SECONDS, self._begin, moment)
        together.add(deadline)
        return together

    def _begin(self, moment: int) -> None:
        for each in self._waiting.pop(moment):
            each.set_timer()


class Deadline:
    """A block of the current task that raises `TimeoutError` at its time, as `asyncio.timeout_at` does."""

    __slots__ = ("_all", "_cancelling", "_is_over", "_task", "_timer", "_together", "when")

    def __init__(self, deadlines: Deadlines, when: float) -> None:
        self._all = deadlines
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self.when = when

    def set_timer(self) -> None:
        """Set a timer that cancels the task at the deadline."""
        self._timer = asyncio.get_running_loop().call_at(self.when, self._cancel)

    def _cancel(self) -> None:
        self._is_over = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine runs in one
        self._task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._together = self._all.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._together.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        # If the task was also cancelled from elsewhere, that cancellation continues.
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


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


_PLACES_REMEMBERED: Final = 4_096
_NO_LIMIT: Final = aiohttp.ClientTimeout(total=None)  # the caller and the connector have their own time limits
# RFC 9110, 5.1 and 5.5: the name of a header is a token, its value has no line breaks.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUES: Final = re.compile(r"[\t -~\x80-\xff]*")
_SWITCHING_PROTOCOLS: Final = 101
_FINAL: Final = 200


class _Protocol(Protocol):
    """The part of aiohttp's protocol class that is used here."""

    transport: asyncio.Transport | None

    def set_response_params(self, **params: Any) -> None:
        """Begin a request."""
        ...

    async def read(self) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        """Return the next head and its body."""
        ...


@dataclass(frozen=True, slots=True)
class _Place:
    """What a connector reads from a request for this url, and the beginning of the head."""

    url: URL
    connection_key: ConnectionKey
    begins: str
    proxy: None = field(default=None, init=False)

    def is_ssl(self) -> bool:
        """Return whether the connection uses TLS."""
        return self.connection_key.is_ssl


class _Received(msgspec.Struct, frozen=True):
    """An answer whose head has arrived."""

    status: int
    headers: "CIMultiDictProxy[str]"
    content: aiohttp.StreamReader
    connection: Connection

    def close(self) -> None:
        """End the connection without reading the rest of the answer."""
        self.connection.close()


@lru_cache(maxsize=_PLACES_REMEMBERED)
def _place(text: str) -> _Place:
    """Return the place of a url. Raises `ValueError` if it names no host that can be dialled."""
    url = URL(text, encoded=True)  # the path is not changed: receivers use it for routing and signatures
    if url.raw_host is None or url.port is None:
        raise ValueError
    is_secure = url.scheme == "https"
    key = ConnectionKey(url.raw_host, url.port, is_secure, True, None, None, None)  # noqa: FBT003 -- aiohttp's own
    begins = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\nAccept: */*\r\n"
    return _Place(url, key, begins)


@lru_cache(maxsize=_PLACES_REMEMBERED)
def _are_names(names: tuple[str, ...]) -> bool:
    return all(map(_NAME.fullmatch, names))


def head(url: str, headers: Mapping[str, str], size: int) -> bytes:
    """Return the head of the POST of a body of that many bytes.

    Raises `Defect` if a value would add another header line.
    """
    values = "".join(headers.values())
    # Nearly all values are plain text, for which the first test takes a tenth of the time of the second.
    if not _are_names(tuple(headers)) or not ((values.isascii() and values.isprintable()) or _VALUES.fullmatch(values)):
        raise Defect("a header contains characters that would make it more than one header")
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"{_place(url).begins}{fields}Content-Length: {size}\r\n\r\n".encode("latin-1")


async def exchange(
    connector: BaseConnector, url: str, sent: bytes, *, own: Iterable[str], deadline: Deadline, body_seconds: float
) -> Reply:
    """Write a request, which is `sent`, and return the answer.

    The head of the answer must arrive before `deadline`; the status then counts even if the body fails. Header values
    in `own` are masked in the answer. Raises what the connector raises, `TimeoutError`, `OSError`,
    `aiohttp.ClientError` and `aiohttp.http_exceptions.HttpProcessingError`.
    """
    with deadline:
        connection = await connector.connect(cast("ClientRequest", _place(url)), [], _NO_LIMIT)
        try:
            received = await _write_and_read_head(connection, sent)
        except BaseException:
            connection.close()
            raise
    try:
        reply = await read(received, own, seconds=body_seconds, deadline=deadline.when)
    except BaseException:
        connection.close()
        raise
    if received.content.at_eof() and not _is_writing(connection):
        connection.release()
    else:
        connection.close()
    return reply


async def _write_and_read_head(connection: Connection, sent: bytes) -> _Received:
    protocol = cast("_Protocol", connection.protocol)
    protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=RESPONSE_BYTES_READ)
    if protocol.transport is None:
        raise aiohttp.ClientConnectionResetError
    protocol.transport.write(sent)
    while True:
        message, content = await protocol.read()
        if message.code >= _FINAL or message.code == _SWITCHING_PROTOCOLS:
            return _Received(message.code, message.headers, content, connection)


def _is_writing(connection: Connection) -> bool:
    """Return whether a part of the request is not sent yet: the receiver has answered before it received all."""
    return connection.transport is None or connection.transport.get_write_buffer_size() > 0
