"""Publishes through a connection of psycopg 3."""

from typing import Any, Unpack

from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from hookseal.producers.call import EventFields, Published, Rows, conversation, run, run_async

_PLACES = ("%s",) * 6


def publish(connection: Connection[Any], /, **event: Unpack[EventFields]) -> Published:
    """Store an event and its deliveries in the transaction of the connection, as `hookseal.producers.dbapi` does."""
    _refuse(AsyncConnection, connection, "an AsyncConnection goes to publish_async")
    with connection.cursor(row_factory=tuple_row) as cursor:

        def execute(sql: str, values: tuple[object, ...]) -> Rows:
            cursor.execute(sql.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

        return run(conversation(event, _PLACES), execute)


async def publish_async(connection: AsyncConnection[Any], /, **event: Unpack[EventFields]) -> Published:
    """Do the same through a connection of asyncio."""
    _refuse(Connection, connection, "a Connection goes to publish")
    async with connection.cursor(row_factory=tuple_row) as cursor:

        async def execute(sql: str, values: tuple[object, ...]) -> Rows:
            await cursor.execute(sql.encode(), values or None)
            return await cursor.fetchall() if cursor.description else []

        return await run_async(conversation(event, _PLACES), execute)


def _refuse(kind: type, connection: object, reason: str) -> None:
    if isinstance(connection, kind):
        raise TypeError(reason)
