"""The Publisher: publishes from Python, on its own or inside a transaction of the caller.

async with Publisher.connect() as publisher:
    await publisher.publish(tenant_id="acme", event_type="invoice.paid", data={"id": 1})

    async with connection.transaction():
        ...
        published = await publisher.publish(..., connection=connection)
    await published.ring()

    await publisher.publish_many(tenant_id="acme", events=[Event(event_type="invoice.paid", data={"id": 2}), ...])
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from hookseal.client.doorbell import Doorbell, doorbell
from hookseal.client.together import Together
from hookseal.config.producer import producer_settings
from hookseal.config.settings import Database, Settings
from hookseal.dispatcher.core import payload
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store import publish as stored
from hookseal.dispatcher.store.publish import NewEvent
from hookseal.errors import ConfigError, Malformed, Refused, Unavailable
from hookseal.ground import ids
from hookseal.ground.ids import EventId, TenantId
from hookseal.ground.unset import UNSET
from hookseal.postgres import opening
from hookseal.postgres.connect import pool_of_qualified_statements
from hookseal.postgres.pool import ANSWER_SECONDS, Connection, Pool
from hookseal.postgres.savepoint import savepoint
from hookseal.postgres.schema import revision
from hookseal.postgres.translate import require_not_in_use, translated

_VISIBLE: Final = re.compile(r"[!-~]{1,128}")
_PRINTABLE: Final = re.compile(r"[\t -~]{1,512}")


def check_tenant(text: str) -> TenantId:
    """Return the tenant id. Raises `Malformed`, whose field is the argument's name, `tenant_id`."""
    try:
        return ids.tenant_id(_text(text, "tenant_id"))
    except Malformed as error:
        raise Malformed(str(error), field="tenant_id") from None


def event(
    *,
    tenant_id: str,
    event_type: str,
    event_id: str | None = None,
    correlation_id: str | None = None,
    traceparent: str | None = None,
    tracestate: str | None = None,
    channels: Iterable[str] = (),
) -> NewEvent:
    """Return the event, without a tracestate that no header may have. Raises `Malformed` with the field."""
    return NewEvent(
        tenant_id=ids.tenant_id(tenant_id),
        event_type=ids.event_type(_text(event_type, "event_type")),
        event_id=None if event_id is None else ids.event_id(_text(event_id, "event_id")),
        correlation_id=_visible(correlation_id, "correlation_id"),
        traceparent=_visible(traceparent, "traceparent"),
        tracestate=_tracestate(tracestate),
        channels=_channels(channels),
    )


def _tracestate(text: str | None) -> str | None:
    """Return it if PostgreSQL can be asked whether it is one."""
    return text if text is not None and _PRINTABLE.fullmatch(_text(text, "tracestate")) else None


def _visible(text: str | None, field: str) -> str | None:
    if text is not None and not _VISIBLE.fullmatch(_text(text, field)):
        raise Malformed(f"{field} must be 1 to 128 visible ASCII characters", field=field)
    return text


def _channels(names: object) -> tuple[str, ...]:
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise Malformed(f"channels must be a list of text, not {type(names).__name__}", field="channels")
    return ids.channels([_text(name, "channels") for name in names])


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{field} must be text, not {type(value).__name__}", field=field)
    return value


WAIT_SECONDS: Final = 7.0  # five for PostgreSQL and two for Redis: a call with a connection does not take longer


