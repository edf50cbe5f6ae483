"""A TCP proxy to a server on this machine, which can disconnect, pause, delay, close, and redirect."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol
from urllib.parse import urlsplit

from hookseal.embedded.server import HOST
from tests.cli.listeners import reserved

_CHUNK = 65_536


class ConnectionFilter(Protocol):
    """Decides which bytes of one connection are forwarded, and where it is closed."""

    def to_server(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part that is forwarded to the server, and whether the connection is closed after it."""
        ...

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part that is forwarded to the client, and whether the connection is closed after it."""
        ...


MakeFilter = Callable[[], ConnectionFilter]


class TcpProxy:
    """Forwards connections to a port, with a delay of `seconds` in each direction.

    `make_filter`, if given, makes the filter of each connection.
    """

    def __init__(self, port: int, make_filter: MakeFilter | None = None, *, seconds: float = 0.0) -> None:
        self._kept = reserved()  # reserved, so that no other test gets a port that is closed for a while
        self.port: int = self._kept.getsockname()[1]
        self._to = port
        self._make_filter = make_filter
        self._seconds = seconds
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._forwards = asyncio.Event()
        self._forwards.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    def close(self) -> None:
        """Refuse every new connection, and close the existing ones."""
        if self._server is not None:
            self._server.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close every existing connection at once, whatever is being sent."""
        for connection in list(self._connections):
            connection.abort()

    def pause(self) -> None:
        """Forward nothing, in either direction, and keep every connection."""
        self._forwards.clear()

    def resume(self) -> None:
        """Forward again, beginning with what has arrived meanwhile."""
        self._forwards.set()

    def stall_connections(self) -> None:
        """Forward nothing more on the existing connections; new ones work."""
        for connection in list(self._connections):
            connection.forwards = asyncio.Event()

    def redirect(self, port: int) -> None:
        """Forward new connections to another server, and close the existing ones."""
        self._to = port
        self.disconnect()

    def url(self, url: str) -> str:
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{login}@{HOST}:{self.port}").geturl()

    async def stop(self) -> None:
        """Close the proxy, and return when all of its connections have ended."""
        self.resume()
        self.close()
        await asyncio.gather(*(connection.task for connection in self._connections), return_exceptions=True)
        self._kept.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        made = None if self._make_filter is None else self._make_filter()
        connection = _Connection(writer, task, self._forwards, made, self._seconds)
        self._connections.add(connection)
        try:
            await connection.serve(reader, self._to)
        finally:
            self._connections.discard(connection)


class _Connection:
    def __init__(
        self,
        client: asyncio.StreamWriter,
        task: asyncio.Task[None],
        forwards: asyncio.Event,
        connection_filter: ConnectionFilter | None,
        seconds: float,
    ) -> None:
        self.task = task
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._forwarding: tuple[asyncio.Task[None], ...] = ()
        self.forwards = forwards
        self._filter = connection_filter
        self._seconds = seconds

    async def serve(self, from_client: asyncio.StreamReader, port: int) -> None:
        try:
            from_server, self._server = await asyncio.open_connection(HOST, port)
        except OSError:
            self.abort()
            return
        to_server, to_client = (
            (_all, _all) if self._filter is None else (self._filter.to_server, self._filter.to_client)
        )
        up = asyncio.create_task(self._forward(from_client, self._server, to_server))
        down = asyncio.create_task(self._forward(from_server, self._client, to_client))
        self._forwarding = (up, down)
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            self.abort()

    def abort(self) -> None:
        for task in self._forwarding:
            task.cancel()  # it may wait for a paused proxy that is never resumed
        for writer in (self._client, self._server):
            if writer is not None:
                writer.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        select: Callable[[bytes], tuple[bytes, bool]],
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self.forwards.wait()
            await asyncio.sleep(self._seconds)  # the delay of the proxy
            forwarded, is_closed = select(data)
            writer.write(forwarded)
            await writer.drain()
            if is_closed:
                return


def _all(data: bytes) -> tuple[bytes, bool]:
    return data, False


