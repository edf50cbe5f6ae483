"""A client that begins a request and never ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

_BEGINNING: Final = (
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"  # its answer shows that the server has read what follows
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nab"
)


@asynccontextmanager
async def stuck_client(url: str) -> AsyncIterator[None]:
    """Keep a request to the server of this url open for the length of the block: 2 of the 10 bytes of its body came."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(_BEGINNING)
        await reader.readline()
        yield
    finally:
        writer.close()
