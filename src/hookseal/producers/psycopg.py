"""Publishes through a connection of psycopg 3."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, Unpack

from psycopg import AsyncConnection, Connection
from psycopg.pq import PipelineStatus
from psycopg.rows import tuple_row

from hookseal.producers.call import EventFields, PublishedEvent, Rows, conversation, run, run_async

_PLACES = ("%s",) * 8


def publish(connection: Connection[Any], /, **event: Unpack[EventFields]) -> PublishedEvent:
    """Store an event and its deliveries in the transaction of the connection, as `hookseal.producers.dbapi` does.

    In pipeline mode it synchronises the pipeline before each of its statements and after. An error of a statement that
    the caller sent before is raised first, and then nothing is published.
    """
    _refuse(AsyncConnection, connection, "an AsyncConnection goes to publish_async")
    with _synced(connection), connection.cursor(row_factory=tuple_row) as cursor:

        def execute(sql: str, values: tuple[object, ...]) -> Rows:
            with _synced(connection):
                cursor.execute(sql.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

        return run(conversation(event, _PLACES), execute)


async def publish_async(connection: AsyncConnection[Any], /, **event: Unpack[EventFields]) -> PublishedEvent:
    """Do the same through a connection of asyncio."""
    _refuse(Connection, connection, "a Connection goes to publish")
    async with _synced_async(connection), connection.cursor(row_factory=tuple_row) as cursor:

        async def execute(sql: str, values: tuple[object, ...]) -> Rows:
            async with _synced_async(connection):
                await cursor.execute(sql.encode(), values or None)
            return await cursor.fetchall() if cursor.description else []

        return await run_async(conversation(event, _PLACES), execute)


def _synced(connection: Connection[Any]) -> AbstractContextManager[object]:
    """Return a block that begins and ends with a synchronised pipeline, if the connection is in pipeline mode.

    Only then a statement has its rows, or its error.
    """
    return nullcontext() if connection.pgconn.pipeline_status == PipelineStatus.OFF else connection.pipeline()


def _synced_async(connection: AsyncConnection[Any]) -> AbstractAsyncContextManager[object]:
    return nullcontext() if connection.pgconn.pipeline_status == PipelineStatus.OFF else connection.pipeline()


def _refuse(kind: type, connection: object, reason: str) -> None:
    if isinstance(connection, kind):
        raise TypeError(reason)
