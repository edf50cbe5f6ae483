"""Publishes through a database of Django."""

from typing import Any, Unpack

from django.db import DEFAULT_DB_ALIAS, connections

from hookseal.producers.call import EventFields, PublishedEvent, Rows, conversation, refuse_pipeline, run

_PLACES = ("%s",) * 8


def publish(*, using: str = DEFAULT_DB_ALIAS, **event: Unpack[EventFields]) -> PublishedEvent:
    """Store an event and its deliveries in the transaction of `atomic`.

    Call it inside the block, not in `on_commit`: the event is in the same transaction as your rows, so workers see it
    after the commit and not before. Outside of `atomic` it commits at once; `is_committed` says so. Nothing is rung:
    after the commit a worker finds the event by itself. Raises `Malformed` with the field, `Conflict` if another event
    has the event id or psycopg is in pipeline mode, `Refused` if the role may not publish for the tenant, and the
    errors of Django.
    """
    with connections[using].cursor() as cursor:
        refuse_pipeline(connections[using].connection)

        def execute(sql: str, values: tuple[Any, ...]) -> Rows:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

        return run(conversation(event, _PLACES), execute)
