"""Requests byte for byte, which an HTTP client would not send."""

import asyncio
from urllib.parse import urlsplit


async def raw_request(url: str, *lines: bytes, body: bytes = b"{}", host: bytes = b"x") -> int:
    """Post the body to this url with these lines in the head, and return the status."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        head = (b"POST /hook HTTP/1.1", b"host: " + host, b"content-length: %d" % len(body), *lines)
        writer.write(b"\r\n".join((*head, b"", body)))
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
