"""Decides which connection parses its bytes next, with a limit for all connections in one turn of the event loop.

Parsing takes time of the event loop, which all deliveries and the probes share. So bytes are parsed in slices, and the
connections take turns.
"""

import asyncio
from typing import Final, Protocol

SLICE_BYTES: Final = 2_048
TURN_BYTES: Final = 16_384


class Parsing(Protocol):
    """A connection with bytes that wait to be parsed."""

    def take_turn(self, most: int) -> int:
        """Parse at most `most` of the waiting bytes, and return how many were parsed."""
        ...

    def has_more(self) -> bool:
        """Return whether bytes still wait to be parsed."""
        ...


class Turns:
    """The connections whose bytes wait, in the order of their turns. It belongs to one event loop."""

    def __init__(self) -> None:
        self._left = TURN_BYTES
        self._waiting: dict[Parsing, None] = {}
        self._is_called = False

    def spend(self, count: int) -> bool:
        """Return whether `count` bytes may be parsed now; if so, they count towards the limit of this loop turn."""
        self._call()
        if count > self._left:
            return False
        self._left -= count
        return True

    def wait(self, connection: Parsing) -> None:
        """Queue the connection for a turn, behind those that already wait."""
        self._waiting[connection] = None
        self._call()

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._is_called = False
        self._left = TURN_BYTES
        try:
            while self._waiting and self._left >= SLICE_BYTES:
                connection = next(iter(self._waiting))
                del self._waiting[connection]
                self._left -= connection.take_turn(SLICE_BYTES)
                if connection.has_more():
                    self._waiting[connection] = None
        finally:
            if self._waiting:
                self._call()
