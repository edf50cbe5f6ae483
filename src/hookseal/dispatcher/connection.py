"""One connection: how much it takes from a receiver, how it ends, and how long it is kept."""

import asyncio
import select
from collections import OrderedDict, defaultdict
from typing import Any, Final

from aiohttp.client_proto import ResponseHandler

from hookseal.dispatcher.course import COURSE, Course, Phase

_ANSWER_BYTES_TAKEN: Final = 524_288  # with headers and what one read of the socket brings beyond the body's limit
Place = tuple[str, int]


class HttpConnection(ResponseHandler):
    """A connection that ends at once when it ends in the middle of a request.

    It ends, too, when an answer grows beyond all reason: a flood of interim replies has no other bound; and when a
    receiver speaks while nothing was asked.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place, kept: "Kept") -> None:
        super().__init__(loop)
        self.place = place
        self._kept = kept
        self._busy = True
        self._course: Course | None = COURSE.get()
        self._answer_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """Begin a request."""
        self._kept.forget(self)
        self._busy = True
        self._answer_bytes = 0
        self._course = course = COURSE.get()
        course.connection = self
        course.phase = Phase.ANSWER
        if course.watch is not None and self.transport is not None:
            course.watch(self.transport)
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Take what the receiver sent; what it says unasked would be taken for the answer to the next request."""
        self._answer_bytes += len(data)
        is_unasked = bool(data) and not self._busy  # aiohttp calls it without data, too
        if (is_unasked or self._answer_bytes > _ANSWER_BYTES_TAKEN) and self.transport is not None:
            self.transport.abort()
            return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._kept.forget(self)
        if self._course is not None:
            self._course.lost_by = exc
            self._course = None
        super().connection_lost(exc)

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

    def _close(self, connection: HttpConnection) -> None:
        self.forget(connection)
        connection.close()
