"""One connection: how much it accepts from a receiver, how it ends, and how long it stays open when it is idle."""

import asyncio
import re
import select
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

from hookseal.dispatcher.http.observation import PROGRESS, Phase, Progress

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


INTERIM_REPLIES: Final = 16
ANSWER_BYTES: Final = 131_072  # the body that is read, and as much for headers and chunks
CHUNK_BYTES: Final = 8_192  # the framing of chunks, without their content: 5 bytes or more for each chunk
_MOMENT_SECONDS: Final = 0.1
_INTERIM: Final = frozenset(range(100, 200)) - {101}  # after 101 nothing follows that is HTTP
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
Place = tuple[str, int]


class HttpConnection(ResponseHandler):
    """A connection that is aborted if it is closed in the middle of a request.

    Received bytes are parsed in slices, in turn with all other connections; more is read from the socket after that.
    The connection is also closed if an answer exceeds its limits, if a second answer follows, or if the receiver sends
    something without a request. A status that was received before that counts. `answered` is called with the transport
    once, when the head of the first answer has arrived. `handshake_bytes` says how many bytes the receiver sent for
    what the connection keeps of the TLS handshake.
    """

    handshake_bytes = 0

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        place: Place,
        idle: "IdleConnections",
        turns: Turns,
        answered: Callable[[asyncio.BaseTransport], None] | None = None,
    ) -> None:
        super().__init__(loop)
        self.place = place
        self._idle = idle
        self._turns = turns
        self._answered = answered
        self._busy = True
        self._was_asked = False  # until then aiohttp only collects what is received
        self._progress: Progress | None = PROGRESS.get()
        self._unparsed = bytearray()
        self._is_cut_off = False
        self._lost_by: tuple[BaseException | None] | None = None
        self._incoming: select.poll | None = None
        self._expect_answer()

    def _expect_answer(self) -> None:
        self._answer_bytes = 0
        self._chunk_bytes = 0
        self._interim_replies = 0
        self._body: StreamReader | None = None

    @property
    def should_close(self) -> bool:
        """Whether it cannot be used for another request, for instance because unparsed bytes remain."""
        return bool(self._unparsed) or super().should_close

    def set_response_params(self, **params: Any) -> None:
        """Begin a request."""
        self._idle.forget(self)
        self._busy = self._was_asked = True
        self._expect_answer()
        self._progress = progress = PROGRESS.get()
        progress.connection = self
        progress.phase = Phase.ANSWER
        if progress.watch is not None and self.transport is not None:
            progress.watch(self.transport)
        later, self._unparsed = self._unparsed, bytearray()
        super().set_response_params(**params)  # it parses bytes that came before the request: those come first
        self._unparsed += later

    def data_received(self, data: bytes) -> None:
        """Take bytes from the receiver. Without a request they would count as the answer to the next one: close it."""
        if not data:  # aiohttp continues with the bytes that it has
            super().data_received(data)
        elif not self._busy:
            self._cut_off("spoke without being asked")
        elif not self._unparsed and len(data) <= SLICE_BYTES and self._turns.spend(len(data)):
            self._parse(data)
        elif not self._is_cut_off:
            room = ANSWER_BYTES + 1 - self._answer_bytes - len(self._unparsed)
            self._unparsed += data[: max(0, room)]
            self._pause_or_resume(resume=False)
            self._turns.wait(self)

    def take_turn(self, most: int) -> int:
        """Parse at most `most` of the waiting bytes, and return how many were parsed."""
        piece = bytes(self._unparsed[:most])
        del self._unparsed[:most]
        if piece:
            self._parse(piece)
        if self._lost_by is not None and not self._unparsed:
            self._end(*self._lost_by)
        elif not self._unparsed:
            self._pause_or_resume(resume=True)
        return len(piece)

    def has_more(self) -> bool:
        """Return whether bytes wait to be parsed."""
        return bool(self._unparsed)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take a parsed reply: any number of interim replies up to the limit, and one final reply."""
        message, body = data
        if self._is_cut_off:
            return
        if message.code in _INTERIM:
            self._interim_replies += 1
            if self._interim_replies > INTERIM_REPLIES:
                self._cut_off(f"sent more than {INTERIM_REPLIES} interim replies")
                return
        elif self._body is not None:
            self._cut_off("answered twice")
            return
        else:
            self._body = body
            if self._answered is not None and self.transport is not None:
                self._answered(self.transport)
                self._answered = None
            if message.code == HTTPStatus.SWITCHING_PROTOCOLS:  # whatever follows, it answers no further request
                self.force_close()
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the connection after the bytes that came before its end are parsed."""
        self._idle.forget(self)
        if self._unparsed:
            self._lost_by = (exc,)
        else:
            self._end(exc)

    def abort(self) -> None:
        """End now, and discard bytes that wait to be parsed or sent."""
        self._unparsed.clear()
        super().abort()

    def close(self) -> None:
        """Close the connection. In the middle of a request it does not wait for the receiver to read the rest."""
        if self._busy:
            self.abort()
        else:
            super().close()

    def rest(self, progress: Progress) -> None:
        """Mark the connection as idle, if it can be used again and no other request uses it already.

        aiohttp may hand it to another request as soon as the answer has ended, before this request continues.
        """
        if self._progress is progress and self.is_connected() and not self.should_close:
            self._busy = False
            self._progress = None
            self._idle.keep(self)

    async def ended(self, *, within: float) -> None:
        """Return once the connection has ended, or after `within` seconds."""
        closed = self.closed
        if closed is not None:
            await asyncio.wait({closed}, timeout=within)
            if closed.done():
                closed.exception()  # retrieved, so that asyncio does not log it; `lost_by` reports it

    def _parse(self, piece: bytes) -> None:
        self._answer_bytes += len(piece)
        if self._answer_bytes > ANSWER_BYTES:
            self._cut_off(f"sent more than {ANSWER_BYTES} bytes")
            return
        body = self._body
        before = 0 if body is None else body.total_bytes
        # If what follows a head is not valid, aiohttp would lose a head that it gets in the same call.
        while self._was_asked and self._body is None and (end := end_of_head(piece)) < len(piece):
            super().data_received(piece[:end])
            piece = piece[end:]
            if self._is_cut_off or self.exception() is not None:
                return
        super().data_received(piece)
        if body is not None:
            self._chunk_bytes += len(piece) - (body.total_bytes - before)
            if self._chunk_bytes > CHUNK_BYTES:
                self._cut_off("sent its body in too many chunks")

    def _cut_off(self, what: str) -> None:
        """End now, because the receiver violated a limit. A status that was received before that counts."""
        self._is_cut_off = True
        self._unparsed.clear()
        self.force_close()
        if self._progress is not None:
            self._progress.cut_off = f"the receiver {what}: its connection was closed"
        if self.transport is not None:
            self.transport.abort()

    def _pause_or_resume(self, *, resume: bool) -> None:
        """Resume reading from the socket if `resume`; otherwise pause it until the received bytes are parsed."""
        if self.transport is None or (resume and self._reading_paused):  # aiohttp resumes once its reader has caught up
            return
        with suppress(RuntimeError):  # the transport is closed
            if resume:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _end(self, exc: BaseException | None) -> None:
        self._lost_by = None
        if self._progress is not None:
            self._progress.lost_by = exc
            self._progress = None
        super().connection_lost(exc)

    def is_stale(self) -> bool:
        """Return whether the receiver has closed the connection, or sent something, since its last answer.

        The event loop may not know it yet, so the system is asked. This avoids writing a request to a closed connection
        and sending it a second time.
        """
        if self.transport is None or self.should_close:
            return True
        if self._incoming is None:
            self._incoming = select.poll()
            self._incoming.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._incoming.poll(0))


