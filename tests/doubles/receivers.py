"""Receivers that misbehave on purpose, on real sockets of the loopback."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Listens on 127.0.0.1 and runs a script for each request.

    It keeps the requests, and for each connection the name of the client certificate and whether a TLS session was
    resumed.
    """

    def __init__(self, script: Script, *, secure: bool = False) -> None:
        self._script = script
        self._secure = secure
        self.connections = 0
        self.ended = 0
        self.clients: list[str | None] = []
        self.resumed: list[bool] = []
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/hook" if self._secure else f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests and answer each with the script, until the connection ends."""
        self.connections += 1
        tls = writer.get_extra_info("ssl_object")
        self.resumed.append(tls is not None and tls.session_reused)
        shown = writer.get_extra_info("peercert") or {}
        self.clients.append(dict(part[0] for part in shown.get("subject", ())).get("commonName"))
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while True:
                    self.requests.append(await _request(reader))
                    await self._script(reader, writer)
                    await writer.drain()
        finally:
            self.ended += 1
            writer.transport.abort()


@asynccontextmanager
async def listening(script: Script, *, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Listener]:
    """Yield a listener during the block, with TLS if a context is given, and on a free port unless one is given."""
    listener = Listener(script, secure=tls is not None)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
        await listener.serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=tls)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answers(raw: bytes) -> Script:
    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return script


def status(code: int, body: bytes = b"", headers: bytes = b"") -> Script:
    """Return a script that answers with a well-formed reply."""
    return answers(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (code, len(body), headers, body))


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Do not answer, until the client ends the connection."""
    await reader.read()


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    raise ConnectionResetError


def endless(chunk: bytes = b"x" * 16_384) -> Script:
    """Return a script whose body never ends."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()

    return script


def stalls_after(raw: bytes) -> Script:
    """Return a script that sends these bytes and then nothing more."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        await reader.read()

    return script


async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000)
        await writer.drain()


def drips(head: bytes, drop: bytes = b"x") -> Script:
    """Return a script that sends the head and then single bytes slowly, while the connection is open."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.transport.is_closing():
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.05)

    return script


def resets_after(raw: bytes) -> Script:
    """Return a script that sends these bytes and then resets the connection (RST)."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        raw_socket = writer.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionResetError

    return script


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(length)
