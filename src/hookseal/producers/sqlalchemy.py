"""Publishes through a session or connection of SQLAlchemy, with any of its drivers of PostgreSQL."""

from typing import Unpack

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session

from hookseal.producers.call import EventFields, PublishedEvent, Rows, conversation, refuse_pipeline, run

_PLACES = tuple(f":p{number}" for number in range(8))


def publish(target: Session | Connection, /, **event: Unpack[EventFields]) -> PublishedEvent:
    """Store an event and its deliveries in the transaction of the session or connection.

    SQLAlchemy begins that transaction now, if it has not yet: nothing is stored before the caller's commit. Only with
    the isolation level AUTOCOMMIT it commits at once; `is_committed` says so. Nothing is rung: after the commit a
    worker finds the event by itself. Raises `Malformed` with the field, `Conflict` if another event has the event id or
    psycopg is in pipeline mode, `Refused` if the role may not publish for the tenant, and the errors of SQLAlchemy.
    """
    _require_sync(target)
    connection = target if isinstance(target, Connection) else target.connection()
    refuse_pipeline(connection.connection.driver_connection)

    def execute(sql: str, values: tuple[object, ...]) -> Rows:
        result = connection.execute(text(sql), {f"p{number}": value for number, value in enumerate(values)})
        return [tuple(row) for row in result] if result.returns_rows else []

    return run(conversation(event, _PLACES), execute)


async def publish_async(
    target: AsyncSession | async_scoped_session[AsyncSession] | AsyncConnection, /, **event: Unpack[EventFields]
) -> PublishedEvent:
    """Do the same through a session or connection of asyncio."""
    session = target() if isinstance(target, async_scoped_session) else target
    _require_async(session)
    return await session.run_sync(publish, **event)


def _require_sync(target: object) -> None:
    if isinstance(target, AsyncSession | AsyncConnection | async_scoped_session):
        raise TypeError("an AsyncSession or AsyncConnection goes to publish_async")


def _require_async(target: object) -> None:
    if not hasattr(target, "run_sync"):
        raise TypeError(
            f"publish_async takes an AsyncSession or AsyncConnection, not {type(target).__name__}: "
            "a Session or Connection goes to publish"
        )
