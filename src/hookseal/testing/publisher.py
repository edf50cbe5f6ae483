"""A Publisher that stores nothing: it checks what it is given as the real one does, and remembers it."""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, Final, TypeAlias

import msgspec

from hookseal.client.doorbell import Doorbell
from hookseal.client.publisher import Published, PublishedMany, Publisher, join_transaction
from hookseal.config.settings import Settings
from hookseal.dispatcher.store import publish as stored
from hookseal.dispatcher.store.publish import NewEvent, PublishResult
from hookseal.errors import Conflict, Malformed
from hookseal.ground import ids
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.ids import EventId, TenantId
from hookseal.ground.wire import MAX_BODY_BYTES
from hookseal.postgres.pool import Connection

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ENVELOPE: Final = '{"type":"%s","timestamp":"2026-01-02T03:04:05.678Z","data":}'  # docs/wire.md
_IN_USE: Final = "event id is already used with another type, other channels or other data"
_Fingerprint: TypeAlias = tuple[str, str | bytes, frozenset[str]]  # a repeat has the same type, content and channels


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event that was published. `data` are as a receiver reads them, and None if it has a `body`.

    `is_committed` is false if it was published in a transaction, whose rollback would undo it.
    """

    tenant_id: str
    event_type: str
    event_id: str
    data: Any
    body: bytes | None
    correlation_id: str | None
    traceparent: str | None
    tracestate: str | None
    channels: tuple[str, ...]
    occurred_at: datetime
    is_committed: bool


class RecordingPublisher(Publisher):
    """A Publisher for tests, without a server: `published` has each event once, in the order of the calls.

    It takes, refuses and repeats what the real one does: arguments, limits, an event id that another event has, a
    `connection` that is none of asyncpg or whose transaction has failed. It knows no endpoints, so that its results
    have no deliveries, and no rights. An event of a transaction that is rolled back later stays in `published`.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self.published: Final = list[RecordedEvent]()
        self._by_id: Final = dict[tuple[str, str], tuple[RecordedEvent, _Fingerprint]]()
        self._clock = SystemClock() if clock is None else clock
        self._numbers = count()
        self._doorbell = Doorbell(None, lambda _reason: None)
        self._spans = None
        self._dated = True

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        database_url: str | None = None,  # noqa: ARG003 -- as the real one
        redis_url: str | None = None,  # noqa: ARG003 -- the same
        *,
        tracer_provider: Any = None,  # noqa: ARG003 -- the same
    ) -> "AsyncIterator[RecordingPublisher]":
        """Yield a new one, which connects to nothing: an application that opens its Publisher may open this one."""
        yield cls()

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        settings: Settings,  # noqa: ARG003 -- as the real one
        *,
        tracer_provider: Any = None,  # noqa: ARG003 -- the same
    ) -> "AsyncIterator[RecordingPublisher]":
        """Yield a new one, as `connect` does."""
        yield cls()

    def measure(self, measured: Callable[[float, int], object]) -> None:
        """Do nothing: there are no statements to measure."""

    async def _publish(self, new_event: NewEvent, content: str | bytes, connection: Connection | None) -> Published:
        async with _joined(connection) as is_joined:
            [result] = self._remember([(new_event, content, None)], is_committed=not is_joined)
            return self._one(result, is_committed=not is_joined)

    async def _publish_many(
        self,
        owner: TenantId,  # noqa: ARG002 -- each event has it
        events: Iterable[tuple[NewEvent, str | bytes]],
        connection: Connection | None,
    ) -> PublishedMany:
        given = [(event, content, index) for index, (event, content) in enumerate(events)]
        stored.batch((event, content) for event, content, _ in given)  # the limits of one call
        async with _joined(connection if given else None) as is_joined:
            return self._many(self._remember(given, is_committed=not is_joined), is_committed=not is_joined)

    def _remember(
        self, given: Sequence[tuple[NewEvent, str | bytes, int | None]], *, is_committed: bool
    ) -> list[PublishResult]:
        """Remember these events, all of them or none, and return their results. Raises as PostgreSQL does."""
        at = self._clock.now()
        new: dict[tuple[str, str], tuple[RecordedEvent, _Fingerprint]] = {}
        results: list[PublishResult] = []
        for event, content, index in given:
            _require_storable(event, content, index)
        for event, content, index in given:
            event_id = event.event_id or EventId(f"{ids.first_uuid7(at)[:-12]}{next(self._numbers):012x}")
            key, fingerprint = (event.tenant_id, event_id), (event.event_type, content, frozenset(event.channels))
            known = new.get(key) or self._by_id.get(key)
            if known is not None and known[1] != fingerprint:
                raise Conflict(_numbered(_IN_USE, index), field="event_id", index=index)
            first, _ = known or (_recorded(event, event_id, content, at, is_committed=is_committed), fingerprint)
            if known is None:
                new[key] = (first, fingerprint)
            results.append(
                PublishResult(
                    event_id=event_id,
                    duplicate=known is not None,
                    deliveries=(),
                    due=(),
                    occurred_at=first.occurred_at,
                )
            )
        self._by_id.update(new)
        self.published.extend(event for event, _ in new.values())
        return results


@asynccontextmanager
async def _joined(connection: Connection | None) -> AsyncIterator[bool]:
    """Yield whether the block is a part of a transaction of the caller's. Raises as the real one."""
    if connection is None:
        yield False
        return
    async with join_transaction(connection) as is_joined:
        yield is_joined


def _require_storable(event: NewEvent, content: str | bytes, index: int | None) -> None:
    """Raise `Malformed` for what only PostgreSQL refuses: hookseal.admit_event has the same two rules."""
    if event.traceparent is not None and not _TRACEPARENT.fullmatch(event.traceparent):
        raise Malformed(_numbered("traceparent must be a W3C traceparent", index), field="traceparent", index=index)
    around = len(_ENVELOPE % event.event_type) if isinstance(content, str) else 0
    if around + len(content.encode() if isinstance(content, str) else content) > MAX_BODY_BYTES:
        text = f"body must be at most {MAX_BODY_BYTES} bytes as sent"
        raise Malformed(_numbered(text, index), field="body", index=index)


def _numbered(text: str, index: int | None) -> str:
    return text if index is None else f"events[{index}]: {text}"


def _recorded(
    event: NewEvent, event_id: EventId, content: str | bytes, at: datetime, *, is_committed: bool
) -> RecordedEvent:
    return RecordedEvent(
        tenant_id=event.tenant_id,
        event_type=event.event_type,
        event_id=event_id,
        data=msgspec.json.decode(content) if isinstance(content, str) else None,
        body=content if isinstance(content, bytes) else None,
        correlation_id=event.correlation_id,
        traceparent=event.traceparent,
        tracestate=None if event.traceparent is None else event.tracestate,
        channels=event.channels,
        occurred_at=at,
        is_committed=is_committed,
    )
