"""Closes a connection at a chosen moment of one statement to PostgreSQL or one command to Redis."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

_TLS_REQUEST = 80_877_103  # the client may send it first, and the server refuses
_READY_AND_IN_NO_TRANSACTION = b"Z\x00\x00\x00\x05I"


class Moment(StrEnum):
    """When to disconnect. Before and within the answer, the server has executed the request."""

    BEFORE_REQUEST = "before the request"
    WITHIN_REQUEST = "within the request"
    BEFORE_ANSWER = "before the answer"
    WITHIN_ANSWER = "within the answer"


@dataclass(slots=True, kw_only=True)
class Disconnect:
    """Happens once: at this moment of the first statement or command that contains `text`."""

    text: bytes
    moment: Moment
    is_done: bool = False

    def on_request(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part of the request that is forwarded, and whether the connection is closed after it."""
        if self.moment in {Moment.BEFORE_ANSWER, Moment.WITHIN_ANSWER}:
            return data, False
        self.is_done = True
        return data[: len(data) // 2 if self.moment is Moment.WITHIN_REQUEST else 0], True

    def on_answer(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part of the answer that is forwarded, and whether the connection is closed after it."""
        self.is_done = True
        return data[: len(data) // 2 if self.moment is Moment.WITHIN_ANSWER else 0], True


@dataclass(slots=True)
class Disconnector:
    """Shared by the filters of all connections of a proxy. `next` is the next disconnect."""

    next: Disconnect | None = None

    def due(self, request: bytes) -> Disconnect | None:
        """Return the next disconnect if it is for this request."""
        disconnect = self.next
        return disconnect if disconnect and not disconnect.is_done and disconnect.text in request else None


@dataclass(slots=True)
class RedisFilter:
    """Watches one connection to Redis, on which our clients send one request at a time and wait for its answer."""

    disconnector: Disconnector
    _due: Disconnect | None = None

    def to_server(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the command."""
        self._due = self.disconnector.due(data)
        return (data, False) if self._due is None else self._due.on_request(data)

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        """Look for its answer."""
        return (data, False) if self._due is None or self._due.is_done else self._due.on_answer(data)


@dataclass(slots=True)
class PostgresFilter:
    """Watches one connection to PostgreSQL without TLS: the text of each prepared statement, and its execution."""

    disconnector: Disconnector
    _statements: dict[bytes, bytes] = field(default_factory=dict)
    _buffer: bytearray = field(default_factory=bytearray)
    _has_started: bool = False
    _due: Disconnect | None = None

    def to_server(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the execution of the statement."""
        self._buffer += data
        for kind, body in self._messages():
            if kind == b"P":
                name, _, text = body.partition(b"\0")
                self._statements[name] = text
            if kind == b"B" and (due := self.disconnector.due(self._statements.get(body.split(b"\0", 2)[1], b""))):
                self._due = due
                return due.on_request(data)
        return data, False

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the end of the answer, which is sent after the commit."""
        due = self._due
        if due is None or due.is_done or not data.endswith(_READY_AND_IN_NO_TRANSACTION):
            return data, False
        return due.on_answer(data)

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the kind and body of every complete message. The first ones, which have no kind, are skipped."""
        buffer = self._buffer
        while not self._has_started and len(buffer) >= 8 and len(buffer) >= int.from_bytes(buffer[:4]):
            self._has_started = int.from_bytes(buffer[4:8]) != _TLS_REQUEST
            del buffer[: int.from_bytes(buffer[:4])]
        while self._has_started and len(buffer) >= 5 and len(buffer) > int.from_bytes(buffer[1:5]):
            end = int.from_bytes(buffer[1:5]) + 1
            yield bytes(buffer[:1]), bytes(buffer[5:end])
            del buffer[:end]
