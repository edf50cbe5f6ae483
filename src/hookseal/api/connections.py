"""The connections of clients, each within limits, so that slow clients and many of them shut out nobody.

| what | limit | then |
|---|---|---|
| the head of a request | 10 s, 64 KiB, 256 headers | 408, 431, and the connection is closed |
| the header `host` | one, but with HTTP/1.0 | 400, and the connection is closed |
| both of a request while the one before it is in work | 64 KiB, 256 headers, one `host` | the connection is cut |
| requests that come while one before them is in work | 32 | the connection is cut |
| its body | 10 s, and the bytes of its call | 408, 413 |
| what comes of a body after the answer | 10 s | closed |
| a trailer behind a body, the extension of a chunk | 64 KiB | the connection is cut |
| an open connection without a request | 20 s | closed |
| an answer that is not read | 10 s | the connection is cut |
| connections | 1,000 | one more closes the one that has been without a request for longest |

Bytes are counted once they were read, at most 256 KiB at a time: so much more may come at once.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS: Final = 10.0
MOST_HEAD_BYTES: Final = 65_536
MOST_HEADERS: Final = 256  # each takes 130 bytes of memory, and may have 4
MOST_REQUESTS: Final = 32  # that wait for one before them: each takes 2 KiB of memory, and may have 20 bytes
IDLE_SECONDS: Final = 20
ANSWER_SECONDS: Final = 10.0
MOST_CONNECTIONS: Final = 1_000
_REASONS: Final = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Connections:
    """Makes the protocol of each connection. The ones without a request are known, the oldest first."""

    def __init__(self, *, most: int = MOST_CONNECTIONS, head_seconds: float = HEAD_SECONDS) -> None:
        self.most: Final = most
        self.head_seconds: Final = head_seconds
        self.waiting: Final[dict[Connection, None]] = {}

    def __call__(self, **given: Any) -> "Connection":
        """Return the protocol of a new connection; the arguments are those of uvicorn."""
        return Connection(self, **given)


class Connection(HttpToolsProtocol):
    """A connection of a client."""

    def __init__(self, limits: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._head_bytes = 0
        self._extra_bytes = 0  # that came since the last of a body
        self._is_within_head = False
        self._is_within_body = False  # of a request that has been answered
        self._data = b""  # what is being read
        self._is_begun = False  # whether the head that is being read has been read before
        self._head = _Deadline(self.loop, self._late)
        self._answer = _Deadline(self.loop, self._cut)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of the first request."""
        super().connection_made(transport)
        self._limits.waiting[self] = None
        self._head.begin(self._limits.head_seconds)
        if len(self.connections) > self._limits.most:
            oldest = next(iter(self._limits.waiting))
            del self._limits.waiting[oldest]  # now, because more connections may come before it is lost
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._limits.waiting.pop(self, None)
        self._head.end()
        self._answer.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head; the time for that of a further request begins with its first byte.

        A head may come while a request is in work. If it is too long, the connection is cut: what is sent now would be
        taken for the answer to that request.
        """
        if self in self._limits.waiting and not self._is_within_body:
            if not self._head_bytes and not self._head.runs:
                self._head.begin(self._limits.head_seconds)
            self._head_bytes += len(data)
        elif self._is_within_head:
            self._head_bytes += len(data)
        else:
            self._extra_bytes += len(data)
        self._read(data)
        if self._extra_bytes > MOST_HEAD_BYTES:
            self.transport.abort()
        elif self._head_bytes > MOST_HEAD_BYTES and (self in self._limits.waiting or self._is_within_head):
            self._refuse_head(431, f"the head of a request may have at most {MOST_HEAD_BYTES} bytes")

    def _read(self, data: bytes) -> None:
        self._data = data
        super().data_received(data)

    def _unsupported_upgrade_warning(self) -> None:
        """Read the request as one that asks for no other protocol, which a server may ignore (RFC 9110, 7.8).

        The clients of Java ask for HTTP/2 with each request over plain HTTP. The parser has ended the request behind
        its head, since what follows might be the other protocol. So a new one reads the rest, behind a head of as much
        as is needed to know where the body ends.
        """
        refused = sys.exc_info()[1]  # this is called while it is handled
        rest = self._data[refused.args[0] :] if isinstance(refused, httptools.HttpParserUpgrade) else b""
        framing = [
            b"%s: %s\r\n" % header for header in self.headers if header[0] in {b"content-length", b"transfer-encoding"}
        ]
        self.cycle.more_body = True
        self.cycle.message_event.clear()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._is_begun = True
        self._read(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(framing))
        self._read(rest)

    def on_message_begin(self) -> None:
        """Begin a request, unless it has begun. If too many wait already, the connection is cut."""
        if not self._is_begun:
            if len(self.pipeline) >= MOST_REQUESTS:
                self.transport.abort()
                raise _RefusedError
            if self not in self._limits.waiting:
                self._head_bytes = 0
            self._extra_bytes = 0
            self._is_within_head = True
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the url, once."""
        if not self._is_begun:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, once. A trailer is none: it stands behind the body."""
        if self._is_within_head:
            if len(self.headers) >= MOST_HEADERS:
                self._refuse_head(431, f"the head of a request may have at most {MOST_HEADERS} headers")
                raise _RefusedError
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Answer the request: it may take its time, for the body has a limit of its own."""
        if self._is_begun:
            self._is_begun = False
            return
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):  # RFC 9112, 3.2
            self._refuse_head(400, "a request must have one header `host`")
            raise _RefusedError
        self._is_within_head = False
        self._limits.waiting.pop(self, None)
        self._head.end()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._extra_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the head of the next request, as of a first one, if this one has been answered already."""
        super().on_message_complete()
        if self._is_within_body:
            self._is_within_body = False
            self._head.begin(self._limits.head_seconds)  # the bytes of the body have ended uvicorn's time without one

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one, and for the client to read the answer."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._head_bytes = 0
            self._limits.waiting[self] = None
            self._is_within_body = self.cycle.more_body
            if self._is_within_body:
                self._head.begin(self._limits.head_seconds)
        if self.transport.get_write_buffer_size():
            self._answer.begin(ANSWER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in JSON as everything else, unless it would be taken for the answer to a request."""
        if self.transport.is_closing():  # it is refused already
            return
        if self in self._limits.waiting or (self.cycle.more_body and not self.pipeline):
            self._refuse(400, msg)
        else:
            self.transport.abort()

    def _late(self) -> None:
        if self._head_bytes:
            self._refuse(408, f"the head of a request must come within {self._limits.head_seconds:g} seconds")
        else:
            self.transport.close()

    def _cut(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse_head(self, status: int, detail: str) -> None:
        if self in self._limits.waiting:
            self._refuse(status, detail)
        else:
            self.transport.abort()

    def _refuse(self, status: int, detail: str) -> None:
        body = msgspec.json.encode({"code": _REASONS[status].lower().replace(" ", "_"), "detail": detail})
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self._answer.begin(ANSWER_SECONDS)
        self.transport.write(head.encode() + body)
        self.transport.close()


class _RefusedError(Exception):
    """Ends the parser, which would read the rest of what has come."""


class _Deadline:
    """Calls a function when its time is over, unless it was ended before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
        self._loop = loop
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        return self._timer is not None

    def begin(self, seconds: float) -> None:
        self.end()
        self._timer = self._loop.call_later(seconds, self._act)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