class Calls:
    """Counts the calls that are under way. Once it is closed, it refuses further ones."""

    def __init__(self) -> None:
        self._number = 0
        self._is_closed = False
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the block as a call. Raises `Refused` once it is closed."""
        if self._is_closed:
            raise Refused("this Publisher is closed: publish within its `async with`")
        self._number += 1
        self._all_ended.clear()
        try:
            yield
        finally:
            self._number -= 1
            if not self._number:
                self._all_ended.set()

    async def close(self, *, seconds: float = WAIT_SECONDS) -> None:
        """Refuse further calls, and wait that long for those under way."""
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_ended.wait()


@asynccontextmanager
async def counted_calls() -> AsyncIterator[Calls]:
    """Yield the calls of a Publisher, which are closed at the end of the block."""
    calls = Calls()
    try:
        yield calls
    finally:
        await calls.close()


_MAX_CONNECTIONS: Final = 5
_CLOSE_SECONDS: Final = 5.0
_DATED_SINCE: Final = "0002"  # the revision of the schema whose functions return the times of events


@asynccontextmanager
async def connections(database: Database) -> AsyncIterator[tuple[Pool, str]]:
    """Open a pool of one to five connections to a database with the schema of hookseal, and close it at the end.

    Yields the pool and the revision of the schema. Raises `Unavailable` with the address, `Refused` if the role may not
    use hookseal, `ConfigError`.
    """
    async with opening.pool(
        database,
        size=_MAX_CONNECTIONS,
        name="hookseal-publisher",
        seconds=ANSWER_SECONDS,
        close_seconds=_CLOSE_SECONDS,
        make=pool_of_qualified_statements,
    ) as pool:
        yield pool, await _revision(pool)


async def _revision(pool: Pool) -> str:
    # Any revision is accepted: the SQL functions are the contract, and a producer may be older than the schema.
    with translated():
        try:
            at = await revision.current(pool)
        except asyncpg.InsufficientPrivilegeError:
            raise Refused(
                "this database role may not publish: an operator must run "
                "`hookseal producer grant --role ROLE --tenant TENANT`, which makes it a member of hookseal_producer"
            ) from None
    if at is None:
        raise ConfigError("the database has no schema of hookseal: run `hookseal db upgrade`")
    return at


@asynccontextmanager
async def join_transaction(connection: Connection) -> AsyncIterator[bool]:
    """Run the block in the caller's transaction, if there is one: an error undoes the block and nothing else.

    Yields whether there is one; without it each statement of the block commits by itself. Raises `Malformed` if this is
    not a connection of asyncpg, `Conflict` if its transaction has already failed, or if another call uses it.
    """
    if not callable(getattr(connection, "is_in_transaction", None)):
        raise Malformed(
            "connection must be one of asyncpg: for SQLAlchemy, Django, psycopg and other drivers there is "
            "hookseal.producers",
            field="connection",
        )
    is_joined = not connection.is_closed() and connection.is_in_transaction()  # which a closed one raises at
    try:
        async with savepoint(connection) if is_joined else nullcontext():
            yield is_joined
    except Unavailable as error:
        require_not_in_use(error.__context__)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One of many events: its fields are arguments of `Publisher.publish`."""

    event_type: str
    data: object = UNSET
    body: bytes | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    channels: Sequence[str] = ()


def _checked(tenant_id: str, index: int, item: object) -> tuple[stored.NewEvent, str | bytes]:
    """Return the event and its content. Raises `Malformed` with its index."""
    if not isinstance(item, Event):
        kind = type(item).__name__
        raise Malformed(f"events[{index}] must be an Event, not {kind}: pass Event(...)", field="events", index=index)
    try:
        content = payload.content(item.data, item.body)
        checked = event(
            tenant_id=tenant_id,
            event_type=item.event_type,
            event_id=item.event_id,
            correlation_id=item.correlation_id,
            traceparent=item.traceparent,
            tracestate=item.tracestate,
            channels=item.channels,
        )
    except Malformed as error:
        raise Malformed(f"events[{index}]: {error}", field=error.field, index=index) from None
    return checked, content


