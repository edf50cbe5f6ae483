"""Publishes the calls that wait at the same time in one statement.

A call is sent at once while a connection is free, so that none waits for others to come: no timer is used. While all
are in use, calls collect, and the next free one publishes those of one tenant together.
"""

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

from hookseal.client.doorbell import Doorbell
from hookseal.dispatcher.store import publish as stored
from hookseal.dispatcher.store.publish import NewEvent, PublishResult
from hookseal.ground.batches import resolve, resolve_left
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import ANSWER_SECONDS, Pool
from hookseal.postgres.translate import PLAIN

MOST_CALLS: Final = 100  # in one statement
MOST_BYTES: Final = 1_048_576
MOST_DELIVERIES: Final = 1_000  # about: an event is expected to make as many as the last one of its type did
UNKNOWN_DELIVERIES: Final = 100  # expected of the first one
_MOST_TYPES: Final = 10_000  # of which the number of deliveries is remembered


class _Call:
    """A call that waits for its result."""

    __slots__ = ("content", "event", "future", "is_alone", "since", "statement")

    def __init__(self, event: NewEvent, content: str | bytes) -> None:
        loop = asyncio.get_running_loop()
        self.event = event
        self.content = content
        self.future: asyncio.Future[PublishResult] = loop.create_future()
        self.since = loop.time()
        self.is_alone = False  # whether it shares its statement with no other call
        self.statement: _Statement | None = None  # once it is sent


class _Statement:
    """The calls of one statement, and the task that runs it."""

    __slots__ = ("_task", "calls")

    def __init__(self, calls: Sequence[_Call], task: asyncio.Task[None]) -> None:
        self.calls = calls
        self._task = task

    def cancel_if_left(self) -> None:
        """Cancel the statement once, if the callers of all its calls were cancelled."""
        if not self._task.cancelling() and all(call.future.cancelled() for call in self.calls):
            self._task.cancel()


class Together:
    """Publishes calls through a pool, in as many statements at a time as it may have connections.

    A statement has the calls of one tenant, in the order in which they came. Tenants take turns. If it is refused as a
    whole, nothing of it is stored, and each of its calls is sent again alone. If its answer is lost, each of its calls
    raises `Unavailable`. It rings once, for all its calls.

    `measured` is called with the seconds of each statement, also of one that failed, and the number of its events.
    """

    def __init__(self, pool: Pool, doorbell: Doorbell, *, dated: bool) -> None:
        self._pool = pool
        self._dated = dated  # as in `stored.publish`
        self._doorbell = doorbell
        self._free = pool.get_max_size()
        self._waiting: dict[TenantId, deque[_Call]] = {}  # the first tenant has the next turn
        self._is_due = False
        self._deliveries: dict[tuple[TenantId, str], int] = {}  # that the last event of a type made
        self._running: set[asyncio.Task[None]] = set()  # the event loop itself keeps no reference to its tasks
        self.measured: Callable[[float, int], object] = lambda _seconds, _events: None

    async def publish(self, event: NewEvent, content: str | bytes) -> PublishResult:
        """Publish the event and ring. Raises as `stored.publish` does.

        It waits at most five seconds for its turn. If it is cancelled, its statement goes on for the other calls; it is
        cancelled once all of them are.
        """
        call = _Call(event, content)
        self._waiting.setdefault(event.tenant_id, deque()).append(call)
        self._look_soon()
        try:
            return await call.future
        except asyncio.CancelledError:
            if call.statement is not None:
                call.statement.cancel_if_left()
            raise

    def _look_soon(self) -> None:
        """Begin statements in the next turn of the event loop, with all calls that come until then."""
        if self._free and self._waiting and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_due = False
        while self._free and self._waiting:
            tenant_id, waiting = next(iter(self._waiting.items()))
            del self._waiting[tenant_id]
            calls = self._next(waiting)
            if waiting:
                self._waiting[tenant_id] = waiting  # behind the other tenants
            if calls:
                self._start(calls)

    def _next(self, waiting: deque[_Call]) -> list[_Call]:
        """Remove the calls of the next statement from those that wait, and return them."""
        calls: list[_Call] = []
        size = deliveries = 0
        earliest = asyncio.get_running_loop().time() - ANSWER_SECONDS
        while waiting and len(calls) < MOST_CALLS:
            call = waiting[0]
            if call.future.done():  # its caller was cancelled
                waiting.popleft()
                continue
            if call.since < earliest:
                waiting.popleft()
                resolve(call.future, _late())
                continue
            size += len(call.content)
            deliveries += self._deliveries.get((call.event.tenant_id, call.event.event_type), UNKNOWN_DELIVERIES)
            if calls and (call.is_alone or size > MOST_BYTES or deliveries > MOST_DELIVERIES):
                break
            calls.append(waiting.popleft())
            if call.is_alone:
                break
        return calls

    def _start(self, calls: Sequence[_Call]) -> None:
        self._free -= 1
        task = asyncio.ensure_future(self._run(calls))
        statement = _Statement(calls, task)
        for call in calls:
            call.statement = statement
        self._running.add(task)
        # No `partial`: in its debug mode asyncio logs the arguments of one, and a call has the data of an event.
        task.add_done_callback(lambda ended: self._ended(statement, ended))

    def _ended(self, statement: _Statement, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        resolve_left(task, [(call, call.future) for call in statement.calls if call.statement is statement])

    async def _run(self, calls: Sequence[_Call]) -> None:
        began_at = asyncio.get_running_loop().time()
        try:
            results = await self._stored(calls)
        except Exception as error:  # noqa: BLE001 -- it is raised by each of the calls
            for call in calls:
                resolve(call.future, copy.copy(error))
            return
        finally:
            self._free += 1
            self._look_soon()
            self.measured(asyncio.get_running_loop().time() - began_at, len(calls))
        if results is None:
            self._send_alone(calls)
            return
        for call, result in zip(calls, results, strict=True):
            self._remember(call.event, len(result.deliveries))
        await self._doorbell.ring(list(chain.from_iterable(result.due for result in results)))
        for call, result in zip(calls, results, strict=True):
            resolve(call.future, result)

    async def _stored(self, calls: Sequence[_Call]) -> list[PublishResult] | None:
        """Return the results; None if nothing is stored and each call is to be sent alone."""
        rings = self._doorbell.rings
        tenant_id = calls[0].event.tenant_id
        if len(calls) > 1:
            events = stored.batch((call.event, call.content) for call in calls)
            return await stored.publish_together(self._pool, tenant_id, events, rings=rings, dated=self._dated)
        [call] = calls
        return [await stored.publish(self._pool, call.event, call.content, rings=rings, dated=self._dated)]

    def _send_alone(self, calls: Sequence[_Call]) -> None:
        """Let these calls wait again, before the others of their tenant."""
        for call in calls:
            call.is_alone = True
            call.statement = None
        self._waiting.setdefault(calls[0].event.tenant_id, deque()).extendleft(reversed(calls))
        self._look_soon()

    def _remember(self, event: NewEvent, deliveries: int) -> None:
        if len(self._deliveries) >= _MOST_TYPES:
            self._deliveries.clear()
        self._deliveries[event.tenant_id, event.event_type] = deliveries


def _late() -> Exception:
    """Return the error of a call that has waited too long for its turn: that of one that gets no connection."""
    error = TimeoutError()
    return PLAIN.meaning(error) or error
