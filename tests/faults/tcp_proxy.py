"""A TCP proxy to a server on this machine, which can disconnect, pause, delay, close, and redirect."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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
        """Listen, always at the same port."""
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
        """Return the same URL through this proxy."""
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
