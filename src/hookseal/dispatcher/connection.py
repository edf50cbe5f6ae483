"""One connection: how much it takes from a receiver, how it ends, and how long it is kept."""

import asyncio
import select
from collections import OrderedDict, defaultdict
from contextlib import suppress
from typing import Any, Final

from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

from hookseal.dispatcher.course import COURSE, Course, Phase
from hookseal.dispatcher.turns import SLICE_BYTES, Turns

INTERIM_REPLIES: Final = 16
ANSWER_BYTES: Final = 131_072  # the body that is read, and as much for headers and chunks
CHUNK_BYTES: Final = 8_192  # what chunks take beside what they hold: 5 bytes each, or more
_MOMENT_SECONDS: Final = 0.1
_INTERIM: Final = frozenset(range(100, 200)) - {101}  # after 101 nothing follows that is HTTP
Place = tuple[str, int]


class HttpConnection(ResponseHandler):
    """A connection that ends at once when it ends in the middle of a request.

    What comes is parsed in slices, in the turns of all connections; the next is read from the socket once that is done.
    The connection ends, too, when an answer grows beyond its bounds, when another one follows it, and when a receiver
    speaks while nothing was asked. The status counts if it came before.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place, kept: "Kept", turns: Turns) -> None:
        super().__init__(loop)
        self.place = place
        self._kept = kept
        self._turns = turns
        self._busy = True
        self._course: Course | None = COURSE.get()
        self._unparsed = bytearray()
        self._is_cut_off = False
        self._lost_by: tuple[BaseException | None] | None = None
        self._expect_answer()

    def _expect_answer(self) -> None:
        self._answer_bytes = 0
        self._chunk_bytes = 0
        self._interim_replies = 0
        self._body: StreamReader | None = None

    @property
    def should_close(self) -> bool:
        """Whether it can be used for one request only: so it is while something waits that no request asked for."""
        return bool(self._unparsed) or super().should_close

    def set_response_params(self, **params: Any) -> None:
        """Begin a request."""
        self._kept.forget(self)
        self._busy = True
        self._expect_answer()
        self._course = course = COURSE.get()
        course.connection = self
        course.phase = Phase.ANSWER
        if course.watch is not None and self.transport is not None:
            course.watch(self.transport)
        later, self._unparsed = self._unparsed, bytearray()
        super().set_response_params(**params)  # it takes what came before the request: that comes first
        self._unparsed += later

    def data_received(self, data: bytes) -> None:
        """Take what the receiver sent; what it says unasked would be taken for the answer to the next request."""
        if not data:  # aiohttp calls it so to go on with what it has
            super().data_received(data)
        elif not self._busy:
            self._cut_off("spoke without being asked")
        elif not self._unparsed and len(data) <= SLICE_BYTES and self._turns.spend(len(data)):
            self._parse(data)
        elif not self._is_cut_off:
            room = ANSWER_BYTES + 1 - self._answer_bytes - len(self._unparsed)
            self._unparsed += data[: max(0, room)]
            self._read_on(now=False)
            self._turns.wait(self)

    def take_turn(self, most: int) -> int:
        """Parse at most so many of the bytes that wait, and return how many they were."""
        piece = bytes(self._unparsed[:most])
        del self._unparsed[:most]
        if piece:
            self._parse(piece)
        if self._lost_by is not None and not self._unparsed:
            self._end(*self._lost_by)
        elif not self._unparsed:
            self._read_on(now=True)
        return len(piece)

    def has_more(self) -> bool:
        """Return whether bytes wait to be parsed."""
        return bool(self._unparsed)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take a reply that was parsed: interim ones, and then one."""
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
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End, once what came before the end is parsed."""
        self._kept.forget(self)
        if self._unparsed:
            self._lost_by = (exc,)
        else:
            self._end(exc)

    def abort(self) -> None:
        """End now, whatever waits to be parsed or sent."""
        self._unparsed.clear()
        super().abort()

    def close(self) -> None:
        """Close the connection; in the middle of a request without waiting for a receiver that does not read it."""
        if self._busy:
            self.abort()
        else:
            super().close()

    def rest(self, course: Course) -> None:
        """Let the connection wait for the next request, if it can be used for one, and no other has it already.

        aiohttp gives it away as soon as the answer has ended, which may be before whoever asked goes on.
        """
        if self._course is course and self.is_connected() and not self.should_close:
            self._busy = False
            self._course = None
            self._kept.keep(self)

    async def ended(self, *, within: float) -> None:
        """Return once the connection has ended, or the time is over."""
        closed = self.closed
        if closed is not None:
            await asyncio.wait({closed}, timeout=within)
            if closed.done():
                closed.exception()  # it is told otherwise

    def _parse(self, piece: bytes) -> None:
        self._answer_bytes += len(piece)
        if self._answer_bytes > ANSWER_BYTES:
            self._cut_off(f"sent more than {ANSWER_BYTES} bytes")
            return
        body = self._body
        before = 0 if body is None else body.total_bytes
        super().data_received(piece)
        if body is not None:
            self._chunk_bytes += len(piece) - (body.total_bytes - before)
            if self._chunk_bytes > CHUNK_BYTES:
                self._cut_off("sent its body in too many chunks")

    def _cut_off(self, what: str) -> None:
        """End now: the receiver did what no answer may do. What was said by then counts."""
        self._is_cut_off = True
        self._unparsed.clear()
        self.force_close()
        if self._course is not None:
            self._course.cut_off = f"the receiver {what}: its connection was closed"
        if self.transport is not None:
            self.transport.abort()

    def _read_on(self, *, now: bool) -> None:
        """Have what comes next read from the socket now, or not before what came is parsed."""
        if self.transport is None or (now and self._reading_paused):  # aiohttp goes on when its reader has caught up
            return
        with suppress(RuntimeError):  # it is closed: then nothing comes
            if now:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def _end(self, exc: BaseException | None) -> None:
        self._lost_by = None
        if self._course is not None:
            self._course.lost_by = exc
            self._course = None
        super().connection_lost(exc)

    def is_stale(self) -> bool:
        """Return whether the receiver has closed the connection, or spoken unasked, since its last answer.

        The loop may not have taken notice yet; the system has. So nothing is written where nobody reads, and no
        request need be sent a second time.
        """
        if self.transport is None or self.should_close:
            return True
        waiting = select.poll()
        waiting.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(waiting.poll(0))


class Kept:
    """The connections that wait for a next request: so many in all, and to one place; the longest unused are closed."""

    def __init__(self, *, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._all: OrderedDict[HttpConnection, None] = OrderedDict()
        self._at: defaultdict[Place, OrderedDict[HttpConnection, None]] = defaultdict(OrderedDict)

    def __len__(self) -> int:
        return len(self._all)

    def keep(self, connection: HttpConnection) -> None:
        """Take a connection that is not used any more, and close others if there are too many."""
        self._all[connection] = None
        here = self._at[connection.place]
        here[connection] = None
        if len(here) > self._most_each:
            self._close(next(iter(here)))
        elif len(self._all) > self._most:
            self._close(next(iter(self._all)))

    def forget(self, connection: HttpConnection) -> None:
        """Let go of a connection that is used again, or has ended."""
        if self._all.pop(connection, connection) is None:
            here = self._at[connection.place]
            del here[connection]
            if not here:
                del self._at[connection.place]

    async def cleared(self) -> bool:
        """End all of them, and return whether there were any once they have ended."""
        ending = list(self._all)
        for connection in ending:
            self.forget(connection)
            connection.abort()
        for connection in ending:
            await connection.ended(within=_MOMENT_SECONDS)
        return bool(ending)

    def _close(self, connection: HttpConnection) -> None:
        self.forget(connection)
        connection.close()
