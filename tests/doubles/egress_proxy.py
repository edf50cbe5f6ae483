"""A forward proxy that makes tunnels (CONNECT), on a real socket of the loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from hookseal.dispatcher.http.tunnel import EgressProxy


@dataclass
class ProxyServer:
    """The requests that a proxy received, and how it answers: it connects, unless `answer` or `silent` is set.

    A target in `routes` leads to another address.
    """

    port: int = 0
    answer: bytes | None = None
    silent: bool = False
    heads: list[bytes] = field(default_factory=list)
    routes: dict[str, str] = field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        return [head.split(b" ")[1].decode("ascii") for head in self.heads]

    def settings(self, credentials: bytes | None = None) -> EgressProxy:
        return EgressProxy(host="127.0.0.1", port=self.port, credentials=credentials)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.silent:
                await reader.read()
                return
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
                return
            host, _, port = self.routes.get(self.targets[-1], self.targets[-1]).rpartition(":")
            try:
                far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except OSError:
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                await writer.drain()
                return
            writer.write(b"HTTP/1.1 200 Connection established\r\nvia: a proxy\r\n\r\n")
            try:
                await asyncio.gather(piped(reader, far_writer), piped(far_reader, writer))
            finally:
                far_writer.transport.abort()


async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write everything that is read, and the end as well."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@asynccontextmanager
async def proxying() -> AsyncIterator[ProxyServer]:
    proxy = ProxyServer()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
        try:
            await proxy.serve(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
