"""Servers that fail in the ways that a command must report."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

T = TypeVar("T")
SOON_SECONDS: Final = 20  # several times the time on a busy machine; without a time-out of hookseal it would be minutes


@asynccontextmanager
async def black_hole() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Yield the port of a server that accepts and never answers, and an event set at the first connection."""
    called = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(1)
        called.set()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], called
    finally:
        server.close()
        for writer in writers:
            writer.close()


@asynccontextmanager
async def refusing(sqlstate: str, message: str) -> AsyncIterator[int]:
    """Yield the port of a PostgreSQL that refuses every connection with this error."""
    fields = b"SFATAL\0VFATAL\0C%b\0M%b\0\0" % (sqlstate.encode(), message.encode())
    writers: list[asyncio.StreamWriter] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readexactly(8)  # the request for TLS
        writer.write(b"N")
        await reader.read(1_024)
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


@asynccontextmanager
async def tls_postgres(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Yield the port of a PostgreSQL that accepts TLS with this certificate, and then refuses the password.

    Without a certificate it accepts TLS, and then does not speak it.
    """
    fields = b"SFATAL\0VFATAL\0C28P01\0Mno\0\0"
    writers: list[asyncio.StreamWriter] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readexactly(8)  # the request for TLS
        writer.write(b"S")
        if context is None:
            await reader.read(1)
            writer.write(b"this is no handshake")
            return
        try:
            await writer.start_tls(context)
        except OSError:
            return
        await reader.read(1_024)
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def seconds_from(called: asyncio.Event, command: Awaitable[T]) -> tuple[T, float]:
    """Return the result of the command and the seconds from that call to its end, without the start of Python."""
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(command)
    waiting = asyncio.create_task(called.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    began = loop.time()
    return await running, loop.time() - began


def closed_port() -> int:
    """Return a port without a listener, which the system assigns to nobody else while this process lives.

    A program that asks for exactly this port may still listen on it.
    """
    held = reserved()
    port: int = held.getsockname()[1]
    held.detach()  # the socket stays open until the process ends
    return port


def reserved() -> socket.socket:
    """Return a socket that reserves a port, without listening, until it is closed."""
    held = socket.socket()
    held.setsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
    )  # so that a server that sets it, too, may listen on the port
    held.bind(("127.0.0.1", 0))
    return held
