"""A proxy in front of PostgreSQL that treats the startup parameters of a connection as poolers do."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_NAME = b"search_path"
_KEY_DATA = b"K"


@dataclass(slots=True)
class Pooler:
    """The address at which it listens, and the values of `search_path` that it dropped."""

    server: tuple[str, int]
    drops: bool
    refuses: bool
    hides: bool
    url: str = field(default="", repr=False)
    address: str = ""
    dropped: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            body = await _first(reader)
            if body is not None and self.refuses and _NAME in body:
                text = b"SFATAL\0C08P01\0Munsupported startup parameter: search_path\0\0"
                writer.write(b"E" + struct.pack("!I", len(text) + 4) + text)
                await writer.drain()
            elif body is not None:
                await self._pass(reader, writer, self._without_search_path(body) if self.drops else body)
        finally:
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        back, forth = await asyncio.open_connection(*self.server)
        forth.write(struct.pack("!I", len(body) + 4) + body)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copied(reader, forth))
                both.create_task(self._answered(back, writer))
        finally:
            forth.close()

    def _without_search_path(self, body: bytes) -> bytes:
        version, parts = body[:4], body[4:].rstrip(b"\0").split(b"\0")
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        self.dropped += [value.decode() for name, value in pairs if name == _NAME]
        kept = b"".join(name + b"\0" + value + b"\0" for name, value in pairs if name != _NAME)
        return version + kept + b"\0"

    async def _answered(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy the messages of the server; with `hides`, replace the process id in the cancel key."""
        with suppress(OSError, asyncio.IncompleteReadError):
            hidden = not self.hides
            while not hidden:
                kind = await back.readexactly(1)
                length = await back.readexactly(4)
                content = await back.readexactly(struct.unpack("!I", length)[0] - 4)
                if kind == _KEY_DATA:
                    content, hidden = b"\0\0\0\1" + content[4:], True
                writer.write(kind + length + content)
            await _copied(back, writer)
        writer.close()


async def _first(reader: asyncio.StreamReader) -> bytes | None:
    """Return the body of the startup message."""
    with suppress(asyncio.IncompleteReadError):
        length = struct.unpack("!I", await reader.readexactly(4))[0]
        return await reader.readexactly(length - 4)
    return None


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while read := await reader.read(65536):
            writer.write(read)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.close()


@asynccontextmanager
async def pooler(
    database_url: str, *, drops: bool = False, refuses: bool = False, hides: bool = False
) -> AsyncIterator[Pooler]:
    """Yield one in front of that server: it drops or refuses the search path, and can hide the server process."""
    parts = urlsplit(database_url)
    between = Pooler(server=(str(parts.hostname), int(parts.port or 0)), drops=drops, refuses=refuses, hides=hides)
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    between.address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    between.url = (
        parts._replace(netloc=f"{parts.username}:{parts.password}@{between.address}").geturl() + "?sslmode=disable"
    )
    try:
        yield between
    finally:
        server.close()
