"""The receiver of the benchmark: answers 204 on persistent connections as cheaply as Python can, and counts.

It is a separate process, so that its cost is not counted. `POST /50/...` is answered after 50 ms. `GET /` returns
the number of requests since the last `DELETE /`, the number of connections, the seconds from the first request to
the last, and the milliseconds since the publishing of each body that contains `"sent":SECONDS`. It listens on two
ports: without TLS, and with TLS by the certificate in the given file.
"""

import asyncio
import json
import ssl
import sys
import time
from typing import Final, cast

import uvloop

_NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
_SENT: Final = b'"sent":'
_LOOKED_AT: Final = 256  # bytes at the beginning of a body, which contain the time if there is one


class _Count:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.requests = 0
        self.connections = 0
        self.first = 0.0
        self.last = 0.0
        self.milliseconds: list[float] = []

    def one(self, now: float, body: bytes) -> None:
        self.first = self.first or now
        self.last = now
        self.requests += 1
        _, marker, rest = body.partition(_SENT)
        if marker:
            self.milliseconds.append((now - float(rest.split(b",", 1)[0].rstrip(b"} "))) * 1e3)

    def answer(self) -> bytes:
        counts = {
            "requests": self.requests,
            "connections": self.connections,
            "seconds": self.last - self.first,
            "milliseconds": self.milliseconds,
        }
        body = json.dumps(counts).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class _Answering(asyncio.Protocol):
    def __init__(self, count: _Count, loop: asyncio.AbstractEventLoop) -> None:
        self._count = count
        self._loop = loop
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._counted_in: list[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not derived from it

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, marker, rest = head.partition(b"content-length:")
            whole = end + 4 + (int(rest.split(b"\r\n", 1)[0]) if marker else 0)
            if len(self._buffer) < whole:
                return
            self._asked(head, self._buffer[end + 4 : min(whole, end + 4 + _LOOKED_AT)])
            self._buffer = self._buffer[whole:]

    def _asked(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"post"):
            self._count.one(time.monotonic(), body)
            if self._counted_in is not self._count.milliseconds:  # once since the last reset
                self._counted_in = self._count.milliseconds
                self._count.connections += 1
            delay_ms = int(head[6:].split(b"/", 1)[0])
            if delay_ms:
                self._loop.call_later(delay_ms / 1000, self._write, _NO_CONTENT)
            else:
                self._write(_NO_CONTENT)
        elif head.startswith(b"delete"):
            self._count.forget()
            self._write(_NO_CONTENT)
        else:
            self._write(self._count.answer())

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
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
