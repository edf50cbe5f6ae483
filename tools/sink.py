"""The receiver of every measurement: a process of its own that answers as cheaply as Python can, and counts.

The first part of the path says what it does: `POST /50/...` is answered with 204 after 50 ms, `/close/` at once, and
then the connection is closed; `/fail/` is answered with 500, and the words of `_BAD` name what else goes wrong. `GET /`
returns the number of requests since the last `DELETE /` (without those to `/fail/`), the number of connections, how
many of them resumed a TLS session, the seconds from the first request to the last, and the milliseconds since the
publishing of each body that contains `"sent":SECONDS`.

It listens at every address of the loopback: on one port without TLS, and on as many with TLS as the second argument
says, by the certificate in the file of the first. So each of many endpoints can be at a place of its own.
"""

import asyncio
import json
import resource
import socket
import ssl
import struct
import sys
import time
from typing import Final, cast

import uvloop

_NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\n\r\n"
_CLOSING: Final = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
_FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
_THROTTLED: Final = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_AT_ONCE: Final = {"0": _NO_CONTENT, "close": _CLOSING, "fail": _FAILED, "throttle": _THROTTLED}
_DRIBBLED: Final = b"HTTP/1.1 200 OK\r\n\r\n"
_BAD: Final = ("hang", "reset", "dribble")
_SENT: Final = b'"sent":'
_LOOKED_AT: Final = 256  # bytes at the beginning of a body, which contain the time if there is one


class _Count:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.requests = self.connections = self.resumed = 0
        self.first = self.last = 0.0
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
            "resumed": self.resumed,
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
            does = head[6:].split(b"/", 1)[0].decode()
            if does != "fail":
                self._count.one(time.monotonic(), body)
                self._count_connection()
            self._answer(does)
        elif head.startswith(b"delete"):
            self._count.forget()
            self._write(_NO_CONTENT)
        else:
            self._write(self._count.answer())

    def _count_connection(self) -> None:
        if self._transport is None or self._counted_in is self._count.milliseconds:  # once since the last reset
            return
        self._counted_in = self._count.milliseconds
        self._count.connections += 1
        tls = self._transport.get_extra_info("ssl_object")
        self._count.resumed += tls is not None and bool(tls.session_reused)

    def _answer(self, does: str) -> None:
        if (answer := _AT_ONCE.get(does)) is not None:
            self._write(answer)
        elif does not in _BAD:
            self._loop.call_later(int(does) / 1000, self._write, _NO_CONTENT)
        elif does == "dribble":
            for second, each in enumerate(_DRIBBLED):
                self._loop.call_later(second, self._write, bytes([each]))
        elif does == "reset" and self._transport is not None:
            # Without waiting for what is unsent, the kernel resets the connection.
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)
            if answer is _THROTTLED or answer is _CLOSING:
                self._transport.close()


def _listening() -> socket.socket:
    """Return a socket on a free port of every address of the loopback, and of no other device."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    listening.bind(("0.0.0.0", 0))  # noqa: S104 -- of the device that it is bound to
    return listening


async def main(certificate: str, secure: int) -> None:
    """Listen until standard input ends; the port without TLS is printed first, then those with it."""
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    loop = asyncio.get_running_loop()
    count = _Count()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    servers = [
        await loop.create_server(lambda: _Answering(count, loop), sock=_listening(), backlog=4096, ssl=tls)
        for tls in (None, *[context] * secure)
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
