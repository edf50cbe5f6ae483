"""The port of the probes when a client opens more connections than the limit and leaves them open."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web

from hookseal.worker.health import MOST_CONNECTIONS, ProbePort
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("OPS-01")
ASKED = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def live(_request: web.Request) -> web.Response:
    """Answer."""
    return web.Response(text="ok")


@asynccontextmanager
async def serving(port: ProbePort) -> AsyncIterator[int]:
    """Answer on this port during the block."""
    application = web.Application()
    application.router.add_get("/livez", live)
    _, number = await port.serve(application, "127.0.0.1", 0)
    try:
        yield number
    finally:
        await port.close()


@asynccontextmanager
async def opened(number: int, source: str) -> AsyncIterator[Streams]:
    """Yield a connection from that loopback address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", number, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answered(streams: Streams) -> bytes:
    """Send a request, and return everything until the connection is closed."""
    reader, writer = streams
    writer.write(ASKED)
    return await reader.read()


async def test_many_connections_keep_no_other_client_out() -> None:
    """Connections above the limit are closed, and a client at another address is answered."""
    port = ProbePort()
    async with serving(port) as number, AsyncExitStack() as open_ones:
        kubelet = await open_ones.enter_async_context(opened(number, "127.0.0.2"))
        for _ in range(5 * MOST_CONNECTIONS):
            await open_ones.enter_async_context(opened(number, "127.0.0.3"))

        async def counted() -> bool:
            return len(port) == MOST_CONNECTIONS

        await eventually(counted)
        assert b"HTTP/1.1 200 OK" in await answered(kubelet)
        late = await open_ones.enter_async_context(opened(number, "127.0.0.2"))
        assert b"HTTP/1.1 200 OK" in await answered(late)
        last = await open_ones.enter_async_context(opened(number, "127.0.0.3"))
        assert b"HTTP/1.1 200 OK" in await answered(last)


async def test_a_connection_gets_one_answer() -> None:
    """A connection is closed after its answer."""
    port = ProbePort()
    async with serving(port) as number, opened(number, "127.0.0.1") as streams:
        streams[1].write(ASKED)
        answer = await answered(streams)

        assert 1 == answer.count(b"HTTP/1.1")
        assert b"Connection: close" in answer

        async def none() -> bool:
            return len(port) == 0

        await eventually(none)


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nhost:"])
async def test_a_silent_connection_is_closed(sent: bytes) -> None:
    """A connection without a whole request is closed at its time limit."""
    port = ProbePort(seconds=0.05)
    async with serving(port) as number, opened(number, "127.0.0.1") as (reader, writer):
        writer.write(sent)
        assert b"" == await reader.read()
        assert 0 == len(port)


async def test_a_busy_port_is_an_error() -> None:
    """A port in use is an error."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await ProbePort().serve(web.Application(), "127.0.0.1", taken.getsockname()[1])
