"""The Publisher: publishes from Python, on its own or inside a transaction of the caller.

async with Publisher.connect() as publisher:
    await publisher.publish(tenant_id="acme", event_type="invoice.paid", data={"id": 1})

    async with connection.transaction():
        ...
        published = await publisher.publish(..., connection=connection)
    await published.ring()

    await publisher.publish_many(tenant_id="acme", events=[Event(event_type="invoice.paid", data={"id": 2}), ...])
"""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from hookseal.client.calls import Calls, counted_calls
from hookseal.client.connections import connections
from hookseal.client.doorbell import Doorbell, doorbell
from hookseal.client.event import UNSET, check_tenant, encode_payload, event
from hookseal.client.joining import join_transaction
from hookseal.client.many import Event, encode_batch
from hookseal.config.producer import producer_settings
from hookseal.dispatcher import publish as stored
from hookseal.dispatcher.model import Ring
from hookseal.ground.ids import EventId
from hookseal.postgres.handles import Connection, Executor, Pool

_LOG: Final = logging.getLogger("hookseal.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The event and its deliveries. `duplicate` is true if this event had already been published.

    `is_committed` is false if the event is stored by the commit of the caller's transaction, and undone by a rollback.
    """

    event_id: EventId
    duplicate: bool
    deliveries: tuple[Ring, ...]
    is_committed: bool
    _due: tuple[Ring, ...] = field(repr=False, compare=False)
    _doorbell: Doorbell = field(repr=False, compare=False)

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


class Publisher:
    """Publishes events. One Publisher serves a whole process: any number of tasks may use it at once."""

    def __init__(self, pool: Pool, ringing: Doorbell, calls: Calls) -> None:
        self._pool = pool
        self._doorbell = ringing
        self._calls = calls

    @classmethod
    @asynccontextmanager
    async def connect(cls, database_url: str | None = None, redis_url: str | None = None) -> "AsyncIterator[Publisher]":
        """Open a Publisher, and close its connections at the end of the block, after the calls that are under way.

        A url that is None is read from the environment: HOOKSEAL_DATABASE_URL or else DATABASE_URL, and
        HOOKSEAL_REDIS_URL or else REDIS_URL. An empty variable counts as not set, and other variables are not checked
        (docs/settings.md). Without a url of Redis, or with "", no worker is rung, and the workers find events by
        themselves a moment later. Raises `ConfigError`, `Unavailable`, `Refused`.
        """
        settings = producer_settings(database_url=database_url, redis_url=redis_url)

        def on_lost(reason: str) -> None:
            _LOG.warning(
                "workers are not rung, and find events by themselves: %s (Redis at %s)", reason, settings.redis.address
            )

        async with (
            doorbell(settings, on_lost) as ringing,
            connections(settings.database) as pool,
            counted_calls() as calls,
        ):
            yield cls(pool, ringing, calls)

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
        connection: Connection | None = None,
    ) -> Published:
        """Store an event and one delivery for each endpoint that subscribes to its type, and ring the workers.

        `data` consists of dict with str as keys, list, tuple, str, int, float, bool and None, at most 200 levels deep,
        and is sent within the envelope of docs/wire.md. A value that JSON does not have (NaN, Decimal, datetime, ...)
        is never converted, but refused with its path (`data.items[3].price`). A `body` is sent byte for byte instead.

        With a `connection` of asyncpg it joins the caller's transaction (without one it commits at once, and
        `is_committed` says so), and the caller awaits `Published.ring` after the commit; a publish that fails undoes
        itself and leaves that transaction usable. SQLAlchemy begins a transaction on its first statement only: for it
        there is `hookseal.producers.sqlalchemy`. Publishing the same event id again changes nothing and returns the
        first result.
        Raises `Malformed` with the field, `Conflict` if another event has the event id, `Refused` if the role may not
        publish for the tenant or the Publisher is closed, `Unavailable`: then it is unknown whether the event is
        stored, and it is safe to publish it again with the same event id.
        """
        content = encode_payload(data, body)
        given = event(
            tenant_id=check_tenant(tenant_id),
            event_type=event_type,
            event_id=event_id,
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        if connection is not None:
            async with join_transaction(connection) as is_joined:
                return await self._stored(connection, given, content, is_committed=not is_joined)
        with self._calls.counted():
            published = await self._stored(self._pool, given, content, is_committed=True, rings=self._doorbell.rings)
            await published.ring()
        return published

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
        given = encode_batch(owner, events)
        if not given:
            return self._many([], is_committed=True)
        if connection is not None:
            async with join_transaction(connection) as is_joined:
                results = await stored.publish_many(connection, owner, given)
                return self._many(results, is_committed=not is_joined)
        with self._calls.counted():
            results = await stored.publish_many(self._pool, owner, given, rings=self._doorbell.rings)
            published = self._many(results, is_committed=True)
            await published.ring()
        return published

    async def _stored(
        self,
        executor: Executor,
        given: stored.Event,
        content: str | bytes,
        *,
        is_committed: bool,
        rings: bool = False,
    ) -> Published:
        if isinstance(content, str):
            result = await stored.publish_encoded(executor, given, content, rings=rings)
        else:
            result = await stored.publish_raw(executor, given, content, rings=rings)
        return self._one(result, is_committed=is_committed)

    def _many(self, results: list[stored.Published], *, is_committed: bool) -> PublishedMany:
        events = tuple(self._one(result, is_committed=is_committed) for result in results)
        return PublishedMany(events=events, _doorbell=self._doorbell)

    def _one(self, result: stored.Published, *, is_committed: bool) -> Published:
        return Published(
            event_id=result.event_id,
            duplicate=result.duplicate,
            deliveries=result.deliveries,
            is_committed=is_committed,
            _due=result.due,
            _doorbell=self._doorbell,
        )