_LOG: Final = logging.getLogger("hookseal.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The event and its deliveries. `duplicate` is true if this event had already been published.

    `is_committed` is false if the event is stored by the commit of the caller's transaction, and undone by a rollback.
    `occurred_at` is when it was published first, to the millisecond; None if the schema was of revision 0001 when the
    Publisher was opened.
    """

    event_id: EventId
    duplicate: bool
    deliveries: tuple[Ring, ...]
    is_committed: bool
    occurred_at: datetime | None
    _due: tuple[Ring, ...] = field(repr=False, compare=False)
    _doorbell: Doorbell = field(repr=False, compare=False)

    @property
    def matched(self) -> bool:
        """Whether an endpoint gets the event. If none does, nobody subscribes to its type, or it is misspelt."""
        return bool(self.deliveries)

    async def ring(self) -> None:
        """Ring the workers, after the commit of the caller's transaction. Without it they find the event by themselves.

        Deliveries that wait for their endpoint are not rung. Returns within two seconds. Never raises: a failed ring
        is logged, and workers find the event.
        """
        await self._doorbell.ring(self._due)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedMany:
    """The events of one call, in the order of the argument."""

    events: tuple[Published, ...]
    _doorbell: Doorbell = field(repr=False, compare=False)

    async def ring(self) -> None:
        """Ring the workers for all events at once; otherwise as `Published.ring`."""
        await self._doorbell.ring([ring for event in self.events for ring in event._due])  # noqa: SLF001 -- of this module


def _spans(tracer_provider: Any) -> Any:
    from hookseal.client.spans import Spans  # noqa: PLC0415 -- an optional package, which the caller has

    return Spans(tracer_provider)


class Publisher:
    """Publishes events. One Publisher serves a whole process: any number of tasks may use it at once."""

    def __init__(
        self, pool: Pool, ringing: Doorbell, calls: Calls, *, dated: bool, tracer_provider: Any = None
    ) -> None:
        self._pool = pool
        self._doorbell = ringing
        self._calls = calls
        self._dated = dated  # as in `stored.publish`
        self._together = Together(pool, ringing, dated=dated)
        self._spans = None if tracer_provider is None else _spans(tracer_provider)

    def measure(self, measured: Callable[[float, int], object]) -> None:
        """Call `measured` with the seconds and the number of events of each statement of calls without a connection."""
        self._together.measured = measured

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, database_url: str | None = None, redis_url: str | None = None, *, tracer_provider: Any = None
    ) -> "AsyncIterator[Publisher]":
        """Open a Publisher, and close its connections at the end of the block, after the calls that are under way.

        A url that is None is read from the environment: HOOKSEAL_DATABASE_URL or else DATABASE_URL, and
        HOOKSEAL_REDIS_URL or else REDIS_URL. An empty variable counts as not set, and other variables are not checked
        (docs/settings.md). Without a url of Redis, or with "", no worker is rung, and the workers find events by
        themselves a moment later. With a tracer provider of OpenTelemetry each call is a span, a child of the current
        one or of the `traceparent` that it is given, and receivers get its trace (docs/guide/tracing.md). Raises
        `ConfigError`, `Unavailable`, `Refused`.
        """
        settings = producer_settings(database_url=database_url, redis_url=redis_url)
        async with cls.opened(settings, tracer_provider=tracer_provider) as publisher:
            yield publisher

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: Settings, *, tracer_provider: Any = None) -> "AsyncIterator[Publisher]":
        """Open a Publisher with these settings, as `connect` does."""

        def on_lost(reason: str) -> None:
            _LOG.warning(
                "workers are not rung, and find events by themselves: %s (Redis at %s)", reason, settings.redis.address
            )

        async with (
            doorbell(settings, on_lost) as ringing,
            connections(settings.database) as (pool, revision_),
            counted_calls() as calls,
        ):
            dated = revision_ >= _DATED_SINCE
            yield cls(pool, ringing, calls, dated=dated, tracer_provider=tracer_provider)

    async def publish(
        self,
        *,
        tenant_id: str,
        event_type: str,
        data: object = UNSET,
        body: bytes | None = None,
        event_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        channels: Sequence[str] = (),
        connection: Connection | None = None,
    ) -> Published:
        """Store an event and one delivery for each endpoint that subscribes to its type, and ring the workers.

        `data` consists of dict with str as keys, list, tuple, str, int, float, bool and None, at most 200 levels deep,
        and is sent within the envelope of docs/wire.md. A value that JSON does not have (NaN, Decimal, datetime, ...)
        is never converted, but refused with its path (`data.items[3].price`). A `body` is sent byte for byte instead.
        An event with `channels`, up to 10 names, goes only to endpoints that share one of them or have none. Receivers
        get `traceparent` and `tracestate`, those of W3C Trace Context; a tracestate that is none is left out, and so is
        one without a traceparent, or for a schema of revision 0001.

        With a `connection` of asyncpg it joins the caller's transaction (without one it commits at once, and
        `is_committed` says so), and the caller awaits `Published.ring` after the commit; a publish that fails undoes
        itself and leaves that transaction usable. SQLAlchemy begins a transaction on its first statement only: for it
        there is `hookseal.producers.sqlalchemy`. Publishing the same event id again changes nothing and returns the
        first result.

        Without a `connection` the calls of many tasks that wait for one share a statement. Each has its own result or
        error, and a cancelled one cancels no other: its event is stored or not. Only if the answer of PostgreSQL is
        lost do all calls of the statement raise `Unavailable`.

        Raises `Malformed` with the field, `Conflict` if another event has the event id or another call uses the
        connection, `NotFound` if the tenant is deleted, `Refused` if the role may not publish for the tenant or the
        Publisher is closed, `Unavailable`: then it is unknown whether the event is stored, and it is safe to publish it
        again with the same event id.
        """
        content = payload.content(data, body)
        new_event = event(
            tenant_id=check_tenant(tenant_id),
            event_type=event_type,
            event_id=event_id,
            correlation_id=correlation_id,
            traceparent=traceparent,
            tracestate=tracestate,
            channels=channels,
        )
        if self._spans is None:
            return await self._publish(new_event, content, connection)
        with self._spans.publishing(new_event.tenant_id, new_event) as span:
            published = await self._publish(span.traced(new_event), content, connection)
            span.stored([published.event_id], len(published.deliveries))
        return published

    async def _publish(self, new_event: NewEvent, content: str | bytes, connection: Connection | None) -> Published:
        if connection is not None:
            async with join_transaction(connection) as is_joined:
                result = await stored.publish(connection, self._storable(new_event), content, dated=self._dated)
                return self._one(result, is_committed=not is_joined)
        with self._calls.counted():
            result = await self._together.publish(self._storable(new_event), content)
        return self._one(result, is_committed=True)

    def _storable(self, new_event: NewEvent) -> NewEvent:
        """Return the event as the schema takes it: one of revision 0001 has no tracestate."""
        return new_event if self._dated or new_event.tracestate is None else replace(new_event, tracestate=None)

    async def publish_many(
        self, *, tenant_id: str, events: Iterable[Event], connection: Connection | None = None
    ) -> PublishedMany:
        """Store many events of one tenant, all of them or none, and ring the workers once.

        Each event is stored as by `publish`; the results are in the order of the events. An event id that occurs
        twice is one event, and the second result is a `duplicate`. The limits are 1,000 events, 32 MiB as JSON (raw
        bodies count four thirds) and 20,000 deliveries. A call without events does nothing.

        With a `connection` it joins a transaction as `publish` does. Raises as `publish`, with the `index` of the first
        faulty event, counted from 0: nothing is stored then.
        """
        owner = check_tenant(tenant_id)
        checked = (_checked(owner, index, each) for index, each in enumerate(events))
        if self._spans is None:
            return await self._publish_many(owner, checked, connection)
        with self._spans.publishing(owner) as span:
            published = await self._publish_many(
                owner, ((span.traced(each), content) for each, content in checked), connection
            )
            event_ids = [each.event_id for each in published.events]
            span.stored(event_ids, sum(len(each.deliveries) for each in published.events))
        return published

    async def _publish_many(
        self, owner: TenantId, events: Iterable[tuple[NewEvent, str | bytes]], connection: Connection | None
    ) -> PublishedMany:
        new_events = stored.batch((self._storable(each), content) for each, content in events)
        if not new_events:
            return self._many([], is_committed=True)
        if connection is not None:
            async with join_transaction(connection) as is_joined:
                results = await stored.publish_many(connection, owner, new_events, dated=self._dated)
                return self._many(results, is_committed=not is_joined)
        with self._calls.counted():
            results = await stored.publish_many(
                self._pool, owner, new_events, rings=self._doorbell.rings, dated=self._dated
            )
            published = self._many(results, is_committed=True)
            await published.ring()
        return published

    def _many(self, results: list[stored.PublishResult], *, is_committed: bool) -> PublishedMany:
        events = tuple(self._one(result, is_committed=is_committed) for result in results)
        return PublishedMany(events=events, _doorbell=self._doorbell)

    def _one(self, result: stored.PublishResult, *, is_committed: bool) -> Published:
        return Published(
            event_id=result.event_id,
            duplicate=result.duplicate,
            deliveries=result.deliveries,
            is_committed=is_committed,
            occurred_at=result.occurred_at,
            _due=result.due,
            _doorbell=self._doorbell,
        )
