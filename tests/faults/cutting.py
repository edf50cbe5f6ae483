"""Cuts a connection at a chosen moment of one statement to PostgreSQL or one command to Redis."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

_ENCRYPTED_PLEASE = 80_877_103  # the request for TLS, which the client may send first and the server refuses
_READY_AND_IN_NO_TRANSACTION = b"Z\x00\x00\x00\x05I"


class Moment(StrEnum):
    """When to cut: before the request, within it, or after the server executed it, before or within the answer."""

    UNSAID = "unsaid"
    HALF_SAID = "half-said"
    UNANSWERED = "unanswered"
    HALF_ANSWERED = "half-answered"


@dataclass(slots=True, kw_only=True)
class Cut:
    """A cut to make once: at this moment of the first statement or command that contains `saying`."""

    saying: bytes
    moment: Moment
    is_done: bool = False

    def asked(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part of the request that is forwarded, and whether the connection is cut after it."""
        if self.moment in {Moment.UNANSWERED, Moment.HALF_ANSWERED}:
            return data, False
        self.is_done = True
        return data[: len(data) // 2 if self.moment is Moment.HALF_SAID else 0], True

    def answered(self, data: bytes) -> tuple[bytes, bool]:
        """Return the part of the answer that is forwarded, and whether the connection is cut after it."""
        self.is_done = True
        return data[: len(data) // 2 if self.moment is Moment.HALF_ANSWERED else 0], True


@dataclass(slots=True)
class Scissors:
    """Shared by the watches over all connections of a line. `cut` is the next cut to make."""

    cut: Cut | None = None

    def due(self, was_ready: bytes) -> Cut | None:
        """Return the next cut if it is for this text."""
        cut = self.cut
        return cut if cut is not None and not cut.is_done and cut.saying in was_ready else None


@dataclass(slots=True)
class OnRedis:
    """Watches one connection to Redis, on which our clients send one command at a time and wait for its answer."""

    scissors: Scissors
    _asked: Cut | None = None

    def up(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the command."""
        self._asked = self.scissors.due(data)
        return (data, False) if self._asked is None else self._asked.asked(data)

    def down(self, data: bytes) -> tuple[bytes, bool]:
        """Look for its answer."""
        return (data, False) if self._asked is None or self._asked.is_done else self._asked.answered(data)


@dataclass(slots=True)
class OnPostgres:
    """Watches one connection to PostgreSQL without TLS: the text of each prepared statement, and its execution."""

    scissors: Scissors
    _texts: dict[bytes, bytes] = field(default_factory=dict)
    _said: bytearray = field(default_factory=bytearray)
    _has_begun: bool = False
    _asked: Cut | None = None

    def up(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the execution of the statement."""
        self._said += data
        for kind, body in self._messages():
            if kind == b"P":
                name, _, text = body.partition(b"\0")
                self._texts[name] = text
            if kind == b"B" and (due := self.scissors.due(self._texts.get(body.split(b"\0", 2)[1], b""))):
                self._asked = due
                return due.asked(data)
        return data, False

    def down(self, data: bytes) -> tuple[bytes, bool]:
        """Look for the end of the answer, which is sent after the commit."""
        cut = self._asked
        if cut is None or cut.is_done or not data.endswith(_READY_AND_IN_NO_TRANSACTION):
            return data, False
        return cut.answered(data)

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every complete message that was received. The first ones, without a kind, are skipped."""
        while not self._has_begun and len(self._said) >= 8 and len(self._said) >= int.from_bytes(self._said[:4]):
            self._has_begun = int.from_bytes(self._said[4:8]) != _ENCRYPTED_PLEASE
            del self._said[: int.from_bytes(self._said[:4])]
        while self._has_begun and len(self._said) >= 5 and len(self._said) > int.from_bytes(self._said[1:5]):
            end = int.from_bytes(self._said[1:5]) + 1
            yield bytes(self._said[:1]), bytes(self._said[5:end])
            del self._said[:end]
