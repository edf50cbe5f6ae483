"""Publishes through a connection of any driver of PostgreSQL with the interface of PEP 249: psycopg2, pg8000, ..."""

from typing import Any, Unpack

from hookseal.producers.call import EventFields, PublishedEvent, Rows, conversation, refuse_pipeline, run

_PLACES = ("%s",) * 8  # the styles `format` and `pyformat`, which the drivers of PostgreSQL have


def publish(connection: Any, /, **event: Unpack[EventFields]) -> PublishedEvent:
    """Store an event and its deliveries in the transaction of the connection, which begins one unless it autocommits.

    In autocommit and outside of a transaction it commits at once; `is_committed` says so. Nothing is rung: after the
    commit a worker finds the event by itself. Raises `Malformed` with the field, `Conflict` if another event has the
    event id or psycopg is in pipeline mode, `Refused` if the role may not publish for the tenant, and the errors of the
    driver.
    """
    refuse_pipeline(connection)
    cursor = connection.cursor()

    def execute(sql: str, values: tuple[object, ...]) -> Rows:
        cursor.execute(sql, *([values] if values else []))
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    try:
        return run(conversation(event, _PLACES), execute)
    finally:
        cursor.close()
