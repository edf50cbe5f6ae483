"""The port of the parent: answers GET requests, on plain asyncio, so that the parent stays small.

A worker without a parent uses `probe_port`, which needs aiohttp. The parent would load aiohttp just for this.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

MOST_CONNECTIONS: Final = 64
CONNECTION_SECONDS: Final = 10.0  # to ask, and to be answered
_HEAD_BYTES: Final = 16_384
_WAITING: Final = 64  # connections that the system queues until they are accepted
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_PLAIN: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a request."""

    status: int
    body: bytes = b""
    content_type: str = _PLAIN


# Takes a path without its query, and the value of the header `Accept`; returns None if there is no such path.
Answers = Callable[[str, str], Awaitable[Reply | None]]


class Port:
    """Answers each connection once, within ten seconds, and 64 at a time.

    One more closes the oldest connection of the address that has most: a client that opens many cannot shut out others.
    """

    def __init__(self, answers: Answers, *, most: int = MOST_CONNECTIONS, seconds: float = CONNECTION_SECONDS) -> None:
        self._answers = answers
        self._most = most
        self._seconds = seconds
        self._open: dict[asyncio.Task[None], str] = {}  # the oldest first, each with the address it came from
        self._ending: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def serve(self, host: str, port: int) -> str:
        """Listen until `close`, and return the base url. Raises `OSError`."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD_BYTES, backlog=_WAITING)
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        tasks = [*self._open, *self._ending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._open[task] = str((writer.get_extra_info("peername") or ("",))[0])
        task.add_done_callback(partial(self._ended, writer))
        if len(self._open) > self._most:
            self._end_one()

    def _end_one(self) -> None:
        [(crowd, _)] = Counter(self._open.values()).most_common(1)
        task = next(task for task, address in self._open.items() if address == crowd)
        del self._open[task]  # now, because more connections may come before it has ended
        self._ending.add(task)
        task.cancel()

    def _ended(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        writer.transport.abort()  # here, because a task that is cancelled before it begins runs none of its code
        self._open.pop(task, None)
        self._ending.discard(task)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                writer.write(_written(await self._reply(await reader.readuntil(b"\r\n\r\n"))))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that sends too slowly, too much or nothing gets no answer

    async def _reply(self, head: bytes) -> Reply:
        request, *lines = head.decode("latin-1").split("\r\n")
        words = request.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 -- method, path and version
            return Reply(status=400)
        if words[0] != "GET":
            return Reply(status=405)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return await self._answers(words[1].partition("?")[0], headers.get("accept", "")) or Reply(status=404)


def _written(reply: Reply) -> bytes:
    body = reply.body or f"{reply.status} {_REASONS[reply.status]}\n".encode()
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\nContent-Type: {reply.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
