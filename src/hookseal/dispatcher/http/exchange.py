"""Writes one POST on a connection and reads the answer. aiohttp parses the answer, but its client is not used.

The client of aiohttp takes three times as long as the request itself, because of features that a webhook does not need:
cookies, redirects, proxies, traces and encodings.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol, cast

import aiohttp
import msgspec
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import BaseConnector, Connection
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDictProxy
from yarl import URL

from hookseal.dispatcher.deadline import Deadline
from hookseal.dispatcher.http.reading import RESPONSE_BYTES_READ, read
from hookseal.dispatcher.model import Reply
from hookseal.ground.errors import Defect

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
