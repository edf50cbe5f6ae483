"""The receiver of the benchmark: answers 204 on kept connections as cheaply as Python can, and counts.

A process of its own, so that what it costs is charged to nobody. `GET /` tells how many requests it got
since the last `DELETE /`, over how many connections, and the seconds from the first of them to the last. It listens on
two ports, in the clear and, with the certificate in the file that it is given, behind TLS.
"""

import asyncio
import json
import ssl
import sys
from typing import Final, cast

import uvloop

_NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Count:
    requests = 0
    connections = 0
    first = 0.0
    last = 0.0

    def one(self, now: float) -> None:
        self.first = self.first or now
        self.last = now
        self.requests += 1

    def forget(self) -> None:
        self.requests, self.connections, self.first, self.last = 0, 0, 0.0, 0.0


class _Answering(asyncio.Protocol):
    def __init__(self, count: _Count, loop: asyncio.AbstractEventLoop) -> None:
        self._count = count
        self._loop = loop
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, and does not say so

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, marker, rest = head.partition(b"content-length:")
            whole = end + 4 + (int(rest.split(b"\r\n", 1)[0]) if marker else 0)
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        answer = _NO_CONTENT
        if head.startswith(b"post"):
            self._count.one(self._loop.time())
            self._count.connections += not self._counted
            self._counted = True
        elif head.startswith(b"delete"):
            self._count.forget()
        else:
            told = {
                "requests": self._count.requests,
                "connections": self._count.connections,
                "seconds": self._count.last - self._count.first,
            }
            body = json.dumps(told).encode()
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
                len(body),
                body,
            )
        if self._transport is not None:
            self._transport.write(answer)


async def main(certificate: str) -> None:
    """Listen until standard input ends; the two ports are printed first."""
    loop = asyncio.get_running_loop()
    count = _Count()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    servers = [
        await loop.create_server(lambda: _Answering(count, loop), "127.0.0.1", 0, backlog=4096, ssl=secure)
        for secure in (None, context)
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
