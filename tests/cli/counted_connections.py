"""A proxy for PostgreSQL that counts connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Counted:
    """The url of the proxy, and the number of connections made through it."""

    url: str = ""
    connections: int = 0


@asynccontextmanager
async def counted_connections(database_url: str) -> AsyncIterator[Counted]:
    """Forward and count connections to the database for the length of the block."""
    parts = urlsplit(database_url)
    counted = Counted()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counted.connections += 1
        from_server, to_server = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(_forward(reader, to_server), _forward(from_server, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    counted.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
    try:
        yield counted
    finally:
        server.close()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
