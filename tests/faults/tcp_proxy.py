"""A line to a server on this machine that can be cut, held, slowed, closed, and led to another server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

from hookseal.embedded.server import HOST
from tests.cli.listeners import reserved

_CHUNK = 65_536


class Cutter(Protocol):
    """Decides which bytes of one connection are forwarded, and where it is cut."""

    def up(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part that is forwarded to the server, and whether the connection is cut after it."""
        ...

    def down(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part that is forwarded to the client, and whether the connection is cut after it."""
        ...


class Line:
    """Forwards connections to a port, with a delay of `seconds` in each direction.

    `cutter`, if given, makes the watch over each connection.
    """

    def __init__(self, port: int, cutter: Callable[[], Cutter] | None = None, *, seconds: float = 0.0) -> None:
        self._kept = reserved()  # reserved, so that no other test gets a port that is closed for a while
        self.port: int = self._kept.getsockname()[1]
        self._to = port
        self._cutter = cutter
        self._seconds = seconds
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def open(self) -> None:
        """Listen, always at the same port."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    def close(self) -> None:
        """Refuse every new connection, and cut the existing ones."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut every existing connection, whatever is being sent."""
        for connection in list(self._connections):
            connection.abort()

    def hold(self) -> None:
        """Forward nothing, in either direction, and keep every connection."""
        self._flows.clear()

    def go_on(self) -> None:
        """Forward what was held."""
        self._flows.set()

    def strand(self) -> None:
        """Forward nothing more on the existing connections; new ones work."""
        for connection in list(self._connections):
            connection.flows = asyncio.Event()

    def lead_to(self, port: int) -> None:
        """Lead new connections to another server, and cut the existing ones."""
        self._to = port
        self.cut()

    def url(self, url: str) -> str:
        """Return the same URL through this line."""
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{login}@{HOST}:{self.port}").geturl()

    async def ended(self) -> None:
        """Close the line, and return when all of its connections have ended."""
        self.go_on()
        self.close()
        await asyncio.gather(*(connection.task for connection in self._connections), return_exceptions=True)
        self._kept.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        cutter = None if self._cutter is None else self._cutter()
        connection = _Connection(writer, task, self._flows, cutter, self._seconds)
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
        flows: asyncio.Event,
        cutter: Cutter | None,
        seconds: float,
    ) -> None:
        self.task = task
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._forwarding: tuple[asyncio.Task[None], ...] = ()
        self.flows = flows
        self._cutter = cutter
        self._seconds = seconds

    async def serve(self, from_client: asyncio.StreamReader, port: int) -> None:
        try:
            from_server, self._server = await asyncio.open_connection(HOST, port)
        except OSError:
            self.abort()
            return
        cutter = self._cutter
        up = asyncio.create_task(self._forward(from_client, self._server, _all if cutter is None else cutter.up))
        down = asyncio.create_task(self._forward(from_server, self._client, _all if cutter is None else cutter.down))
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
            task.cancel()  # it may wait on a line that is never released
        for writer in (self._client, self._server):
            if writer is not None:
                writer.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        passing: Callable[[bytes], tuple[bytes, bool]],
    ) -> None:
        while data := await reader.read(_CHUNK):
            await self.flows.wait()
            await asyncio.sleep(self._seconds)  # the delay of the line
            passes, is_cut = passing(data)
            writer.write(passes)
            await writer.drain()
            if is_cut:
                return


def _all(data: bytes) -> tuple[bytes, bool]:
    return data, False


@asynccontextmanager
async def line(port: int, cutter: Callable[[], Cutter] | None = None, *, seconds: float = 0.0) -> AsyncIterator[Line]:
    """Yield an open line to that port, with that delay in each direction; it is closed afterwards."""
    made = Line(port, cutter, seconds=seconds)
    await made.open()
    try:
        yield made
    finally:
        await made.ended()
