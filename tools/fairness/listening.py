"""A receiver in a process of its own, so that what it does delays nothing that is measured: `listening KIND`.

It prints its port, and runs until it is killed.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvloop

_BACKLOG: Final = 1_024  # connections that wait to be accepted

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def _hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _throttle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _request(reader)
    writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def _dribble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for each in b"HTTP/1.1 200 OK\r\n\r\n":
        writer.write(bytes([each]))
        await writer.drain()
        await asyncio.sleep(1.0)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request of a kept connection."""
    while await _request(reader):
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
    writer.close()


async def _request(reader: asyncio.StreamReader) -> bool:
    """Read one request; return whether there was one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    return True


HANDLERS: Final[dict[str, Handler]] = {
    "answer": _answer,
    "dribble": _dribble,
    "hang": _hang,
    "reset": _reset,
    "throttle": _throttle,
}


async def main(handler: Handler) -> None:
    """Receive until cancelled."""

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except ConnectionError:  # the worker has closed the connection
            writer.transport.abort()

    server = await asyncio.start_server(receive, "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(HANDLERS[sys.argv[1]]))
