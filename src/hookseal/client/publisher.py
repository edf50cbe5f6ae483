"""The Publisher: publishes from Python, on its own or inside a transaction of the caller (design 1.4).

async with Publisher.connect() as publisher:
    await publisher.publish(tenant_id="acme", event_type="invoice.paid", data={"id": 1})

    async with connection.transaction():
        ...
        published = await publisher.publish(..., connection=connection)
    await published.ring()
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from hookseal.client.database import connection_of, connections
from hookseal.client.doorbell import Doorbell, doorbell
from hookseal.client.event import event
from hookseal.client.joining import joined
from hookseal.config.producer import producer_settings
from hookseal.dispatcher import publish as stored
from hookseal.dispatcher.model import Ring
from hookseal.dispatcher.payload import encoded
from hookseal.ground.errors import Malformed
from hookseal.ground.ids import EventId
from hookseal.schema.database import Connection, Pool

_NOTHING: Final = object()  # None is a value of JSON
_LOG: Final = logging.getLogger("hookseal.client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The event and its deliveries; `duplicate` if this very event had been published before."""

    event_id: EventId
    duplicate: bool
    deliveries: tuple[Ring, ...]
    _due: tuple[Ring, ...] = field(repr=False, compare=False)
    _doorbell: Doorbell = field(repr=False, compare=False)

    async def ring(self) -> None:
        """Tell the workers, once the caller's transaction is committed. Without it they find out by themselves.

        What waits for its endpoint is not rung. Returns within two seconds. Never raises: a ring that is lost is
        logged, and the outbox finds the event.
        """
        await self._doorbell.ring(self._due)


class Publisher:
    """Publishes events. One serves a whole process: any number of tasks may publish at once."""

    def __init__(self, pool: Pool, ringing: Doorbell) -> None:
        self._pool = pool
        self._doorbell = ringing

    @classmethod
    @asynccontextmanager
    async def connect(cls, database_url: str | None = None, redis_url: str | None = None) -> "AsyncIterator[Publisher]":
        """Hold a Publisher; its connections are closed afterwards.

        A url that is None is read from the environment: HOOKSEAL_DATABASE_URL, else DATABASE_URL, and
        HOOKSEAL_REDIS_URL, else REDIS_URL; an empty variable counts as not set, and what else the process sets is not
        judged (docs/settings.md). Without a Redis, or with "" for it, nothing is rung, and the workers find events by
        themselves, a moment later. Raises `ConfigError`, `Unavailable`, `Refused`.
        """
        settings = producer_settings(database_url=database_url, redis_url=redis_url)

        def on_lost(reason: str) -> None:
            _LOG.warning("a ring was lost, the outbox forgives it: %s (at %s)", reason, settings.redis.address)

        async with connections(settings.database) as pool, doorbell(settings, on_lost) as ringing:
            yield cls(pool, ringing)

    async def publish(  # noqa: PLR0913 -- design 1.4 names them
        self,
        *,
        tenant_id: str,
        event_type: str,
        data: object = _NOTHING,
        body: bytes | None = None,
        event_id: str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        connection: Connection | None = None,
    ) -> Published:
        """Store an event and one delivery for each endpoint that subscribes to its type, and tell the workers.

        `data` consists of dict with str as keys, list, tuple, str, int, float, bool and None, at most 200 levels deep,
        and is wrapped as design 1.6 says. What JSON does not have (NaN, Decimal, bytes, sets, datetime, ...) is never
        converted, but refused with its path (`data.items[3].price`). A `body` is sent byte for byte in its place.

        With a `connection` of asyncpg it joins the caller's transaction (where there is none it commits at once), and
        the caller awaits `Published.ring` after the commit; a publish that fails undoes itself and leaves that
        transaction usable. The same event id again changes nothing and gives the first answer.
        Raises `Malformed` naming the field, `Conflict` if the event id is taken by another event, `Refused` if the role
        may not publish for the tenant or this is closed, `Unavailable`: then it is not known whether the event is
        stored, and publishing it again with the same event id is safe.
        """
        payload = _payload(data, body)
        given = event(
            tenant_id=tenant_id,
            event_type=event_type,
            event_id=event_id,
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        if connection is not None:
            async with joined(connection):
                return await self._stored(connection, given, payload)
        async with connection_of(self._pool) as own:
            published = await self._stored(own, given, payload)
        await published.ring()
        return published

    async def _stored(self, connection: Connection, given: stored.Event, payload: str | bytes) -> Published:
        if isinstance(payload, str):
            result = await stored.publish_encoded(connection, given, payload)
        else:
            result = await stored.publish_raw(connection, given, payload)
        return Published(
            event_id=result.event_id,
            duplicate=result.duplicate,
            deliveries=result.deliveries,
            _due=result.due,
            _doorbell=self._doorbell,
        )


def _payload(data: object, body: object) -> str | bytes:
    if (data is _NOTHING) == (body is None):
        raise Malformed("give exactly one of data and body", field="data")
    if body is None:
        return encoded(data)
    if not isinstance(body, bytes | bytearray | memoryview):
        raise Malformed("body must be bytes: give data for what is to be sent as JSON", field="body")
    return bytes(body)