def end_of_head(piece: bytes) -> int:
    """Return where a head may end in these bytes, or their number if it does not.

    Line breaks at the beginning may end a head that began before. To cut there is harmless if they do not.
    """
    breaks = len(piece) - len(piece.lstrip(b"\r\n"))
    if breaks:
        return breaks
    blank = _BLANK_LINE.search(piece)
    return len(piece) if blank is None else blank.end()


class IdleConnections:
    """The idle connections: at most `most` in all and `most_each` to one place, with `most_bytes` of handshakes in all.

    Those of places with several are closed first, and of these the longest idle, so that as many places as possible
    have one.
    """

    def __init__(self, *, most: int, most_each: int, most_bytes: int) -> None:
        self._most = most
        self._most_each = most_each
        self._most_bytes = most_bytes
        self._bytes = 0
        self._all: OrderedDict[HttpConnection, None] = OrderedDict()
        self._at: defaultdict[Place, OrderedDict[HttpConnection, None]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        return len(self._all)

    def keep(self, connection: HttpConnection) -> None:
        """Add a connection that has become idle, and close another one if there are too many."""
        self._all[connection] = None
        self._bytes += connection.handshake_bytes
        here = self._at[connection.place]
        here[connection] = None
        if len(here) > self._most_each:
            self._close(next(iter(here)))
        while len(self._all) > self._most or self._bytes > self._most_bytes:
            self._close(self._least_needed())

    def forget(self, connection: HttpConnection) -> None:
        """Remove a connection that is used again or has ended."""
        if self._all.pop(connection, connection) is None:
            self._bytes -= connection.handshake_bytes
            here = self._at[connection.place]
            del here[connection]
            if not here:
                del self._at[connection.place]

    async def close_all(self) -> bool:
        """Close all of them, wait until they have ended, and return whether there were any."""
        ending = list(self._all)
        for connection in ending:
            self.forget(connection)
            connection.abort()
        for connection in ending:
            await connection.ended(within=_MOMENT_SECONDS)
        return bool(ending)

    def _least_needed(self) -> HttpConnection:
        if len(self._at) == len(self._all):
            return next(iter(self._all))
        return next(connection for connection in self._all if len(self._at[connection.place]) > 1)

    def _close(self, connection: HttpConnection) -> None:
        self.forget(connection)
        connection.close()