@asynccontextmanager
async def tcp_proxy(
    port: int, make_filter: MakeFilter | None = None, *, seconds: float = 0.0
) -> AsyncIterator[TcpProxy]:
    """Yield an open proxy to that port, with that delay in each direction; it is stopped afterwards."""
    made = TcpProxy(port, make_filter, seconds=seconds)
    await made.open()
    try:
        yield made
    finally:
        await made.stop()


# Closes a connection at a chosen moment of one statement to PostgreSQL or one command to Redis.


_TLS_REQUEST = 80_877_103  # the client may send it first, and the server refuses
_READY_AND_IN_NO_TRANSACTION = b"Z\x00\x00\x00\x05I"


class Moment(StrEnum):
    """When to disconnect. Before and within the answer, the server has executed the request."""

    BEFORE_REQUEST = "before the request"
    WITHIN_REQUEST = "within the request"
    BEFORE_ANSWER = "before the answer"
    WITHIN_ANSWER = "within the answer"


@dataclass(slots=True, kw_only=True)
class Disconnect:
    """Happens once: at this moment of the first statement or command that contains `text`."""

    text: bytes
    moment: Moment
    is_done: bool = False

    def on_request(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part of the request that is forwarded, and whether the connection is closed after it."""
        if self.moment in {Moment.BEFORE_ANSWER, Moment.WITHIN_ANSWER}:
            return data, False
        self.is_done = True
        return data[: len(data) // 2 if self.moment is Moment.WITHIN_REQUEST else 0], True

    def on_answer(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part of the answer that is forwarded, and whether the connection is closed after it."""
        self.is_done = True
        return data[: len(data) // 2 if self.moment is Moment.WITHIN_ANSWER else 0], True


@dataclass(slots=True)
class Disconnector:
    """Shared by the filters of all connections of a proxy. `next` is the next disconnect."""

    next: Disconnect | None = None

    def due(self, request: bytes) -> Disconnect | None:
        disconnect = self.next
        return disconnect if disconnect and not disconnect.is_done and disconnect.text in request else None


@dataclass(slots=True)
class RedisFilter:
    """Watches one connection to Redis, on which our clients send one request at a time and wait for its answer."""

    disconnector: Disconnector
    _due: Disconnect | None = None

    def to_server(self, data: bytes) -> tuple[bytes, bool]:
        self._due = self.disconnector.due(data)
        return (data, False) if self._due is None else self._due.on_request(data)

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        return (data, False) if self._due is None or self._due.is_done else self._due.on_answer(data)


@dataclass(slots=True)
class PostgresFilter:
    """Watches one connection to PostgreSQL without TLS: the text of each prepared statement, and its execution."""

    disconnector: Disconnector
    _statements: dict[bytes, bytes] = field(default_factory=dict)
    _buffer: bytearray = field(default_factory=bytearray)
    _has_started: bool = False
    _due: Disconnect | None = None

    def to_server(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the execution of the statement."""
        self._buffer += data
        for kind, body in self._messages():
            if kind == b"P":
                name, _, text = body.partition(b"\0")
                self._statements[name] = text
            if kind == b"B" and (due := self.disconnector.due(self._statements.get(body.split(b"\0", 2)[1], b""))):
                self._due = due
                return due.on_request(data)
        return data, False

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the end of the answer, which is sent after the commit."""
        due = self._due
        if due is None or due.is_done or not data.endswith(_READY_AND_IN_NO_TRANSACTION):
            return data, False
        return due.on_answer(data)

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the kind and body of every complete message. The first ones, which have no kind, are skipped."""
        buffer = self._buffer
        while not self._has_started and len(buffer) >= 8 and len(buffer) >= int.from_bytes(buffer[:4]):
            self._has_started = int.from_bytes(buffer[4:8]) != _TLS_REQUEST
            del buffer[: int.from_bytes(buffer[:4])]
        while self._has_started and len(buffer) >= 5 and len(buffer) > int.from_bytes(buffer[1:5]):
            end = int.from_bytes(buffer[1:5]) + 1
            yield bytes(buffer[:1]), bytes(buffer[5:end])
            del buffer[:end]
